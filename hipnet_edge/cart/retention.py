"""What is forgotten, and when: by age, and by space before a disk is full.

A study goes as a whole: its images, results, predictions and rows, and only if nothing of it waits.
The rows go first, in one transaction with the audit record that says so; the files, which nobody
names any more, are then swept. Whatever a crash leaves between the two is swept later.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from hipnet_edge.cart.queue import Queue
from hipnet_edge.cart.store import ObjectStore

_LOG = logging.getLogger(__name__)

GRACE_S = 600.0
"""A file this young may have been kept for a row that is still to be written."""

_BATCH = 50
"""Files removed in one transaction: reception waits no longer than that takes."""


@dataclass(frozen=True)
class Limits:
    """How much is kept.

    Attributes:
        days: since anything last happened to a study.
        max_bytes: of all kept files together.
        free_bytes: to be left free on the file system. Above what reception insists on, so that
            room is made before an image must be refused.
    """

    days: float
    max_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Forgotten:
    """What one round of `apply` has done."""

    studies: int = 0
    files: int = 0


def apply(queue: Queue, store: ObjectStore, limits: Limits, now: float) -> Forgotten:
    """Purge what is too old, then the oldest until there is room; sweep the files.

    For want of room no dead letter is purged: its result is nowhere else.

    Args:
        queue: whose finished studies may go; others never do.
        store: where the files are.
        limits: how much is kept.
        now: seconds since the epoch.
    """
    excess = max(queue.stored_bytes() - limits.max_bytes, limits.free_bytes - store.free_bytes())
    studies = 0
    for study in queue.finished_studies():
        old = study.finished_at < now - limits.days * 86400
        if not old and (excess <= 0 or study.failed):
            continue
        if queue.purge(study, "age" if old else "space"):
            studies += 1
            excess -= study.size
    done = Forgotten(studies, sweep(queue, store, now))
    if done != Forgotten():
        extra = {"event": "retention", "studies": done.studies, "files": done.files}
        _LOG.info("studies purged, files swept", extra=extra)
    return done


def sweep(queue: Queue, store: ObjectStore, now: float) -> int:
    """Remove files that no row names and that are not quite new; returns how many."""
    in_use = queue.files_in_use()
    unnamed = (name for name in store.names() if name not in in_use)
    old = _older(store, unnamed, now - GRACE_S)
    swept = 0
    while batch := list(islice(old, _BATCH)):
        swept += queue.remove_unnamed(batch, store.remove)
    return swept


def _older(store: ObjectStore, names: Iterator[str], than: float) -> Iterator[str]:
    for name in names:
        with suppress(FileNotFoundError):  # another process sweeps too
            if store.path(name).stat().st_mtime < than:
                yield name
