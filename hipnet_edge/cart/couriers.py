"""How a destination is spoken to: a folder, or a PACS over DICOM C-STORE."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from hipnet_edge.cart.deliver import Answer, Courier, Outcome
from hipnet_edge.cart.store import sync_folder

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from pydicom.dataset import Dataset
    from pynetdicom.association import Association

    from hipnet_edge.cart.records import ResultObject
    from hipnet_edge.cart.settings import (
        Configuration,
        Destination,
        DicomDestination,
        FolderDestination,
    )

logger = logging.getLogger(__name__)

DELIVERED = Answer(Outcome.DELIVERED)
_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_CONNECT_S, _ANSWER_S = 15.0, 60.0
_MOST_CONTEXTS = 128


def courier_for(destination: Destination, configuration: Configuration) -> Courier:
    """The courier for a destination of a configuration.

    Raises:
        UsageError: certificate, key or token cannot be used.
    """
    if destination.kind == "folder":
        return FolderCourier(destination)
    if destination.kind == "dicomweb":
        from hipnet_edge.cart.dicomweb import DicomwebCourier

        return DicomwebCourier(destination)
    return DicomCourier(
        destination, configuration.delivery_ae_title, configuration.deliver.idle_release_s
    )


class FolderCourier:
    """Writes objects into a folder that must be there: an empty mount point must not be filled.

    A file appears whole and under its final name, which is a hash of its SOP instance UID; the same
    object again writes the same file again.
    """

    def __init__(self, destination: FolderDestination) -> None:
        self._folder = destination.path

    def prepare(self, objects: Sequence[ResultObject]) -> Answer:
        """Whether the folder is there."""
        there = self._folder.is_dir()
        return DELIVERED if there else Answer(Outcome.LATER, "no_such_folder")

    def send(self, item: ResultObject, path: Path) -> Answer:
        """Write one object, so that it survives a power cut."""
        name = hashlib.sha256(item.sop_instance_uid.encode()).hexdigest()[:40]
        part, final = self._folder / f".{name}.part", self._folder / f"{name}.dcm"
        try:
            with part.open("wb") as file:
                file.write(path.read_bytes())
                file.flush()
                os.fsync(file.fileno())
            part.replace(final)
            sync_folder(self._folder)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            logger.warning("folder cannot be written", exc_info=error)
            return Answer(Outcome.LATER, "folder_not_written")
        return DELIVERED

    def release(self) -> None:
        """Nothing is held."""

    def interrupt(self) -> None:
        """A write ends by itself."""


class DicomCourier:
    """A C-STORE SCU (PS3.4 annex B) that keeps one association and uses it again.

    For each SOP class it proposes the transfer syntax of the kept object and both uncompressed
    little endian ones. Kept bytes go out as they are; only a peer that takes none but another
    uncompressed syntax gets them decoded, which loses nothing, under the same UID.
    """

    def __init__(
        self, destination: DicomDestination, calling_ae_title: str, idle_release_s: float
    ) -> None:
        from pynetdicom import AE, _config

        from hipnet_edge.cart.tls import client_context

        # Files are sent as they lie there, without being decoded and encoded again.
        _config.STORE_SEND_CHUNKED_DATASET = True
        self._host, self._port = destination.host, destination.port
        self._called = destination.ae_title
        self._tls: ssl.SSLContext | None = (
            client_context(destination.tls) if destination.tls else None
        )
        self._entity = AE(calling_ae_title)
        self._entity.connection_timeout = _CONNECT_S
        self._entity.acse_timeout = _CONNECT_S
        self._entity.dimse_timeout = _ANSWER_S
        self._entity.network_timeout = idle_release_s + _ANSWER_S
        self._association: Association | None = None
        self._proposed: set[tuple[str, str]] = set()
        self._accepted: set[tuple[str, str]] = set()

    def prepare(self, objects: Sequence[ResultObject]) -> Answer:
        """An association in which these objects were negotiated, the open one if it will do."""
        wanted = {
            (item.sop_class_uid, syntax)
            for item in objects
            for syntax in (item.transfer_syntax, _EXPLICIT, _IMPLICIT)
        }
        if self._is_open() and wanted <= self._proposed:
            return DELIVERED
        self.release()
        self._proposed = wanted | self._proposed
        if len(self._proposed) > _MOST_CONTEXTS:
            self._proposed = wanted
        return self._associate()

    def _is_open(self) -> bool:
        return self._association is not None and self._association.is_established

    def _associate(self) -> Answer:
        from pynetdicom import build_context

        contexts = [build_context(kind, syntax) for kind, syntax in sorted(self._proposed)]
        association = self._entity.associate(
            self._host,
            self._port,
            contexts,
            ae_title=self._called,
            tls_args=(self._tls, self._host) if self._tls else None,
        )
        if not association.is_established:
            rejected = association.is_rejected
            return Answer(Outcome.LATER, "association_rejected" if rejected else "unreachable")
        self._association = association
        self._accepted = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in association.accepted_contexts
        }
        return DELIVERED

    def send(self, item: ResultObject, path: Path) -> Answer:
        """Send one object and judge the status that comes back."""
        association = self._association
        if association is None or not association.is_established:
            return Answer(Outcome.LATER, "association_lost")
        content = self._in_accepted_form(item, path)
        if isinstance(content, Answer):
            return content
        try:
            status = association.send_c_store(content)
        except (ValueError, AttributeError, RuntimeError, OSError) as error:
            logger.warning("C-STORE not sent", exc_info=error)
            return Answer(Outcome.LATER, "association_lost")
        if "Status" not in status:
            self.interrupt()
            return Answer(Outcome.LATER, "no_answer")
        return judged(int(status.Status))

    def _in_accepted_form(self, item: ResultObject, path: Path) -> Path | Dataset | Answer:
        """The file as it is, or decoded where the peer takes it in no other way."""
        accepted = {syntax for kind, syntax in self._accepted if kind == item.sop_class_uid}
        if item.transfer_syntax in accepted:
            return path
        syntax = next((s for s in (_EXPLICIT, _IMPLICIT) if s in accepted), None)
        if syntax is None:
            return Answer(Outcome.REJECTED, "no_presentation_context")
        try:
            return _uncompressed(path, syntax)
        except Exception as error:  # decoders raise what they like
            logger.warning("cannot be decoded for this peer", exc_info=error)
            return Answer(Outcome.REJECTED, "no_transfer_syntax")

    def release(self) -> None:
        """End the association in good order."""
        association, self._association = self._association, None
        if association is not None and association.is_established:
            association.release()

    def interrupt(self) -> None:
        """Abort the association."""
        association, self._association = self._association, None
        if association is not None and association.is_established:
            association.abort()


def judged(status: int) -> Answer:
    """What a C-STORE status means for us (PS3.4 table B.2-1, PS3.7 annex C).

    Success and warnings, among them coerced elements (B000), say that the object is stored; so does
    0111, duplicate SOP instance: it came before. A7xx, out of resources, passes.
    """
    reason = f"status_{status:04x}"
    if status in (0x0000, 0x0001, 0x0107, 0x0111, 0x0116) or 0xB000 <= status <= 0xBFFF:
        return Answer(Outcome.DELIVERED, reason)
    if 0xA700 <= status <= 0xA7FF:
        return Answer(Outcome.LATER, reason)
    return Answer(Outcome.REJECTED, reason)


def _uncompressed(path: Path, syntax: str) -> Dataset:
    """An object in an uncompressed transfer syntax, everything else as it was kept."""
    from pydicom import dcmread, dcmwrite
    from pydicom.uid import UID

    dataset: Any = dcmread(path)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.decompress(generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    # A data set remembers how it was read, and pynetdicom holds it to that: read it as it will be.
    file = BytesIO()
    dcmwrite(file, dataset, implicit_vr=syntax == _IMPLICIT, little_endian=True)
    file.seek(0)
    return dcmread(file)
