"""The DICOM receiver: Verification and Storage as SCP, for those who are allowed to send.

C-STORE queues an image and nothing more; success is answered when the image would survive a power
cut. Connections wait at the `door` until they ask for an association as they should; associations
run within the limits of `association`.
"""

from __future__ import annotations

import logging
import socket
import time
from typing import TYPE_CHECKING, Any, cast

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.transport import AddressInformation

from hipnet_edge import __version__
from hipnet_edge.cart import admission as reasons
from hipnet_edge.cart.admission import Admission, is_uid
from hipnet_edge.cart.association import (
    GuardedSocket,
    IncomingFile,
    Progress,
    Reception,
    Watched,
    end_quietly,
    wait_for,
)
from hipnet_edge.cart.data_pdu import read_in_place
from hipnet_edge.cart.door import TOO_MANY, WRONG_CALLED, WRONG_CALLING, Door, Rejection
from hipnet_edge.cart.file_meta import IMPLEMENTATION_NAME, IMPLEMENTATION_UID, file_head
from hipnet_edge.cart.schema import QueueUnusable
from hipnet_edge.cart.sop_classes import (
    PREFERRED_SYNTAXES,
    STORAGE_COMMITMENT,
    VERIFICATION,
    VERIFICATION_SYNTAXES,
    storage_classes,
)
from hipnet_edge.cart.tls import server_context
from hipnet_edge.errors import Reason

if TYPE_CHECKING:
    from pathlib import Path

    from pynetdicom.dimse_messages import C_STORE_RQ
    from pynetdicom.dimse_primitives import C_STORE

    from hipnet_edge.cart.admission import Outcome
    from hipnet_edge.cart.commitment import Commitment
    from hipnet_edge.cart.settings import Receive

logger = logging.getLogger(__name__)

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
DUPLICATE_INSTANCE = 0x0111
INVALID_INSTANCE = 0x0117
CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
CLASS_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

DISK_FAILED = "disk_failed"
TOO_LARGE = Reason.TOO_LARGE.value

STATUSES = {
    reasons.NO_SPACE: OUT_OF_RESOURCES,
    reasons.QUEUE_FULL: OUT_OF_RESOURCES,
    DISK_FAILED: OUT_OF_RESOURCES,
    TOO_LARGE: OUT_OF_RESOURCES,
    reasons.CONFLICT: DUPLICATE_INSTANCE,
    reasons.INVALID_UID: INVALID_INSTANCE,
    "sop_class": CLASS_NOT_SUPPORTED,
    reasons.UID_MISMATCH: CLASS_MISMATCH,
    Reason.WRONG_MODALITY.value: CLASS_MISMATCH,
    Reason.NOT_AN_IMAGE.value: CLASS_MISMATCH,
    Reason.NOT_FOR_PRESENTATION.value: CLASS_MISMATCH,
    Reason.MULTI_FRAME.value: CLASS_MISMATCH,
    Reason.UNSUPPORTED_PIXELS.value: CLASS_MISMATCH,
    Reason.INTERNAL.value: PROCESSING_FAILURE,
}
"""C-STORE status (PS3.4 B.2.3, PS3.7 9.1.1.1.9) for each reason; 0xC000 for every other."""

IMPLEMENTATION_VERSION = f"{IMPLEMENTATION_NAME}_{__version__}"[:16]

_MIB = 1024**2
_GIVES_WAY_S = 3.0
"""An association that got no further for so long gives way when all places are taken."""


