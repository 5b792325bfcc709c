"""Images from real senders: what success means, and what each refusal is answered with."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from pathlib import Path

import pytest
from pydicom import Dataset
from raw_peer import RawPeer, data_pdu, store_command
from receiving import Cart, cart, dcmtk, echoes, tool, wait_until
from small_study import BIRTH_DATE, PATIENT, PATIENT_ID, dicom_bytes, pair, small_dicom

from hipnet_edge.cart import receive
from hipnet_edge.cart.sop_classes import PREFERRED_SYNTAXES
from hipnet_edge.dicom_reader import read_dicom
from hipnet_edge.pixel_data import decode_pixels, read_layout

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

AP, LATERAL = pair(7)


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_study_is_kept_queued_and_then_acknowledged(tmp_path: Path) -> None:
    ap, lateral = _file(tmp_path / "ap", AP), _file(tmp_path / "lateral", LATERAL)
    with cart(tmp_path / "data") as running:
        assert echoes(running)
        sent = dcmtk("storescu", running, ap, lateral)
        assert sent.stdout.count("Received Store Response (Success)") == 2
        running.check_kept()
        kept = running.instances()
        assert {i.view for i in kept.values()} == {"ap", "lateral"}
        for instance in kept.values():
            assert instance.source == "dicom:XRAY1"
            assert (instance.laterality, instance.refusal) == ("left", None)
            assert len(instance.patient_key) == 16
    # What another process finds after the service has ended
    with cart(tmp_path / "data") as again:
        assert again.instances() == kept


def _pixels(content: bytes) -> bytes:
    dicom = read_dicom(content)
    return decode_pixels(dicom, read_layout(dicom.header)).tobytes()


CODECS = {
    "1.2.840.10008.1.2": (["dcmconv", "+ti"], ["-xi"]),
    "1.2.840.10008.1.2.2": (["dcmconv", "+tb"], ["-xb"]),
    "1.2.840.10008.1.2.1.99": (["dcmconv", "+td"], ["-xd"]),
    "1.2.840.10008.1.2.5": (["dcmcrle"], ["-xr"]),
    "1.2.840.10008.1.2.4.70": (["dcmcjpeg", "+e1"], ["-xs"]),
    "1.2.840.10008.1.2.4.51": (["dcmcjpeg", "+ee"], ["-xx"]),
    "1.2.840.10008.1.2.4.80": (["dcmcjpls", "+el"], ["-xt"]),
    "1.2.840.10008.1.2.4.81": (["dcmcjpls", "+en"], ["-xu"]),
}
"""Transfer syntax: the dcmtk program that makes it, and storescu's option that proposes it."""
LOSSY = {"1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81"}


def test_every_encoding_that_dcmtk_makes(tmp_path: Path) -> None:
    source = _file(tmp_path / "source.dcm", AP)
    expected = _pixels(AP)
    with cart(tmp_path / "data") as running:
        for syntax, (codec, propose) in CODECS.items():
            made = tmp_path / f"{syntax}.dcm"
            subprocess.run([tool(codec[0]), *codec[1:], source, made], check=True)
            sent = dcmtk("storescu", running, *propose, made)
            assert sent.returncode == 0, sent.stdout
            # What loses something is another image, with a UID of its own.
            kept = {i.transfer_syntax: i for i in running.instances().values()}[syntax]
            assert (kept.sop_instance_uid == "1.2.3.7.1") == (syntax not in LOSSY)
            content = running.store.read(kept.file)
            assert syntax in LOSSY or _pixels(content) == expected
        running.check_kept()


def test_the_preferred_encoding_is_chosen(tmp_path: Path) -> None:
    """Of what one context offers: what loses nothing and costs the least to read."""
    from pynetdicom import AE, build_context

    with cart(tmp_path / "data") as running:
        peer = AE(ae_title="XRAY1")
        offered = list(reversed(PREFERRED_SYNTAXES))
        peer.requested_contexts = [
            build_context("1.2.840.10008.5.1.4.1.1.1", offered),
            build_context("1.2.840.10008.5.1.4.1.1.1.1", offered[:5]),
            build_context("1.2.840.10008.5.1.4.1.1.1.1", ["1.2.840.10008.1.2.4.100"]),
            build_context("1.2.840.10008.5.1.4.1.1.2", offered),  # CT
        ]
        association = peer.associate("127.0.0.1", running.receiver.port, ae_title="HIPNET")
        assert [str(c.transfer_syntax[0]) for c in association.accepted_contexts] == [
            "1.2.840.10008.1.2.1",
            "1.2.840.10008.1.2.4.203",
        ]
        assert len(association.rejected_contexts) == 2
        association.release()


def test_the_same_image_again_and_a_changed_one(tmp_path: Path) -> None:
    first = _file(tmp_path / "first", AP)
    changed = small_dicom("ap", 7)
    changed.PixelData = changed.PixelData[::-1]
    second = _file(tmp_path / "second", dicom_bytes(changed))
    with cart(tmp_path / "data") as running:
        for image in (first, first, second, second):
            assert dcmtk("storescu", running, image).returncode == 0
        (kept,) = running.instances().values()
        assert running.store.read(kept.file).endswith(changed.PixelData)
        running.check_kept()


def test_an_image_changed_after_its_use_is_a_conflict(tmp_path: Path) -> None:
    from hipnet_edge.cart.records import NewCase, Settlement

    images = [_file(tmp_path / "ap", AP), _file(tmp_path / "lateral", LATERAL)]
    changed = small_dicom("ap", 7)
    changed.PixelData = changed.PixelData[::-1]
    with cart(tmp_path / "data") as running:
        assert dcmtk("storescu", running, *images).returncode == 0
        (study,) = running.queue.waiting_studies()
        case = NewCase("1.2.3.7.1", "1.2.3.7.2", "left")
        assert running.queue.settle(study, Settlement(cases=(case,)))
        answer = dcmtk("storescu", running, "-d", _file(tmp_path / "new", dicom_bytes(changed)))
        assert "0x0111" in answer.stdout
        assert "conflict" in answer.stdout
        assert dcmtk("storescu", running, *images).returncode == 0


