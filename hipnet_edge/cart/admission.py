"""One image's way in, whoever brought it: checked, kept so that no power cut loses it, queued.

The DICOM receiver, the watch folder, the page's upload and STOW-RS all end here. An image is
acknowledged only when the store has synced its bytes and the queue has committed its row.
"""

from __future__ import annotations

import logging
import re
import struct
import threading
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hipnet_edge.acquisition import acquired_at
from hipnet_edge.cart.file_meta import file_head
from hipnet_edge.cart.records import Admitted, Instance
from hipnet_edge.dicom_reader import DicomObject, check_kind, read_dicom, read_meta, text
from hipnet_edge.errors import InputRefused, Reason
from hipnet_edge.input_limits import refusing
from hipnet_edge.pixel_data import TRANSFER_SYNTAXES, read_layout
from hipnet_edge.views import Anatomy, anatomy_of, laterality_of, view_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from hipnet_edge.cart.configuration import Configuration
    from hipnet_edge.cart.identity import Pseudonyms
    from hipnet_edge.cart.queue import Queue
    from hipnet_edge.cart.settings import Receive
    from hipnet_edge.cart.store import ObjectStore

logger = logging.getLogger(__name__)

NO_SPACE = "no_space"
"""The disk is nearly full; the same image may be sent again later."""
QUEUE_FULL = "queue_full"
"""Too many studies wait to be read; the same image may be sent again later."""
CONFLICT = "conflict"
"""Another image with this SOP instance UID was used already."""
UID_MISMATCH = "uid_mismatch"
"""The image is not the one that its sender announced."""
INVALID_UID = "invalid_uid"
"""A UID is none (PS3.5 9.1)."""

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_MIB = 1024**2
_READERS = 2
_QUIET_S = 60.0


class EventHook(Protocol):
    """Is told what happened, for metrics; must be quick and safe from many threads."""

    def __call__(self, event: str, /, **labels: str) -> None:
        """Count one event, such as "image_refused" with its reason and source."""


def no_hook(event: str, /, **labels: str) -> None:
    """The hook of those who count nothing."""


@dataclass(frozen=True)
class Outcome:
    """What became of an image.

    Attributes:
        accepted: it is kept and queued, and would survive a power cut.
        admitted: what the queue made of it; None if it did not get that far.
        reason: why it was not accepted, or why it can be no part of a pair though it was.
        message: the same for a person; holds no patient data.
        sop_instance_uid: of the image, where it could be read.
        study_instance_uid: likewise.
    """

    accepted: bool
    admitted: Admitted | None
    reason: str | None
    message: str
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None


class Refusals:
    """Tells the audit and the metrics what was refused, and is not flooded by who repeats it.

    Of refusals for the same reason the first in a minute becomes an audit record, which counts
    those since the last one: a stranger must not be able to fill the disk, or to make a healthy
    sender wait while records are synced.
    """

    def __init__(self, queue: Queue, on_event: EventHook) -> None:
        self._queue, self._on_event = queue, on_event
        self._lock = threading.Lock()
        self._since: dict[tuple[str, str], int] = {}
        self._noted_at: dict[tuple[str, str], float] = {}

    def add(
        self, event: str, reason: str, *, source: str, always: bool = False, **fields: str
    ) -> None:
        """Count a refusal, and put it on record if the last one was long ago or `always`."""
        self._on_event(event, reason=reason, source=source.partition(":")[0])
        key, now = (event, reason), time.monotonic()
        with self._lock:
            count = self._since.get(key, 0) + 1
            silent = not always and now - self._noted_at.get(key, -_QUIET_S) < _QUIET_S
            self._since[key] = count if silent else 0
            if silent:
                return
            self._noted_at[key] = now
        logger.warning("%s: %s", event, reason)
        self._note(event, reason=reason, source=source, count=count, **fields)

    def flush(self) -> None:
        """Put on record what was only counted so far."""
        with self._lock:
            left = {key: count for key, count in self._since.items() if count}
            self._since.clear()
        for (event, reason), count in left.items():
            self._note(event, reason=reason, source="", count=count)

    def _note(self, event: str, **fields: str | int) -> None:
        try:
            self._queue.note(event, **fields)
        except Exception as error:  # a full disk must not keep the refusal from being answered
            logger.error("audit note failed: %s", type(error).__name__)


