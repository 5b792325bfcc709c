"""Storage commitment for who asks: the push model (PS3.4 annex J) as SCP, where it is configured.

Committed means that the queue has the image and the store its bytes, read again just now. The
report follows the answer on the association that asked. Nothing of a request is stored: who hangs
up before the report may ask again, and is told what is true then.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.dsutils import encode

from hipnet_edge.cart.admission import is_uid
from hipnet_edge.cart.schema import QueueUnusable
from hipnet_edge.cart.sop_classes import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from hipnet_edge.cart.store import StoreDamaged
from hipnet_edge.dicom_reader import text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pynetdicom.association import Association

    from hipnet_edge.cart.admission import Admission
    from hipnet_edge.cart.association import Reception
    from hipnet_edge.cart.identity import Pseudonyms
    from hipnet_edge.cart.queue import Queue
    from hipnet_edge.cart.store import ObjectStore

logger = logging.getLogger(__name__)

MAX_REFERENCES = 2000
"""Images in one request."""
MAX_WAITING = 4
"""Requests of one association that were answered and not yet reported on."""

SUCCESS = 0x0000
REFUSALS = {
    "no_such_class": 0x0118,
    "no_such_instance": 0x0112,
    "no_such_action": 0x0123,
    "invalid_argument": 0x0115,
    "too_many_references": 0x0213,
    "too_many_requests": 0x0213,
}
"""N-ACTION status (PS3.7 10.1.4.1.10) for each reason to refuse a request."""

NOT_HERE = 0x0112
OTHER_CLASS = 0x0119
NOT_READABLE = 0x0110
FAILURES = (NOT_HERE, OTHER_CLASS, NOT_READABLE)
"""The Failure Reasons (PS3.3 C.14.1.1) that a report gives."""

_COMMIT = 1
_ALL_COMMITTED, _SOME_FAILED = 1, 2

Reference = tuple[str, str]
"""SOP class and SOP instance UID of an image."""


@dataclass(frozen=True)
class _Request:
    transaction: str
    references: tuple[Reference, ...]
    message_id: int
    context_id: int
    implicit_vr: bool


class _Refused(Exception):
    """A request is answered with a failure; holds the reason."""


class Commitment:
    """Answers for what is kept; safe from many threads.

    Args:
        store: of the images.
        queue: that knows them, and takes the audit records.
        pseudonyms: for those.
        admission: is told what was refused and reported.
    """

    def __init__(
        self, store: ObjectStore, queue: Queue, pseudonyms: Pseudonyms, admission: Admission
    ) -> None:
        self._store, self._queue, self._pseudonyms = store, queue, pseudonyms
        self.admission = admission
        # Whole images are read into memory: one at a time, so that reception has the rest.
        self._reading = threading.Lock()

    def serve(self, association: Association) -> None:
        """Have an association, not started yet, answer and report on requests."""
        _Conversation(association, self)

    def failure(self, reference: Reference) -> int | None:
        """Why this cart does not answer for an image; None if it does."""
        sop_class, uid = reference
        try:
            instance = self._queue.instance(uid)
            if instance is None:
                return NOT_HERE
            if instance.sop_class_uid != sop_class:
                return OTHER_CLASS
            with self._reading:
                self._store.read(instance.file)
        except (StoreDamaged, QueueUnusable) as error:
            logger.error("image not committed: %s", type(error).__name__)
            return NOT_READABLE
        return None

    def note(self, request: _Request, source: str, found: Mapping[Reference, int | None]) -> None:
        """Put on record what is about to be reported."""
        committed = [uid for (_, uid), failure in found.items() if failure is None]
        self._queue.note(
            "commitment_reported",
            source=source,
            transaction=self._pseudonyms(request.transaction),
            committed=[self._pseudonyms(uid) for uid in committed],
            failed=len(found) - len(committed),
        )
        self.admission.on_event("commitment_reported", source="dicom")


class _Conversation:
    """The requests of one association, on its own thread.

    pynetdicom's `send_n_event_report` takes the next message for the report's answer, and aborts if
    it is a request: a sender may well ask for its next study at once. Here a report is sent like an
    answer, and what the peer says to it comes in among its other messages.
    """

    def __init__(self, association: Association, commitment: Commitment) -> None:
        self._association, self._commitment = association, commitment
        self._progress = cast("Reception", association.dimse).progress
        self._waiting: deque[_Request] = deque()
        self._unanswered = False
        association.bind(evt.EVT_N_ACTION, self._on_action)
        serve = association._serve_request

        def serve_request(message: Any, context_id: int) -> None:
            serve(message, context_id)
            self._served(message)

        association._serve_request = serve_request  # type: ignore[method-assign,assignment]

    @property
    def _source(self) -> str:
        return f"dicom:{self._association.requestor.ae_title}"

    def _on_action(self, event: evt.Event) -> tuple[Dataset, None]:
        """Answer a request; the report follows when the answer is on its way."""
        status = Dataset()
        status.Status = SUCCESS
        with self._progress.working():
            try:
                if len(self._waiting) >= MAX_WAITING:
                    raise _Refused("too_many_requests")
                self._waiting.append(_read(event))
            except _Refused as refused:
                reason = str(refused)
                self._refuse("commitment_refused", reason)
                status.Status = REFUSALS[reason]
                status.ErrorComment = reason
        return status, None

    def _refuse(self, event: str, reason: str) -> None:
        self._commitment.admission.refusals.add(event, reason, source=self._source)

    def _served(self, message: Any) -> None:
        """Report on the next request, if the peer has answered the report before."""
        if isinstance(message, N_EVENT_REPORT) and message.is_valid_response:
            self._unanswered = False
        if self._waiting and not self._unanswered:
            request = self._waiting.popleft()
            with self._progress.working():
                try:
                    self._unanswered = self._report(request)
                except Exception as error:
                    logger.error("commitment not reported: %s", type(error).__name__)
                    self._refuse("commitment_unreported", "internal")

    def _report(self, request: _Request) -> bool:
        """Look for the images and tell; returns whether the peer was still there."""
        found: dict[Reference, int | None] = {}
        dul = self._association.dul
        for reference in request.references:
            if dul.peek_next_pdu() is not None:  # a release or an abort; all else is a message
                self._refuse("commitment_unreported", "hung_up")
                return False
            found[reference] = self._commitment.failure(reference)
        self._commitment.note(request, self._source, found)
        dul._idle_timer.restart()  # the peer was waiting for us
        self._association.dimse.send_msg(_event_report(request, found), request.context_id)
        return True


def _read(event: evt.Event) -> _Request:
    """A request for commitment.

    Raises:
        _Refused: it is something else, malformed or too long.
    """
    request, context = cast("N_ACTION", event.request), event.context
    if {request.RequestedSOPClassUID, context.abstract_syntax} != {STORAGE_COMMITMENT}:
        raise _Refused("no_such_class")
    if request.RequestedSOPInstanceUID != STORAGE_COMMITMENT_INSTANCE:
        raise _Refused("no_such_instance")
    if request.ActionTypeID != _COMMIT:
        raise _Refused("no_such_action")
    try:
        asked = event.action_information
        transaction = text(asked, "TransactionUID")
        items = list(asked.ReferencedSOPSequence)
        if len(items) > MAX_REFERENCES:
            raise _Refused("too_many_references")
        references = tuple(
            dict.fromkeys(
                (text(item, "ReferencedSOPClassUID"), text(item, "ReferencedSOPInstanceUID"))
                for item in items
            )
        )
    except _Refused:
        raise
    except Exception as error:  # pydicom raises nearly anything on malformed data sets
        raise _Refused("invalid_argument") from error
    uids = [transaction, *(uid for reference in references for uid in reference)]
    if not references or not all(map(is_uid, uids)):
        raise _Refused("invalid_argument")
    return _Request(
        transaction,
        references,
        message_id=cast("int", request.MessageID),
        context_id=context.context_id,
        implicit_vr=UID(context.transfer_syntax).is_implicit_VR,
    )


def _event_report(request: _Request, found: Mapping[Reference, int | None]) -> N_EVENT_REPORT:
    """The report (PS3.4 table J.3-2): what is committed, and what is not and why."""
    committed = [_item(r) for r, failure in found.items() if failure is None]
    failed = [_item(r, failure) for r, failure in found.items() if failure is not None]
    information = Dataset()
    information.TransactionUID = request.transaction
    if committed:
        information.ReferencedSOPSequence = committed
    if failed:
        information.FailedSOPSequence = failed
    encoded = encode(information, request.implicit_vr, True)
    if encoded is None:
        raise ValueError("The report cannot be encoded.")
    report = N_EVENT_REPORT()
    report.MessageID = request.message_id
    report.AffectedSOPClassUID = UID(STORAGE_COMMITMENT)
    report.AffectedSOPInstanceUID = UID(STORAGE_COMMITMENT_INSTANCE)
    report.EventTypeID = _SOME_FAILED if failed else _ALL_COMMITTED
    report.EventInformation = BytesIO(encoded)
    return report


def _item(reference: Reference, failure: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference
    if failure is not None:
        item.FailureReason = failure
    return item
