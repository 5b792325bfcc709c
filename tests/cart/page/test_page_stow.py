"""STOW-RS reception: a multipart body however it is cut, and the answer that PS3.18 asks for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydicom import Dataset
from small_study import dicom_bytes, pair, small_dicom
from test_page_api import SAME, client_of

from hipnet_edge.dicom_reader import read_meta

BOUNDARY = "a+boundary_0123"
TYPE = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'
STOW = {**SAME, "content-type": TYPE, "accept": "application/dicom+json"}


def multipart(*files: bytes, media_type: str = "application/dicom", end: str = "--") -> bytes:
    head = f"\r\n--{BOUNDARY}\r\nContent-Type: {media_type}\r\n\r\n".encode()
    return b"".join(head + content for content in files) + f"\r\n--{BOUNDARY}{end}\r\n".encode()


def _data_set(content: bytes) -> bytes:
    """A file without its meta information, which the cart writes anew."""
    return content[read_meta(content)[1] :]


def in_pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


@pytest.mark.parametrize("size", [11, 4099, 10**9])
def test_files_arrive_whole_however_the_body_is_cut(make_cart, size):
    cart = make_cart()
    # Content that looks like the beginning of a boundary must go through unchanged.
    files = [
        dicom_bytes(small_dicom(view, 1, rows=96, columns=64)) + b"\r\n--a+boundary_0\r\n"
        for view in ("ap", "lateral")
    ]
    body = multipart(*files)
    body = body[2:] if size == 11 else body  # the first line break may lack
    answer = client_of(cart).post("/dicom-web/studies", content=in_pieces(body, size), headers=STOW)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    stored = Dataset.from_json(answer.json()).ReferencedSOPSequence
    assert [item.ReferencedSOPInstanceUID for item in stored] == ["1.2.3.1.1", "1.2.3.1.2"]
    for item, content in zip(stored, files, strict=True):
        instance = cart.queue.instance(item.ReferencedSOPInstanceUID)
        assert item.ReferencedSOPClassUID == instance.sop_class_uid
        assert instance.source == "stow"
        assert _data_set(cart.store.read(instance.file)) == _data_set(content)
    assert list(cart.store.incoming.iterdir()) == []


def test_some_none_or_no_room(make_cart):
    client = client_of(make_cart())
    raw = small_dicom("ap", 2)
    raw.PresentationIntentType = "FOR PROCESSING"
    body = multipart(pair(3)[0], dicom_bytes(raw), b"no DICOM")
    some = client.post("/dicom-web/studies", content=body, headers=STOW)
    assert some.status_code == 202
    told = Dataset.from_json(some.json())
    assert told.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.3.1"
    assert told.FailedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.2.1"
    assert told.FailedSOPSequence[0].FailureReason == 0xA900
    assert told.OtherFailuresSequence[0].FailureReason == 0xC000
    none = client.post("/dicom-web/studies", content=multipart(dicom_bytes(raw)), headers=STOW)
    assert none.status_code == 409
    full = client_of(make_cart(receive={"min_free_mib": 2**40}))
    assert full.post("/dicom-web/studies", content=body, headers=STOW).status_code == 503


def test_what_is_no_such_request_is_refused_and_leaves_nothing(make_cart):
    cart = make_cart(receive={"max_object_mib": 1})
    client = client_of(cart)
    file = pair(4)[0]

    def status(body: bytes, content_type: str = TYPE) -> int:
        headers = {**STOW, "content-type": content_type}
        return client.post("/dicom-web/studies", content=body, headers=headers).status_code

    assert status(multipart(file), "application/dicom") == 415
    assert status(multipart(file), "multipart/related; type=application/dicom") == 415
    assert status(multipart(file), TYPE.replace("application/dicom", "text/xml")) == 415
    assert status(multipart(file, media_type="text/plain")) == 415
    assert status(multipart()) == 400
    assert status(b"") == 400
    assert status(multipart(file, end="")) == 400  # no closing boundary: the file may lack its end
    assert status(multipart(file)[:-200]) == 400
    assert status(f"\r\n--{BOUNDARY}\r\nX: ".encode() + b"x" * 20_000) == 400
    assert status(multipart(bytes(2**20 + 1))) == 413
    assert status(multipart(*[b""] * 65)) == 413
    assert list(cart.store.incoming.iterdir()) == []
    without = {key: value for key, value in STOW.items() if key != "origin"}
    refused = client.post("/dicom-web/studies", content=multipart(file), headers=without)
    assert refused.status_code == 403
