"""What all transitions of the queue are made of."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hipnet_edge.cart.audit import append
from hipnet_edge.cart.database import Database
from hipnet_edge.cart.listing import Listing
from hipnet_edge.cart.records import State
from hipnet_edge.errors import Fault

if TYPE_CHECKING:
    from hipnet_edge.evaluation.daily import Model, Statistics


class Transitions(Listing):
    """The queue's database, its clock and its pseudonyms; see `queue.Queue`.

    Attributes:
        model: that answers here, for which refusals are counted; none are while it is None.
        counted: grows with each change of the daily statistics.
    """

    def __init__(
        self,
        path: Path,
        *,
        pseudonym: Callable[[str], str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(Database(path, clock=clock))
        self._files = path.parent / "objects"
        self._pseudonym = pseudonym
        self._clock = clock
        self.model: Model | None = None
        self.counted = 0

    def _tell(self, connection: sqlite3.Connection, event: str, **fields: object) -> None:
        append(connection, self._clock(), event, fields)

    def _require_file(self, name: str) -> int:
        """The size of a kept file; nothing may be written down about one that is not there."""
        try:
            return (self._files / name).stat().st_size
        except OSError as error:
            raise Fault(f"The file {name} is not kept.") from error

    def _move(
        self,
        connection: sqlite3.Connection,
        case_id: int,
        before: State,
        after: State,
        reason: str | None = None,
        message: str | None = None,
    ) -> float:
        """Bring a case from one state to another; returns the time that was written."""
        now = self._clock()
        moved = connection.execute(
            "UPDATE cases SET state = ?, reason = ?, message = ?, updated_at = ? "
            "WHERE id = ? AND state = ?",
            (after.value, reason, message, now, case_id, before.value),
        ).rowcount
        if not moved:
            raise Fault(f"Case {case_id} is not {before.value}.")
        event = "case_postponed" if after is before else f"case_{after.value}"
        self._tell(connection, event, case=case_id, state_from=before.value, reason=reason)
        return now

    def _count(self, connection: sqlite3.Connection, one: Statistics) -> None:
        """Add an answer or a refusal to the daily statistics."""
        from hipnet_edge.cart import daily

        daily.count(connection, self._clock(), one)
        self.counted += 1

    def _count_refusal(self, connection: sqlite3.Connection, reason: str) -> None:
        from hipnet_edge.cart import daily

        if self.model is not None:
            self._count(connection, daily.refusal(self.model, reason))

    def _take_refusal_back(self, connection: sqlite3.Connection, at: float, reason: str) -> None:
        from hipnet_edge.cart import daily

        daily.take_back(connection, at, reason)
        self.counted += 1
