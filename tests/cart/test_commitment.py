"""Storage commitment, asked for by pynetdicom as SCU: what the report says, and who gets none."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from queue import Queue

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE, evt
from pynetdicom.association import Association
from receiving import Cart, cart, wait_until
from small_study import pair

from hipnet_edge.cart import commitment
from hipnet_edge.cart.sop_classes import (
    COMPUTED_RADIOGRAPHY,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    VERIFICATION,
    VERIFICATION_SYNTAXES,
)
from hipnet_edge.cart.sop_classes import DIGITAL_XRAY_FOR_PRESENTATION as DX

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

AP, LATERAL, UNKNOWN = (DX, "1.2.3.7.1"), (DX, "1.2.3.7.2"), (DX, "1.2.3.7.3")
Told = tuple[int, str, set[tuple[str, str]], dict[tuple[str, str], int]]
"""Of a report: event type, transaction, what is committed, and what failed with its reason."""


class Sender:
    """An X-ray system: stores both images, asks, and notes what it is told."""

    def __init__(self, running: Cart, syntax: str) -> None:
        self.told: Queue[Told] = Queue()
        self.may_answer = threading.Event()
        self.may_answer.set()
        peer = AE(ae_title="XRAY1")
        peer.add_requested_context(VERIFICATION)
        peer.add_requested_context(DX)
        peer.add_requested_context(STORAGE_COMMITMENT, syntax)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._on_report)]
        self.association: Association = peer.associate(
            *("127.0.0.1", running.receiver.port),
            ae_title="HIPNET",
            evt_handlers=handlers,  # type: ignore[arg-type]
        )
        for content in pair(7):
            assert self.association.send_c_store(dcmread(BytesIO(content))).Status == 0

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        assert event.request.AffectedSOPInstanceUID == STORAGE_COMMITMENT_INSTANCE
        found = event.event_information
        self.told.put(
            (
                event.event_type or 0,
                str(found.TransactionUID),
                {_reference(item) for item in found.get("ReferencedSOPSequence", [])},
                {_reference(i): i.FailureReason for i in found.get("FailedSOPSequence", [])},
            )
        )
        self.may_answer.wait(5.0)
        return 0, None

    def ask(
        self,
        information: Dataset | None,
        action: int = 1,
        sop_class: str = STORAGE_COMMITMENT,
        instance: str = STORAGE_COMMITMENT_INSTANCE,
    ) -> tuple[int, str]:
        """The status of a request, and the reason that it names."""
        status, _ = self.association.send_n_action(
            information, action, sop_class, instance, meta_uid=STORAGE_COMMITMENT
        )
        return status.Status, status.get("ErrorComment", "")


def _reference(item: Dataset) -> tuple[str, str]:
    return str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)


def _request(*references: tuple[str, str], transaction: str = "1.2.3.99") -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = [Dataset() for _ in references]
    for item, reference in zip(request.ReferencedSOPSequence, references, strict=True):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference
    return request


@contextmanager
def _sender(
    data: Path, syntax: str = VERIFICATION_SYNTAXES[0], **receive: object
) -> Iterator[tuple[Cart, Sender]]:
    with cart(data, storage_commitment=True, **receive) as running:
        sender = Sender(running, syntax)
        yield running, sender
        if sender.association.is_established:
            assert sender.association.send_c_echo().Status == 0
            sender.association.release()


def test_off_by_default(tmp_path: Path) -> None:
    with cart(tmp_path / "data") as running:
        peer = AE(ae_title="XRAY1")
        peer.add_requested_context(VERIFICATION)
        peer.add_requested_context(STORAGE_COMMITMENT)
        association = peer.associate("127.0.0.1", running.receiver.port, ae_title="HIPNET")
        assert [c.abstract_syntax for c in association.rejected_contexts] == [STORAGE_COMMITMENT]
        association.release()


@pytest.mark.parametrize("syntax", VERIFICATION_SYNTAXES)
def test_what_is_kept_is_committed(tmp_path: Path, syntax: str) -> None:
    with _sender(tmp_path / "data", syntax) as (running, sender):
        assert sender.ask(_request(AP, LATERAL)) == (0, "")
        assert sender.told.get(timeout=5) == (1, "1.2.3.99", {AP, LATERAL}, {})
        other_class = (COMPUTED_RADIOGRAPHY, LATERAL[1])
        asked = _request(AP, UNKNOWN, other_class, UNKNOWN, transaction="1.2.3.98")
        assert sender.ask(asked) == (0, "")
        failed = {UNKNOWN: 0x0112, other_class: 0x0119}
        assert sender.told.get(timeout=5) == (2, "1.2.3.98", {AP}, failed)

        kept = running.store.path(running.instances()[AP[1]].file)
        kept.write_bytes(kept.read_bytes()[:-1] + b"\xff")
        running.store.path(running.instances()[LATERAL[1]].file).unlink()
        assert sender.ask(_request(AP, LATERAL)) == (0, "")
        failed = {AP: 0x0110, LATERAL: 0x0110}
        assert sender.told.get(timeout=5) == (2, "1.2.3.99", set(), failed)

        lines = [row[0] for row in running.queue.database.rows("SELECT line FROM audit")]
        noted = [line for line in lines if "commitment" in line]
        assert [len(json.loads(line)["committed"]) for line in noted] == [2, 1, 0]
        assert [json.loads(line)["failed"] for line in noted] == [0, 2, 2]
        assert "1.2.3." not in "".join(noted)
        assert running.events.count(("commitment_reported", {"source": "dicom"})) == 3


def test_malformed_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, no_transaction, no_images, bad_uid = (_request(AP) for _ in range(4))
    del no_transaction.TransactionUID
    del no_images.ReferencedSOPSequence
    bad_uid.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "Doe^Secret"
    too_many = _request(*((DX, f"1.2.{n}") for n in range(commitment.MAX_REFERENCES + 1)))
    with _sender(tmp_path / "data") as (running, sender):
        printing = "1.2.840.10008.5.1.1.1"
        assert sender.ask(asked, sop_class=printing) == (0x0118, "no_such_class")
        assert sender.ask(asked, instance="1.2.3") == (0x0112, "no_such_instance")
        assert sender.ask(asked, action=2) == (0x0123, "no_such_action")
        for information in (None, no_transaction, no_images, _request(), bad_uid):
            assert sender.ask(information) == (0x0115, "invalid_argument")
        assert sender.ask(too_many) == (0x0213, "too_many_references")
        with monkeypatch.context() as patched:
            # Only the sender's side encodes there: a sequence that ends too soon
            cut = b"\x08\x00\x99\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0"
            patched.setattr("pynetdicom.association.encode", lambda *_: cut)
            assert sender.ask(asked) == (0x0115, "invalid_argument")
        assert len(running.reasons()) == 10
        assert sender.ask(asked) == (0, "")
        assert sender.told.get(timeout=5)[2] == {AP}


def test_reports_come_one_after_the_other(tmp_path: Path) -> None:
    """A sender that asks on while it has not answered a report is answered, and told later."""
    with _sender(tmp_path / "data") as (_, sender):
        sender.may_answer.clear()
        assert sender.ask(_request(AP, transaction="1.2.0")) == (0, "")
        told = [sender.told.get(timeout=5)]
        for number in range(commitment.MAX_WAITING):
            assert sender.ask(_request(AP, transaction=f"1.2.{number + 1}")) == (0, "")
        assert sender.ask(_request(AP)) == (0x0213, "too_many_requests")
        assert sender.told.empty()
        sender.may_answer.set()
        told += [sender.told.get(timeout=5) for _ in range(commitment.MAX_WAITING)]
        assert [transaction for _, transaction, _, _ in told] == [f"1.2.{n}" for n in range(5)]


def _look_slowly(running: Cart, monkeypatch: pytest.MonkeyPatch) -> None:
    find = running.queue.instance

    def slowly(uid: str) -> object:
        time.sleep(0.05)
        return find(uid)

    monkeypatch.setattr(running.queue, "instance", slowly)


def test_who_hangs_up_gets_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = _request(*((DX, f"1.2.{number}") for number in range(100)))
    with _sender(tmp_path / "data") as (running, sender):
        _look_slowly(running, monkeypatch)
        assert sender.ask(many) == (0, "")
        sender.association.release()
        wait_until(lambda: "hung_up" in running.reasons(), seconds=3.0)
        assert ("commitment_reported", {"source": "dicom"}) not in running.events


def test_looking_for_long_is_not_idleness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = _request(*((DX, f"1.2.{number}") for number in range(24)))
    with _sender(tmp_path / "data", idle_timeout_s=1.0) as (running, sender):
        _look_slowly(running, monkeypatch)
        assert sender.ask(many) == (0, "")
        assert sender.told.get(timeout=5)[0] == 2
        assert sender.association.send_c_echo().Status == 0
