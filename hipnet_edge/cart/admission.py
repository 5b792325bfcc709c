"""One image's way in, whoever brought it: checked, kept so that no power cut loses it, queued.

The DICOM receiver, the watch folder, the page's upload and STOW-RS all end here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hipnet_edge.cart.configuration import Configuration
    from hipnet_edge.cart.identity import Pseudonyms
    from hipnet_edge.cart.queue import Admitted, Queue
    from hipnet_edge.cart.store import ObjectStore

NO_SPACE, QUEUE_FULL, CONFLICT, MISMATCH = "no_space", "queue_full", "conflict", "uid_mismatch"
"""Reason codes of admission besides `hipnet_edge.errors.Reason`."""


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


class Admission:
    """Takes images in; safe from many threads."""

    def __init__(
        self,
        configuration: Configuration,
        store: ObjectStore,
        queue: Queue,
        pseudonyms: Pseudonyms,
        on_event: Callable[[str], None] | None = None,
    ) -> None:
        self._receive = configuration.receive
        self._store, self._queue, self._pseudonyms = store, queue, pseudonyms

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
        raise NotImplementedError
