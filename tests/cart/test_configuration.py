"""A cart's TOML file: what is right loads, and every mistake is named with its line and key."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from hipnet_edge.cart.configuration import Configuration, ConfigurationInvalid, Pins, example, load

tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")

PINS = Pins(bundle_digest="ab" * 32, backend="onnxruntime", variant="fp32")


def _load(folder: Path, text: str) -> Configuration:
    file = folder / "cart.toml"
    file.write_text(text, encoding="utf-8")
    return load(file)


def _mistakes(folder: Path, text: str) -> list[str]:
    """The sentences about a file, each without its path."""
    with pytest.raises(ConfigurationInvalid) as caught:
        _load(folder, text)
    lines = caught.value.message.split("\n")
    assert all(line.startswith(f"{folder / 'cart.toml'}:") and line[-1] == "." for line in lines)
    return [line.removeprefix(f"{folder / 'cart.toml'}:") for line in lines]


def test_the_example_loads_and_shows_the_defaults(tmp_path: Path) -> None:
    text = example(PINS)
    loaded = _load(tmp_path, text)
    assert loaded.predict.bundle_digest == PINS.bundle_digest
    assert loaded.receive.calling_ae_titles == ("XRAY1",)
    assert loaded.service.data == tmp_path / "data"
    assert (loaded.watch, loaded.destination) == (None, ())

    # With every # taken away it is a complete configuration; what stood after # is the default.
    tls = ("tls/cart.crt", "tls/cart.key", "tls/hospital-ca.crt")
    for name in (*tls, "page.token", "web.token", "site.overlay.json", "site-key.pub"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("x")
    whole = re.sub(r"(?m)^# ?(\[|[a-z_]+ = )", r"\1", text)
    full = _load(tmp_path, whole)
    assert {d.kind for d in full.destination} == {"dicom", "folder", "dicomweb"}
    assert full.watch is not None
    assert full.receive.tls is not None
    missing = {"tls", "token_file", "threads", "calling_ae_title", "names"}
    missing |= {"overlay", "overlay_digest", "overlay_key"}
    for table in (
        "service",
        "predict",
        "receive",
        "assemble",
        "deliver",
        "page",
        "selftest",
        "retention",
        "log",
    ):
        ours, theirs = getattr(full, table), getattr(loaded, table)
        shown = set(tomllib.loads(whole)[table])
        every = set(type(ours).model_fields) - {"any_caller"}
        assert every <= shown, f"{table}: the example lacks {every - shown}"
        for field in every - missing:
            assert getattr(ours, field) == getattr(theirs, field), f"{table}.{field}"


def test_every_mistake_is_named_with_its_line(tmp_path: Path) -> None:
    text = """\
[service]
data = "data"
[predict]
bundle_digest = "zz"
backend = 3
[receive]
prot = 3
port = "11112"
ae_title = "SEVENTEEN LETTERS"
[receive.tls]
certificate = "cart.crt"
key = "cart.key"
[[destination]]
name = "pacs"
kind = "dicom"
port = 70000
objects = [
    "report",
    "film",
]
[[destination]]
name = "other"
kind = "fax"
[page]
host = "0.0.0.0"
[retentoin]
days = 3
"""
    assert _mistakes(tmp_path, text) == [
        "3: predict.variant: this key is missing.",
        "4: predict.bundle_digest: this value does not have the form that is expected.",
        "5: predict.backend: input should be a valid string.",
        "6: receive.calling_ae_titles: name the AE titles that may send, or set any_caller = true.",
        "7: receive.prot: this key is unknown; perhaps port is meant.",
        "8: receive.port: input should be a valid integer.",
        "9: receive.ae_title: an AE title has 1 to 16 printable ASCII characters and no backslash.",
        "10: receive.tls.peer_ca: this key is missing.",
        f"11: receive.tls.certificate: there is no file {tmp_path / 'cart.crt'}.",
        f"12: receive.tls.key: there is no file {tmp_path / 'cart.key'}.",
        "13: destination[1].ae_title: this key is missing.",
        "13: destination[1].host: this key is missing.",
        "16: destination[1].port: input should be less than or equal to 65535.",
        "17: destination[1].objects[2]: input should be 'report', 'segmentation' or 'capture'.",
        "21: destination[2]: the kind of a destination is dicom, folder or dicomweb.",
        "24: page.token_file: a page on 0.0.0.0 can be reached from outside: "
        "it needs a token_file.",
        "26: retentoin: this key is unknown; perhaps retention is meant.",
    ]


_RIGHT = example(PINS)


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("[service]", "[service"), 1, "this is not TOML"),
        (('data = "data"', 'data = "data'), 1, "this is not TOML"),
        (("[receive]", "[receive]\nmax_pdu_bytes = 1"), 1, "receive.max_pdu_bytes"),
        (("[receive]", "[receive]\nany_caller = true"), 2, "no AE titles are named"),
        (("[receive]", '[receive]\nhost = "a b"'), 1, "receive.host"),
        (("# [log]", "[log]\nlevel = 3\n#"), 1, "log.level"),
        (("# [watch]", '[watch]\nfolder = "data/in"\n#'), 0, "contain each other"),
        (("# [assemble]", "[assemble]\nsettle_s = nan\n#"), 1, "assemble.settle_s"),
        (("[predict]", '[predict]\nbundle = "nowhere"'), 1, "there is no bundle"),
        (("[predict]", '[predict]\noverlay = "nowhere"'), 1, "there is no file"),
        (("[predict]", '[predict]\noverlay = "cart.toml"'), 0, "overlay_digest are named together"),
        (("[predict]", f'[predict]\noverlay_digest = "{"0" * 64}"'), 1, "are named together"),
        (("[predict]", '[predict]\noverlay_key = "cart.toml"'), 1, "a key is for an overlay"),
    ],
)
def test_single_mistakes(tmp_path: Path, change: tuple[str, str], line: int, said: str) -> None:
    text = _RIGHT.replace(*change, 1)
    assert text != _RIGHT
    (mistake,) = _mistakes(tmp_path, text)
    place = _RIGHT.split(change[0])[0].count("\n") + 1
    assert said in mistake
    if "TOML" not in said:
        found = int(mistake.split(":")[0])
        assert found == place + line or said == "no AE titles are named"


def test_missing_tables_and_files(tmp_path: Path) -> None:
    assert _mistakes(tmp_path, "") == [
        "1: predict: this table is missing.",
        "1: receive: this table is missing.",
        "1: service: this table is missing.",
    ]
    with pytest.raises(ConfigurationInvalid, match=r"cannot be read: No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "cart.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationInvalid, match="not UTF-8"):
        load(tmp_path / "cart.toml")


def test_keys_inside_strings_are_not_taken_for_keys(tmp_path: Path) -> None:
    name = '[service]\nstation_name = """\\\nlevle = 1\n"""'
    text = _RIGHT.replace("[service]", name, 1) + "[log]\nlevle = 'info'\n"
    mistakes = _mistakes(tmp_path, text)
    assert mistakes[-1].startswith(f"{text.count(chr(10))}: log.levle")


def test_the_digest_says_which_settings_applied(tmp_path: Path) -> None:
    one, same = _load(tmp_path, _RIGHT), _load(tmp_path, _RIGHT + "\n# a comment\n")
    other = _load(tmp_path, _RIGHT.replace('"XRAY1"', '"XRAY2"'))
    assert one.digest == same.digest != other.digest
