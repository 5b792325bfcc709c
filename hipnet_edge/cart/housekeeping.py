"""The chores of a cart: write audit and daily file, forget what is old, try the database."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hipnet_edge.cart import retention
from hipnet_edge.cart.schema import QueueUnusable

if TYPE_CHECKING:
    from hipnet_edge.cart.audit import AuditTrail
    from hipnet_edge.cart.queue import Queue
    from hipnet_edge.cart.settings import Configuration
    from hipnet_edge.cart.store import ObjectStore

logger = logging.getLogger(__name__)

_EVERY_S = 1.0
_RETENTION_EVERY_S = 60.0
_DAILY_EVERY_S = 60.0
_ROOM = 1.25
"""Room is made from this multiple of the free space on that reception insists on."""

MIB, GIB = 1024**2, 1024**3


class Housekeeping:
    """The regular chores.

    Args:
        queue: whose records go to the audit file.
        store: whose files are swept.
        trail: the audit file.
        configuration: says how much is kept.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        queue: Queue,
        store: ObjectStore,
        trail: AuditTrail,
        configuration: Configuration,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue, self._store, self._trail, self._clock = queue, store, trail, clock
        kept, receive = configuration.retention, configuration.receive
        self._limits = retention.Limits(
            days=kept.days,
            max_bytes=int(kept.max_gib * GIB),
            free_bytes=int(receive.min_free_mib * MIB * _ROOM),
        )
        self._retention_at = self._daily_at = 0.0
        self._data = configuration.service.data
        self._written: int | None = None  # the state of the counts that the file shows
        self.database_works = True
        """Whether the database could be written to the last time that was tried."""

    def step(self) -> float:
        """Do what is due; returns after how many seconds to look again."""
        try:
            with self._queue.database.transaction():
                pass
            self._trail.flush()
            self.database_works = True
        except (QueueUnusable, OSError):
            self.database_works = False
            raise
        now = self._clock()
        if now >= self._retention_at:
            self._retention_at = now + _RETENTION_EVERY_S
            retention.apply(self._queue, self._store, self._limits, now)
        if not now < self._daily_at <= now + _DAILY_EVERY_S:
            self._daily_at = now + _DAILY_EVERY_S
            self._write_daily()
        return _EVERY_S

    def finish(self) -> None:
        """Write what is left to the files; what fails now is done at the next start."""
        try:
            self._trail.flush()
            self._write_daily()
        except (QueueUnusable, OSError) as error:
            logger.warning("a file was not written at the end", exc_info=error)

    def _write_daily(self) -> None:
        """Write the daily file, if there is anything new."""
        from hipnet_edge.cart import daily

        counted = self._queue.counted
        if counted != self._written:
            daily.export(self._queue.database, self._data)
            self._written = counted
