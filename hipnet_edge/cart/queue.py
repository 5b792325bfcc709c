"""The queue: what is acknowledged, how far it is, and every step from there as one transaction.

| A case is | because | and becomes |
|---|---|---|
| assembled | `settle` made a pair | predicted, refused, failed |
| predicted | its result is kept; objects are on their way | delivered, failed |
| delivered | every destination has every object it wants | |
| refused | `settle` or the predictor said why there is no result | |
| failed | it was given up, a dead letter | assembled or predicted, by `retry` |

RECEIVED is said of a study some of whose images wait for `settle`. Each method that changes
something is one transaction, in which its audit record is made too; when it returns, the change
would survive a power cut. What was begun and not ended is begun again after a restart, and ends
with the same result objects, since their UIDs are derived.

A row never names a file that is not kept: `admit` and `predicted` look inside their transaction,
and files are removed inside one (`remove_unnamed`).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from hipnet_edge.cart.arrivals import Arrivals
from hipnet_edge.cart.listing import DUE
from hipnet_edge.cart.records import (
    Admitted,
    Case,
    Delivery,
    FinishedStudy,
    Instance,
    NewCase,
    NewRefusal,
    ResultObject,
    Settlement,
    State,
    WaitingStudy,
)
from hipnet_edge.errors import UsageError

if TYPE_CHECKING:
    from hipnet_edge.evaluation.daily import Statistics

__all__ = [
    "Admitted",
    "Case",
    "Delivery",
    "FinishedStudy",
    "Instance",
    "NewCase",
    "NewRefusal",
    "Queue",
    "ResultObject",
    "Settlement",
    "State",
    "WaitingStudy",
]


class Queue(Arrivals):
    """The queue of a data folder; safe from many threads.

    Args:
        path: of the database, beside which `objects/` holds the files; made if missing.
        pseudonym: makes of an identifier what an audit record may say (`Pseudonyms`).
        clock: gives seconds since the epoch.

    Raises:
        QueueUnusable: the database cannot be opened, or a newer version wrote it; from every
            method too, when SQLite cannot do it: nothing was changed then.
    """

    def __init__(
        self,
        path: Path,
        *,
        pseudonym: Callable[[str], str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(path, pseudonym=pseudonym, clock=clock)
        self._claimed: set[int] = set()

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def note(self, event: str, **fields: object) -> None:
        """An audit record that belongs to no transition: a start, a stop, a refused caller."""
        self.database.note(event, **fields)

    # Reading

    def claim(self, now: float) -> Case | None:
        """The case that is to be read now, given to one worker only: tried least, then oldest.

        The begun attempt is written down first, so that a pair whose reading ends the process is
        seen to have been tried: all others come before it, and from the second time on it is due
        again only after a while.
        """
        with self.database.transaction() as connection:
            rows = connection.execute(
                f"SELECT id FROM cases WHERE state = 'assembled' AND {DUE} ORDER BY attempts, id",
                (now, now),
            )
            case_id = next((row[0] for row in rows if row[0] not in self._claimed), None)
            if case_id is None:
                return None
            connection.execute(
                "UPDATE cases SET attempts = attempts + 1, next_at = CASE attempts WHEN 0 "
                "THEN next_at ELSE ? + min(2 << min(attempts, 8), 60) END WHERE id = ?",
                (now, case_id),
            )
            self._tell(connection, "reading_begun", case=case_id)
            case = self.case(case_id)
        self._claimed.add(case_id)
        return case

    def release(self, case_id: int) -> None:
        """Give a claimed case back unread, as when the service stops: it was not tried."""
        with self.database.transaction() as connection:
            connection.execute(
                "UPDATE cases SET attempts = attempts - 1, next_at = min(next_at, ?) WHERE id = ?",
                (self._clock(), case_id),
            )
            self._tell(connection, "reading_given_back", case=case_id)
        self._claimed.discard(case_id)

    def predicted(
        self,
        case_id: int,
        prediction_file: str,
        objects: Sequence[ResultObject],
        destinations: Mapping[str, Collection[str]],
        answer: Statistics | None = None,
    ) -> None:
        """A case was read; its result objects are kept and go to who wants them.

        Args:
            case_id: a claimed case.
            prediction_file: the prediction's JSON in the object store.
            objects: all of its result, kept.
            destinations: which kinds of object each destination wants. If nobody wants any, the
                case is delivered: it is looked at on the page.
            answer: what the daily statistics count of it.

        Raises:
            Fault: the case is not assembled, or a file is not there.
        """
        with self.database.transaction() as connection:
            size = self._require_file(prediction_file)
            now = self._move(connection, case_id, State.ASSEMBLED, State.PREDICTED)
            connection.execute(
                "UPDATE cases SET prediction = ?, prediction_size = ? WHERE id = ?",
                (prediction_file, size, case_id),
            )
            for item in objects:
                self._require_file(item.file)
                connection.execute(
                    "INSERT INTO objects (case_id, sop_instance_uid, sop_class_uid, "
                    "transfer_syntax, kind, file, size) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (case_id, *astuple(item)),
                )
                connection.executemany(
                    "INSERT INTO deliveries (case_id, destination, sop_instance_uid, state, "
                    "next_at) VALUES (?, ?, ?, 'waiting', ?)",
                    [
                        (case_id, destination, item.sop_instance_uid, now)
                        for destination, kinds in destinations.items()
                        if item.kind in kinds
                    ],
                )
            if answer is not None:
                self._count(connection, answer)
            self._conclude(connection, case_id)
        self._claimed.discard(case_id)

    def refuse(self, case_id: int, reason: str, message: str) -> None:
        """The predictor refused a pair."""
        with self.database.transaction() as connection:
            self._move(connection, case_id, State.ASSEMBLED, State.REFUSED, reason, message)
            self._count_refusal(connection, reason)
        self._claimed.discard(case_id)

    def postpone(self, case_id: int, reason: str, message: str, next_at: float | None) -> None:
        """Reading a case went wrong: try again at `next_at`, or never (None), a dead letter."""
        with self.database.transaction() as connection:
            state = State.FAILED if next_at is None else State.ASSEMBLED
            self._move(connection, case_id, State.ASSEMBLED, state, reason, message)
            if next_at is not None:
                connection.execute("UPDATE cases SET next_at = ? WHERE id = ?", (next_at, case_id))
        self._claimed.discard(case_id)

    # Delivering

    def sent(self, delivery: Delivery) -> None:
        """The destination has acknowledged the object; a second time changes nothing."""
        self._delivered(delivery, "sent", None, delivery.next_at)

    def delivery_postponed(self, delivery: Delivery, reason: str, next_at: float | None) -> None:
        """Sending went wrong: try again at `next_at`, or never (None)."""
        state = "failed" if next_at is None else "waiting"
        when = delivery.next_at if next_at is None else next_at
        self._delivered(delivery, state, reason, when)

    def _delivered(
        self, delivery: Delivery, state: str, reason: str | None, next_at: float
    ) -> None:
        key = (delivery.case_id, delivery.destination, delivery.object.sop_instance_uid)
        with self.database.transaction() as connection:
            changed = connection.execute(
                "UPDATE deliveries SET state = ?, reason = ?, next_at = ?, attempts = attempts + 1 "
                "WHERE case_id = ? AND destination = ? AND sop_instance_uid = ? "
                "AND state = 'waiting'",
                (state, reason, next_at, *key),
            ).rowcount
            if not changed:
                return
            self._tell(
                connection,
                f"delivery_{'postponed' if state == 'waiting' else state}",
                case=delivery.case_id,
                destination=delivery.destination,
                sop=self._pseudonym(delivery.object.sop_instance_uid),
                kind=delivery.object.kind,
                reason=reason,
            )
            self._conclude(connection, delivery.case_id)

    def _conclude(self, connection: sqlite3.Connection, case_id: int) -> None:
        """A predicted case of which nothing waits any more is delivered, or has failed."""
        states = dict(
            connection.execute(
                "SELECT state, max(reason) FROM deliveries WHERE case_id = ? GROUP BY state",
                (case_id,),
            ).fetchall()
        )
        if "failed" in states and "waiting" not in states:
            message = "A destination did not take the result."
            self._move(
                connection, case_id, State.PREDICTED, State.FAILED, states["failed"], message
            )
        elif "waiting" not in states:
            self._move(connection, case_id, State.PREDICTED, State.DELIVERED)

    # What a person or retention asks for

    def retry(self, case_id: int) -> State:
        """Go on with a failed case where it stopped: read it again, or send what was not sent.

        Returns:
            what it is now.

        Raises:
            UsageError: the case is not failed, or there is none.
        """
        with self.database.transaction() as connection:
            case = self.case(case_id)
            if case.state is not State.FAILED:
                raise UsageError(f"Case {case_id} is {case.state.value}, not failed.")
            state = State.ASSEMBLED if case.prediction is None else State.PREDICTED
            now = self._move(connection, case_id, State.FAILED, state)
            connection.execute(
                "UPDATE cases SET attempts = 0, next_at = ? WHERE id = ?", (now, case_id)
            )
            connection.execute(
                "UPDATE deliveries SET state = 'waiting', attempts = 0, next_at = ? "
                "WHERE case_id = ? AND state = 'failed'",
                (now, case_id),
            )
        return state

    def purge(self, study: FinishedStudy, why: str) -> bool:
        """Forget a finished study; its files are then named by nobody, and swept.

        Returns:
            False if something came or happened since it was listed: nothing was done then.
        """
        key = (study.study_instance_uid, study.patient_key)
        with self.database.transaction() as connection:
            if not self.is_finished(study):
                return False
            of_study = "WHERE study_instance_uid = ? AND patient_key = ?"
            cases = connection.execute(f"SELECT id FROM cases {of_study}", key).fetchall()
            connection.execute(f"DELETE FROM cases {of_study}", key)
            images = connection.execute(f"DELETE FROM instances {of_study}", key).rowcount
            self._tell(
                connection,
                "purged",
                study=self._pseudonym(study.study_instance_uid),
                patient=study.patient_key,
                cases=[row[0] for row in cases],
                instances=images,
                bytes=study.size,
                reason=why,
            )
        return True

    def remove_unnamed(self, names: Iterable[str], remove: Callable[[str], None]) -> int:
        """Remove those of these files that no row names, while no row can come to name them."""
        with self.database.transaction() as connection:
            named = (
                "SELECT EXISTS (SELECT 1 FROM instances WHERE file = :n) OR EXISTS (SELECT 1 FROM "
                "objects WHERE file = :n) OR EXISTS (SELECT 1 FROM cases WHERE prediction = :n)"
            )
            free = [n for n in names if not connection.execute(named, {"n": n}).fetchone()[0]]
            for name in free:
                remove(name)
            if free:
                self._tell(connection, "files_swept", files=len(free))
        return len(free)