def _changed(**attributes: object) -> Dataset:
    dataset = small_dicom("ap", 9)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    return dataset


def test_objects_of_another_kind(tmp_path: Path) -> None:
    kinds: list[tuple[dict[str, object], str, str]] = [
        ({"PresentationIntentType": "FOR PROCESSING"}, "0xa900", "not_for_presentation"),
        ({"Modality": "CT"}, "0xa900", "wrong_modality"),
        ({"Modality": "RG"}, "0xa900", "wrong_modality"),
        ({"NumberOfFrames": 2}, "0xa900", "multi_frame"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "0xa900", "unsupported_pixels"),
        ({"StudyInstanceUID": ""}, "0xc000", "not_dicom"),
    ]
    with cart(tmp_path / "data") as running:
        for attributes, status, reason in kinds:
            image = _file(tmp_path / "image", dicom_bytes(_changed(**attributes)))
            answer = dcmtk("storescu", running, "-d", image)
            assert status in answer.stdout
            assert reason in answer.stdout
        assert running.reasons() == [reason for _, _, reason in kinds]
        assert not running.instances()
        assert not list(running.store.names())
        running.check_kept()


def test_radiographs_without_a_place_in_a_pair_are_kept(tmp_path: Path) -> None:
    refusals: list[tuple[dict[str, object], str]] = [
        ({"BodyPartExamined": "CHEST"}, "not_a_hip"),
        ({"ViewPosition": ""}, "unknown_view"),
        ({"ViewPosition": "LAO"}, "wrong_view"),
        ({"ImageLaterality": "L", "Laterality": "R"}, "conflicting_laterality"),
        ({"Rows": 32, "Columns": 6000}, "too_small"),
    ]
    images = [
        _file(
            tmp_path / f"{number}.dcm",
            dicom_bytes(_changed(**attributes, SOPInstanceUID=f"1.2.3.9.{number}")),
        )
        for number, (attributes, _) in enumerate(refusals)
    ]
    with cart(tmp_path / "data") as running:
        assert dcmtk("storescu", running, *images).returncode == 0
        kept = running.instances()
        found = [kept[f"1.2.3.9.{number}"].refusal for number in range(len(refusals))]
        assert found == [refusal for _, refusal in refusals]


def test_captures_and_scanned_film_on_request(tmp_path: Path) -> None:
    capture = _changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="OT", ConversionType="DI")
    film = _changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="RG", ConversionType="DF")
    screen = _changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="OT", ConversionType="WSD")
    for name, image in (("capture", capture), ("film", film), ("screen", screen)):
        _file(tmp_path / name, dicom_bytes(image))

    def accepted(running: Cart) -> set[str]:
        names = ("capture", "film", "screen")
        return {n for n in names if dcmtk("storescu", running, tmp_path / n).returncode == 0}

    for number, (asked, expected) in enumerate(
        (
            ({}, set()),
            ({"secondary_capture": True}, {"capture"}),
            ({"scanned_film": True}, {"film"}),
        )
    ):
        with cart(tmp_path / str(number), **asked) as running:
            assert accepted(running) == expected


def test_stop_lets_a_running_store_finish(tmp_path: Path) -> None:
    data = AP[AP.index(b"\x08\x00\x16\x00UI") :]
    with cart(tmp_path / "data") as running, RawPeer(running.receiver.port) as peer:
        port = running.receiver.port
        peer.associate()
        peer.send(data_pdu(3, 3, store_command(b"1.2.3.7.1")) + data_pdu(3, 0, data[:9000]))
        stopping = threading.Thread(target=running.receiver.stop)
        stopping.start()
        wait_until(lambda: not running.receiver.listening)
        time.sleep(0.3)
        peer.send(data_pdu(3, 2, data[9000:]))
        assert peer.status() == receive.SUCCESS
        stopping.join(timeout=5.0)
        assert not stopping.is_alive()
        assert list(running.instances()) == ["1.2.3.7.1"]
        assert peer.answer() is None
        with pytest.raises(ConnectionRefusedError):
            RawPeer(port)


def test_no_patient_data_leaves_the_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in a log of any library, not in the database, the audit or a file's name."""
    caplog.set_level(logging.DEBUG)
    files = [
        _file(tmp_path / "ap", AP),
        _file(tmp_path / "bad", dicom_bytes(_changed(Modality="CT"))),
        _file(tmp_path / "cut", AP[:-800]),
    ]
    with cart(tmp_path / "data") as running:
        for image in files:
            dcmtk("storescu", running, image)
        with RawPeer(running.receiver.port) as peer:
            peer.associate()
            peer.send(data_pdu(3, 3, store_command(PATIENT_ID.encode())))
            peer.send(data_pdu(3, 2, f"{PATIENT} {PATIENT_ID} {BIRTH_DATE}".encode()))
            assert peer.status() == receive.INVALID_INSTANCE
    said = caplog.text + "".join(capfd.readouterr())
    others = [p for p in (tmp_path / "data").rglob("*") if p.is_file() and p.suffix != ".dcm"]
    assert others
    for secret in (PATIENT, PATIENT_ID, BIRTH_DATE):
        assert secret not in said
        for path in others:
            assert secret not in path.name
            assert secret.encode() not in path.read_bytes()