class Admission:
    """Takes images in; safe from many threads."""

    def __init__(
        self,
        configuration: Configuration,
        store: ObjectStore,
        queue: Queue,
        pseudonyms: Pseudonyms,
        on_event: EventHook = no_hook,
    ) -> None:
        quiet_pydicom()
        self._receive = configuration.receive
        self._store, self._queue, self._pseudonyms = store, queue, pseudonyms
        self.on_event = on_event
        self.refusals = Refusals(queue, on_event)
        # The header is read from the whole file in memory: of large images not many at a time.
        self._reading = threading.BoundedSemaphore(_READERS)

    def shortage(self) -> str | None:
        """Why nothing can be taken in now: `NO_SPACE`, `QUEUE_FULL`, or None if it can."""
        if self._store.free_bytes() < self._receive.min_free_mib * _MIB:
            return NO_SPACE
        if self._queue.backlog() >= self._receive.max_waiting_studies:
            return QUEUE_FULL
        return None

    def admit(
        self,
        content: bytes | Path,
        *,
        source: str,
        expected: tuple[str, str] | None = None,
    ) -> Outcome:
        """Check, keep and queue one image.

        Args:
            content: a whole DICOM file (PS3.10): its bytes, or a finished file in the store's
                `incoming`, which is moved or removed.
            source: who brought it: "dicom:<AE title>", "watch", "upload" or "stow".
            expected: SOP class and SOP instance UID that the sender announced.

        Raises:
            OSError: the disk failed; nothing was acknowledged.
        """
        try:
            outcome = self._admit(content, source, expected)
        finally:
            if isinstance(content, Path):
                content.unlink(missing_ok=True)
        if outcome.accepted:
            self.on_event("image_accepted", source=source.partition(":")[0])
        else:
            reason = outcome.reason or ""
            self.refusals.add(
                "image_refused",
                reason,
                source=source,
                always=reason not in (NO_SPACE, QUEUE_FULL),
                sop=self._pseudonyms(outcome.sop_instance_uid or ""),
            )
        return outcome

    def _admit(
        self, content: bytes | Path, source: str, expected: tuple[str, str] | None
    ) -> Outcome:
        shortage = self.shortage()
        if shortage is not None:
            return Outcome(False, None, shortage, _SHORTAGE_WORDS[shortage])
        described = self._describe(content, source, expected)
        if isinstance(described, Outcome):
            return described
        instance, file = described
        kept = self._store.keep(file)
        instance = replace(
            instance, file=kept.name, sha256=kept.sha256, size=kept.size, received_at=time.time()
        )
        admitted = self._queue.admit(instance)
        uids = instance.sop_instance_uid, instance.study_instance_uid
        if admitted is Admitted.CONFLICT:
            return Outcome(
                False, admitted, CONFLICT, "This image was changed after it was used.", *uids
            )
        message = _ADMITTED_WORDS[admitted]
        return Outcome(True, admitted, instance.refusal, message, *uids)

    def _describe(
        self, content: bytes | Path, source: str, expected: tuple[str, str] | None
    ) -> tuple[Instance, bytes | Path] | Outcome:
        """What the queue must know of an image, and the file to keep; or why it is refused."""
        uid = study = None
        try:
            with self._reading:
                with refusing(Reason.UNREADABLE_FILE, "The file cannot be read."):
                    data = content if isinstance(content, bytes) else content.read_bytes()
                dicom = read_dicom(data)
                with refusing(Reason.NOT_DICOM, "The header is damaged and cannot be read."):
                    uid, study = _uids(dicom.header)
                    _check_announced(dicom.header, expected)
                    _check_acceptable(dicom, self._receive)
                    instance = self._instance(dicom, source)
                    return instance, _file(instance, content, data)
        except _Refused as refused:
            return Outcome(False, None, refused.reason, refused.message, uid, study)
        except InputRefused as refused:
            return Outcome(False, None, refused.code.value, refused.message, uid, study)

    def _instance(self, dicom: DicomObject, source: str) -> Instance:
        header = dicom.header
        view, side, refusal = _place_in_pair(header)
        patient = text(header, "PatientID")
        taken = acquired_at(header)
        return Instance(
            sop_instance_uid=text(header, "SOPInstanceUID"),
            sop_class_uid=text(header, "SOPClassUID"),
            study_instance_uid=text(header, "StudyInstanceUID"),
            patient_key=self._pseudonyms(patient) if patient else "",
            transfer_syntax=dicom.transfer_syntax,
            file="",
            sha256="",
            size=0,
            view=view,
            laterality=side,
            acquired_at=None if taken is None else taken.isoformat(),
            refusal=refusal,
            received_at=0.0,
            source=source,
        )


