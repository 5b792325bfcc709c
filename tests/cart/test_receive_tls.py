"""Mutual TLS: only who shows a certificate of the right CA is heard."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from raw_peer import RawPeer, associate_request
from receiving import Cart, cart, dcmtk, echoes, tool

from hipnet_edge.cart.settings import Tls
from hipnet_edge.cart.tls import server_context
from hipnet_edge.errors import UsageError

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout")


def _openssl(*arguments: object) -> None:
    subprocess.run(
        [tool("openssl"), *map(str, arguments)], check=True, capture_output=True, timeout=60
    )


def _authority(folder: Path, name: str) -> None:
    key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
    _openssl("req", "-x509", *_NEW_KEY, key, "-out", certificate, "-subj", f"/CN={name}")


def _certificate(folder: Path, name: str, authority: str) -> None:
    key, request, certificate = (folder / f"{name}.{suffix}" for suffix in ("key", "csr", "crt"))
    _openssl("req", *_NEW_KEY, key, "-out", request, "-subj", "/CN=localhost")
    signer = ["-CA", folder / f"{authority}.crt", "-CAkey", folder / f"{authority}.key"]
    _openssl("x509", "-req", "-in", request, *signer, "-CAcreateserial", "-out", certificate)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for authority in ("hospital", "stranger"):
        _authority(folder, authority)
    _certificate(folder, "cart", "hospital")
    _certificate(folder, "xray", "hospital")
    _certificate(folder, "foreign", "stranger")
    return folder


def _tls(keys: Path) -> Tls:
    names = {"certificate": "cart.crt", "key": "cart.key", "peer_ca": "hospital.crt"}
    return Tls(**{field: keys / name for field, name in names.items()})


@pytest.fixture(scope="module")
def guarded(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cart]:
    with cart(tmp_path_factory.mktemp("cart") / "data", tls=_tls(keys)) as running:
        yield running


def _shown(keys: Path, name: str, authority: str = "hospital") -> list[object]:
    return ["+tls", keys / f"{name}.key", keys / f"{name}.crt", "+cf", keys / f"{authority}.crt"]


def test_the_right_certificate_is_let_in(guarded: Cart, keys: Path) -> None:
    assert echoes(guarded, *_shown(keys, "xray"))


def test_others_are_not(guarded: Cart, keys: Path) -> None:
    no_certificate = ["+tla", "+cf", keys / "hospital.crt"]
    for options in (_shown(keys, "foreign"), no_certificate, []):
        answer = dcmtk("echoscu", guarded, *options)
        assert answer.returncode != 0, options
    assert "tls" in guarded.reasons()
    assert echoes(guarded, *_shown(keys, "xray"))


def test_old_versions_are_refused(guarded: Cart, keys: Path) -> None:
    """By a client that would speak them: what the handshake ends with is said by the receiver."""
    for version in ("-tls1", "-tls1_1"):
        answer = subprocess.run(
            [tool("openssl"), "s_client", "-connect", f"127.0.0.1:{guarded.receiver.port}",
             version, "-cipher", "ALL:@SECLEVEL=0", "-cert", keys / "xray.crt",
             "-key", keys / "xray.key"],
            input="", capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        assert answer.returncode != 0
        assert "alert" in answer.stderr


def test_a_silent_handshake_keeps_nobody_waiting(guarded: Cart, keys: Path) -> None:
    silent = [RawPeer(guarded.receiver.port) for _ in range(20)]
    for peer in silent[:10]:
        peer.send(b"\x16\x03\x01")
    started = time.monotonic()
    assert echoes(guarded, *_shown(keys, "xray"))
    assert time.monotonic() - started < 2.0
    for peer in silent:
        peer.socket.close()


def test_plain_dicom_gets_no_dicom_answer(guarded: Cart) -> None:
    with RawPeer(guarded.receiver.port) as peer:
        peer.send(associate_request())
        try:
            answer = peer.socket.recv(64)
        except ConnectionError:
            answer = b""
        assert answer[:1] in (b"", b"\x15")  # nothing, or a TLS alert


def test_a_key_that_does_not_fit_is_said_at_the_start(keys: Path) -> None:
    tls = _tls(keys).model_copy(update={"key": keys / "xray.key"})
    with pytest.raises(UsageError, match="no certificate with its unencrypted key"):
        server_context(tls)