class Receiver:
    """The SCP; constructed, it listens not yet.

    Args:
        receive: address, callers and limits.
        admission: takes the images in.
        incoming: the folder of the store in which files are written before they are kept.
        commitment: answers requests for storage commitment; None: they are not accepted.

    Raises:
        UsageError: the TLS certificate, key or CA cannot be used.
    """

    def __init__(
        self,
        receive: Receive,
        admission: Admission,
        incoming: Path,
        commitment: Commitment | None = None,
    ) -> None:
        quiet_pynetdicom()
        self._receive, self._admission, self._incoming = receive, admission, incoming
        self._tls = None if receive.tls is None else server_context(receive.tls)
        self._ae = AE(ae_title=receive.ae_title)
        self._ae.implementation_class_uid = IMPLEMENTATION_UID
        self._ae.implementation_version_name = IMPLEMENTATION_VERSION
        self._ae.maximum_pdu_size = receive.max_pdu_bytes
        self._ae.maximum_associations = 10_000  # the door counts them
        timeout = receive.idle_timeout_s
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = timeout
        self._contexts = [build_context(VERIFICATION, list(VERIFICATION_SYNTAXES))] + [
            build_context(uid, list(PREFERRED_SYNTAXES)) for uid in storage_classes(receive)
        ]
        self._commitment = commitment
        if commitment is not None:
            self._contexts.append(build_context(STORAGE_COMMITMENT, list(VERIFICATION_SYNTAXES)))
        self._watched: list[Watched] = []
        self._door: Door | None = None

    @property
    def listening(self) -> bool:
        """Whether associations are accepted."""
        return self._door is not None and self._door.is_alive()

    @property
    def port(self) -> int:
        """The port that is listened on; 0 if none is."""
        return 0 if self._door is None else self._door.port

    def start(self) -> None:
        """Begin to listen.

        Raises:
            OSError: the address is in use or not this machine's.
        """
        receive = self._receive
        self._door = Door(
            (receive.host, receive.port),
            self._tls,
            max_visitors=receive.max_connections,
            patience_s=receive.idle_timeout_s,
            judge=self._judge,
            welcome=self._welcome,
            refused=self._turned_away,
            tick=self._look_after,
        )
        self._door.start()

    def stop(self, grace_s: float = 10.0) -> None:
        """Accept no association any more, let running C-STOREs finish, and close.

        Args:
            grace_s: how long an image that is coming in may take until it is cut off.
        """
        if self._door is None:
            return
        self._door.close()
        deadline = time.monotonic() + grace_s
        while self._watched and time.monotonic() < deadline:
            for watched in self._watched:
                if watched.resting:
                    watched.end()
            self._release_ended()
            time.sleep(0.02)
        for watched in self._watched:
            watched.end()
        wait_for(self._watched, 3.0)
        self._release_ended()
        self._admission.refusals.flush()
        self._door = None

    # Associations; all of these on the door's thread

    def _judge(self, called: str, calling: str) -> Rejection | None:
        receive = self._receive
        if called != receive.ae_title:
            return WRONG_CALLED
        if not receive.any_caller and calling not in receive.calling_ae_titles:
            return WRONG_CALLING
        self._release_ended()
        going = [watched for watched in self._watched if not watched.ended]
        if len(going) < receive.max_associations:
            return None
        stalest = max(going, key=lambda watched: watched.progress.stale_s)
        if stalest.progress.stale_s < _GIVES_WAY_S:
            return TOO_MANY
        self._end(stalest, "gave_way")
        return None

    def _welcome(self, connection: socket.socket, address: Any, request: bytes) -> None:
        """Make an association of a connection and its request, and start its threads."""
        receive, progress = self._receive, Progress()
        association = Association(self._ae, "acceptor")
        guarded = GuardedSocket(
            association,
            connection,
            request,
            max_pdu_bytes=receive.max_pdu_bytes,
            patience_s=receive.idle_timeout_s,
            progress=progress,
        )
        association.set_socket(guarded)
        end_quietly(association)
        read_in_place(association)
        reception = Reception(
            association, open_file=self._open_file, progress=progress, broken=self._broken
        )
        association.dimse = reception
        acceptor = association.acceptor
        acceptor.ae_title = receive.ae_title
        acceptor.maximum_length = receive.max_pdu_bytes
        acceptor.implementation_class_uid = IMPLEMENTATION_UID
        acceptor.implementation_version_name = IMPLEMENTATION_VERSION
        acceptor.supported_contexts = self._contexts
        acceptor.address_info = AddressInformation.from_tuple(connection.getsockname())
        association.requestor.address_info = AddressInformation.from_tuple(address)
        association.bind(evt.EVT_C_ECHO, _on_echo)
        association.bind(evt.EVT_C_STORE, self._on_store)
        if self._commitment is not None:
            self._commitment.serve(association)
        watched = Watched(association, guarded, reception, progress)
        association.start()
        self._watched.append(watched)
        self._admission.on_event("association_accepted")

    def _turned_away(self, reason: str, host: str, calling: str) -> None:
        self._admission.refusals.add(
            "association_refused", reason, source="dicom", peer=host, calling=calling
        )

    def _look_after(self) -> None:
        """Release what has ended, end what does not get on."""
        self._release_ended()
        for watched in self._watched:
            # pynetdicom ends silent ones itself; what comes in drops renews its timer.
            stale_s = watched.progress.stale_s
            if stale_s > self._receive.idle_timeout_s + 1 and not watched.ended:
                self._end(watched, "idle")

    def _end(self, watched: Watched, reason: str) -> None:
        watched.end()
        self._admission.refusals.add("association_aborted", reason, source="dicom")

    def _release_ended(self) -> None:
        self._watched = [watched for watched in self._watched if not watched.released()]

    # Messages; on the threads of their association

    def _broken(self, reason: str) -> None:
        self._admission.refusals.add("association_aborted", reason, source="dicom")

    def _open_file(self, association: Association, message: C_STORE_RQ) -> IncomingFile:
        """The file for an image that begins to come, or none if it is refused already."""
        command, context = message.command_set, association._accepted_cx[message.context_id or 0]
        sop_class, instance = str(command.AffectedSOPClassUID), str(command.AffectedSOPInstanceUID)
        refused = self._admission.shortage()
        if not is_uid(instance):
            refused = reasons.INVALID_UID
        elif sop_class != context.abstract_syntax:
            refused = "sop_class"
        head = b"" if refused else file_head(sop_class, instance, context.transfer_syntax[0])
        limit = self._receive.max_object_mib * _MIB
        return IncomingFile(self._incoming, head, limit, refused)

    def _on_store(self, event: evt.Event) -> Dataset:
        """Admit an image that has come in whole."""
        reception = cast("Reception", event.assoc.dimse)
        with reception.progress.working():
            calling = str(event.assoc.requestor.ae_title)
            source = f"dicom:{calling}"
            request = cast("C_STORE", event.request)
            file: object = request._dataset_file
            if not isinstance(file, IncomingFile):  # a request without a data set
                return self._refuse(Reason.NOT_DICOM.value, source)
            try:
                reason = _why_not_whole(file)
                if reason is not None:
                    return self._refuse(reason, source)
                return _status(self._admitted(request, file, source))
            finally:
                reception.handled(file)

    def _refuse(self, reason: str, source: str) -> Dataset:
        self._admission.refusals.add("image_refused", reason, source=source)
        return _status(reason)

    def _admitted(self, request: C_STORE, file: IncomingFile, source: str) -> str | None:
        """Why an image is not admitted; None if it is, and would survive a power cut."""
        file.close()
        expected = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        try:
            outcome: Outcome = self._admission.admit(file.path, source=source, expected=expected)
        except Exception as error:
            reason = (
                DISK_FAILED
                if isinstance(error, (OSError, QueueUnusable))
                else Reason.INTERNAL.value
            )
            logger.error("image not admitted: %s", type(error).__name__)
            self._admission.refusals.add("image_refused", reason, source=source)
            return reason
        return None if outcome.accepted else outcome.reason


def quiet_pynetdicom() -> None:
    """Set pynetdicom's switches, which hold for the whole process, and keep it from logging.

    Its loggers and debug handlers write out requests, and of some failures the data set: names
    and birth dates (pynetdicom issue 911). What we need to know of an association we log
    ourselves. Data sets go to files by `Reception`, not by its own way, which uses the folder for
    temporary files.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.STORE_RECV_CHUNKED_DATASET = False
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)


def _on_echo(event: evt.Event) -> int:
    return SUCCESS


def _why_not_whole(file: IncomingFile) -> str | None:
    """Why an image's file cannot be admitted; None if all of it is there."""
    if file.refused is not None:
        return file.refused
    if file.too_large:
        return TOO_LARGE
    return None if file.error is None else DISK_FAILED


def _status(reason: str | None) -> Dataset:
    """The C-STORE response for a reason, which it names in Error Comment (0000,0902)."""
    status = Dataset()
    status.Status = SUCCESS if reason is None else STATUSES.get(reason, CANNOT_UNDERSTAND)
    if reason is not None:
        status.ErrorComment = reason[:64]
    return status