_SHORTAGE_WORDS = {
    NO_SPACE: "The disk is nearly full; send the image again later.",
    QUEUE_FULL: "Too many studies are waiting; send the image again later.",
}
_ADMITTED_WORDS = {
    Admitted.NEW: "The image is kept.",
    Admitted.DUPLICATE: "The image was here already.",
    Admitted.REPLACED: "The image takes the place of an earlier one.",
}


class _Refused(InputRefused):
    """A refusal for a reason that only a cart has."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(Reason.NOT_DICOM, message)
        self.reason = reason


def quiet_pydicom() -> None:
    """Keep pydicom from logging: its warnings quote the values that they are about."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"pydicom\.")


def allowed_modalities(receive: Receive) -> frozenset[str]:
    """The modalities besides CR, DX and RG that a cart accepts, for whoever reads its images."""
    return frozenset({"OT", "SC"}) if receive.secondary_capture else frozenset()


def is_uid(value: str) -> bool:
    """Whether this can be a UID (PS3.5 9.1): digits and dots, 64 characters at most."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def _uids(header: Dataset) -> tuple[str, str]:
    """SOP instance and study instance UID.

    Raises:
        InputRefused: one of them is missing, or (`_Refused`) is no UID.
    """
    uids = text(header, "SOPInstanceUID"), text(header, "StudyInstanceUID")
    all_uids = (*uids, text(header, "SOPClassUID"))
    if not all(all_uids):
        raise InputRefused(Reason.NOT_DICOM, "The object does not say which image it is.")
    if not all(map(is_uid, all_uids)):
        raise _Refused(INVALID_UID, "A UID of the image is malformed.")
    return uids


def _check_announced(header: Dataset, expected: tuple[str, str] | None) -> None:
    """Refuse an image that is not the one of the C-STORE request that brings it."""
    found = text(header, "SOPClassUID"), text(header, "SOPInstanceUID")
    if expected is not None and found != expected:
        raise _Refused(UID_MISMATCH, "The image is not the one that was announced.")


def _check_acceptable(dicom: DicomObject, receive: Receive) -> None:
    """Refuse what no study can use: another kind of object, another encoding, half an image."""
    if dicom.transfer_syntax not in TRANSFER_SYNTAXES:
        raise InputRefused(
            Reason.UNSUPPORTED_TRANSFER_SYNTAX,
            "The pixels are compressed in a way that is not supported for radiographs.",
        )
    check_kind(dicom, allowed_modalities(receive))
    if text(dicom.header, "Modality").upper() == "RG" and not receive.scanned_film:
        raise InputRefused(Reason.WRONG_MODALITY, "Digitised film (RG) is not accepted here.")
    if dicom.pixels is None or _cut_short(dicom.pixels, dicom.declared_length):
        raise InputRefused(Reason.NOT_DICOM, "The image is cut short.")


def _cut_short(pixels: memoryview, declared_length: int | None) -> bool:
    """Whether pixel data ends before what it announces: its length, or that of a fragment."""
    if declared_length is not None:
        return len(pixels) < declared_length
    position = 0
    while position + 8 <= len(pixels):
        group, element, length = struct.unpack_from("<HHI", pixels, position)
        if (group, element) == (0xFFFE, 0xE0DD):
            return False
        position += 8 + length
    return position != len(pixels)


def _place_in_pair(header: Dataset) -> tuple[str | None, str | None, str | None]:
    """View, side, and why the image can be no part of a pair though it is a radiograph."""
    view = side = None
    refusal: Reason | None = None
    for ask in (_layout, _anatomy):
        try:
            ask(header)
        except InputRefused as refused:  # noqa: PERF203 - each question is asked alone
            refusal = refusal or refused.code
    try:
        found = view_of(header).value
        view = None if found is None else found.value
        refusal = refusal or (Reason.UNKNOWN_VIEW if view is None else None)
    except InputRefused as refused:
        refusal = refusal or refused.code
    try:
        laterality = laterality_of(header).value
        side = None if laterality is None else laterality.value
    except InputRefused as refused:
        refusal = refusal or refused.code
    return view, side, None if refusal is None else refusal.value


def _file(instance: Instance, content: bytes | Path, data: bytes) -> bytes | Path:
    """An image as it is kept: with our File Meta Information, whatever stood in front of it."""
    head = file_head(instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax)
    _, start = read_meta(data)
    if data[:start] == head:
        return content
    return b"".join([head, memoryview(data)[start:]])


def _layout(header: Dataset) -> None:
    read_layout(header)


def _anatomy(header: Dataset) -> None:
    if anatomy_of(header).value is Anatomy.OTHER:
        raise InputRefused(Reason.NOT_A_HIP, "The header names another body part.")
