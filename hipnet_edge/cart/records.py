"""What the queue holds, as frozen records.

An *instance* is an image that was received. The assembler makes *cases* of a study's instances: an
AP and a lateral of one hip, to be read together, or a refusal that says why there is no such pair.
A read case has *result objects*, and each of them has one *delivery* for each destination that
wants it. All times are seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(str, Enum):
    """Where a case is; RECEIVED is a study whose images are not assembled yet."""

    RECEIVED = "received"
    ASSEMBLED = "assembled"
    PREDICTED = "predicted"
    DELIVERED = "delivered"
    REFUSED = "refused"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        """Whether nothing more will be done unless a person asks for it."""
        return self in (State.DELIVERED, State.REFUSED, State.FAILED)


class Admitted(str, Enum):
    """What became of an instance that was offered to the queue."""

    NEW = "new"
    """It is kept."""
    DUPLICATE = "duplicate"
    """The same data set was there already: a success for who sent it."""
    REPLACED = "replaced"
    """Another data set of the same UID was there and in no case yet: the newest counts."""
    CONFLICT = "conflict"
    """Another data set of the same UID is in a case already: not taken (status 0x0111)."""


@dataclass(frozen=True)
class Instance:
    """An image that was received and is kept.

    Attributes:
        patient_key: HMAC of PatientID; "" if it has none.
        file: its name in the object store.
        sha256: of the file; one data set gives one file, whoever sent it (`file_meta`).
        size: of the file, in bytes.
        view: "ap", "lateral", or None where nothing says which.
        laterality: "left", "right", "both", or None.
        acquired_at: ISO 8601, None where the header does not say.
        refusal: why it is kept but cannot be part of a pair (a `Reason`'s value); None if it can.
        source: "dicom:<AE>", "watch", "upload" or "stow".
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    patient_key: str
    transfer_syntax: str
    file: str
    sha256: str
    size: int
    view: str | None
    laterality: str | None
    acquired_at: str | None
    refusal: str | None
    received_at: float
    source: str


@dataclass(frozen=True)
class WaitingStudy:
    """The images of one study and patient, some of them in no case and not yet set aside.

    Attributes:
        instances: all of that study and patient, used ones too, by time of arrival.
        new: SOP instance UIDs of those that are not settled.
        last_received_at: when the newest of all of them came.
    """

    study_instance_uid: str
    patient_key: str
    instances: tuple[Instance, ...]
    new: frozenset[str]
    last_received_at: float


@dataclass(frozen=True)
class NewCase:
    """A pair to read; `ap` and `lateral` are SOP instance UIDs."""

    ap: str
    lateral: str
    laterality: str | None


@dataclass(frozen=True)
class NewRefusal:
    """Images of which no pair can be made, and why."""

    ap: str | None
    lateral: str | None
    laterality: str | None
    reason: str
    message: str


@dataclass(frozen=True)
class Settlement:
    """What is to become of a waiting study; an image that it does not name goes on waiting.

    Attributes:
        unused: SOP instance UID and reason of images that are set aside.
    """

    cases: tuple[NewCase, ...] = ()
    refused: tuple[NewRefusal, ...] = ()
    unused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Case:
    """A pair and how far it is, or a refusal.

    Attributes:
        id: never used twice, not even after the case was purged.
        ap: SOP instance UID; None in a refusal for a missing view.
        reason: why it was refused, has failed or is tried again; else None.
        message: the same as a sentence for a person, without patient data.
        attempts: how often reading it was begun.
        next_at: not to be read before.
        prediction: the file of the prediction's JSON in the object store.
    """

    id: int
    study_instance_uid: str
    patient_key: str
    laterality: str | None
    ap: str | None
    lateral: str | None
    state: State
    reason: str | None
    message: str | None
    attempts: int
    next_at: float
    created_at: float
    updated_at: float
    prediction: str | None


@dataclass(frozen=True)
class ResultObject:
    """One DICOM object of a case's result.

    Attributes:
        kind: "report", "segmentation_ap", "segmentation_lateral" or "capture".
        file: its name in the object store; redelivery sends these bytes again.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax: str
    kind: str
    file: str
    size: int


@dataclass(frozen=True)
class Delivery:
    """One result object on its way to one destination.

    Attributes:
        state: "waiting", "sent" or "failed" (given up; `Queue.retry` makes it wait again).
        attempts: how often it was tried.
        next_at: not to be tried before.
        reason: why the last try failed.
    """

    case_id: int
    destination: str
    object: ResultObject
    state: str
    attempts: int
    next_at: float
    reason: str | None


@dataclass(frozen=True)
class FinishedStudy:
    """A study and patient of whom nothing waits: what retention may purge.

    Attributes:
        finished_at: when anything last happened to it.
        failed: whether one of its cases is a dead letter.
        size: of its files, in bytes.
    """

    study_instance_uid: str
    patient_key: str
    finished_at: float
    failed: bool
    size: int
