"""What the queue can be asked: questions that change nothing, and rows turned into records."""

from __future__ import annotations

import sqlite3
from dataclasses import fields
from typing import Any, TypeVar

from hipnet_edge.cart.database import Database
from hipnet_edge.cart.records import (
    Case,
    Delivery,
    FinishedStudy,
    Instance,
    ResultObject,
    State,
    WaitingStudy,
)
from hipnet_edge.errors import UsageError

T = TypeVar("T", Case, Instance, ResultObject)

_RECEIVED = (
    "SELECT count(*) AS n FROM (SELECT DISTINCT study_instance_uid, patient_key "
    "FROM instances WHERE settled_at IS NULL)"
)
DUE = "(next_at <= ? OR next_at > ? + 86400)"
"""For two times `now`. Nothing is put off for a day: what seems to be was put off before the clock
was set back, as it is on a device whose clock has no battery."""

INSTANCE_COLUMNS = ", ".join(field.name for field in fields(Instance))
_CASE_COLUMNS = ", ".join(field.name for field in fields(Case))
_OBJECT_COLUMNS = ", ".join(f"o.{field.name}" for field in fields(ResultObject))
_DELIVERIES = (
    "SELECT d.case_id, d.destination, d.state, d.attempts, d.next_at, d.reason, "
    f"{_OBJECT_COLUMNS} FROM deliveries d JOIN objects o USING (case_id, sop_instance_uid) "
)


class Listing:
    """The reading half of the queue.

    Args:
        database: what holds it.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def waiting_studies(self) -> list[WaitingStudy]:
        """Studies with images that are not settled, those first that have waited longest."""
        rows = self.database.rows(
            f"SELECT {INSTANCE_COLUMNS}, settled_at FROM instances "
            "WHERE (study_instance_uid, patient_key) IN (SELECT study_instance_uid, patient_key "
            "FROM instances WHERE settled_at IS NULL) ORDER BY received_at, sop_instance_uid"
        )
        studies: dict[tuple[str, str], list[sqlite3.Row]] = {}
        for row in rows:
            studies.setdefault((row["study_instance_uid"], row["patient_key"]), []).append(row)
        return [
            WaitingStudy(
                study_instance_uid=study,
                patient_key=patient,
                instances=tuple(_record(Instance, row) for row in images),
                new=frozenset(
                    row["sop_instance_uid"] for row in images if row["settled_at"] is None
                ),
                last_received_at=max(row["received_at"] for row in images),
            )
            for (study, patient), images in studies.items()
        ]

    def instance(self, sop_instance_uid: str) -> Instance | None:
        """A received image, if it is there."""
        rows = self.database.rows(
            f"SELECT {INSTANCE_COLUMNS} FROM instances WHERE sop_instance_uid = ?",
            sop_instance_uid,
        )
        return _record(Instance, rows[0]) if rows else None

    def sources(self, case: Case) -> tuple[Instance, Instance]:
        """The AP and the lateral image of a case that has both."""
        ap, lateral = (
            None if uid is None else self.instance(uid) for uid in (case.ap, case.lateral)
        )
        if ap is None or lateral is None:
            raise UsageError(f"Case {case.id} has no pair of images.")
        return ap, lateral

    def case(self, case_id: int) -> Case:
        """A case by its number.

        Raises:
            UsageError: there is none of this number, or it was purged.
        """
        rows = self.database.rows(f"SELECT {_CASE_COLUMNS} FROM cases WHERE id = ?", case_id)
        if not rows:
            raise UsageError(f"There is no case {case_id}.")
        return _as_case(rows[0])

    def cases(self, *, state: State | None = None, limit: int = 200, offset: int = 0) -> list[Case]:
        """Cases, those first to which something happened last."""
        where, parameters = ("WHERE state = ?", [state.value]) if state else ("", [])
        rows = self.database.rows(
            f"SELECT {_CASE_COLUMNS} FROM cases {where} "
            "ORDER BY updated_at DESC, id DESC LIMIT ? OFFSET ?",
            *(*parameters, limit, offset),
        )
        return [_as_case(row) for row in rows]

    def objects(self, case_id: int) -> list[ResultObject]:
        """The result objects of a case, in the order in which they were given."""
        rows = self.database.rows(
            f"SELECT {_OBJECT_COLUMNS} FROM objects o WHERE case_id = ? ORDER BY rowid", case_id
        )
        return [_record(ResultObject, row) for row in rows]

    def deliveries(self, case_id: int) -> list[Delivery]:
        """How far each result object of a case is on its way to each destination."""
        rows = self.database.rows(_DELIVERIES + "WHERE d.case_id = ? ORDER BY d.rowid", case_id)
        return [_as_delivery(row) for row in rows]

    def due(self, destination: str, now: float, limit: int) -> list[Delivery]:
        """What is to be sent to a destination now, the oldest case first."""
        rows = self.database.rows(
            _DELIVERIES + "WHERE d.state = 'waiting' AND d.destination = ? "
            f"AND {DUE} ORDER BY d.case_id, d.rowid LIMIT ?",
            *(destination, now, now, limit),
        )
        return [_as_delivery(row) for row in rows]

    def counts(self) -> dict[State, int]:
        """How many cases are in each state; RECEIVED counts studies that are not settled."""
        found = dict.fromkeys(State, 0)
        for row in self.database.rows("SELECT state, count(*) AS n FROM cases GROUP BY state"):
            found[State(row["state"])] = row["n"]
        (row,) = self.database.rows(_RECEIVED)
        found[State.RECEIVED] = row["n"]
        return found

    def backlog(self) -> int:
        """How many studies and cases are received or assembled and not yet read."""
        (row,) = self.database.rows(
            f"SELECT ({_RECEIVED}) + (SELECT count(*) FROM cases WHERE state = 'assembled') AS n"
        )
        return int(row["n"])

    def waiting_deliveries(self) -> dict[str, int]:
        """How many objects wait for each destination, configured or no longer."""
        rows = self.database.rows(
            "SELECT destination, count(*) AS n FROM deliveries WHERE state = 'waiting' "
            "GROUP BY destination"
        )
        return {row["destination"]: row["n"] for row in rows}

    def files_in_use(self) -> set[str]:
        """The names of all files that a row names."""
        rows = self.database.rows(
            "SELECT file FROM instances UNION SELECT file FROM objects "
            "UNION SELECT prediction FROM cases WHERE prediction IS NOT NULL"
        )
        return {row[0] for row in rows}

    def stored_bytes(self) -> int:
        """The size of all files that rows name."""
        (row,) = self.database.rows(
            "SELECT (SELECT ifnull(sum(size), 0) FROM instances) + "
            "(SELECT ifnull(sum(size), 0) FROM objects) + "
            "(SELECT ifnull(sum(prediction_size), 0) FROM cases) AS bytes"
        )
        return int(row["bytes"])

    def finished_studies(self, limit: int = -1) -> list[FinishedStudy]:
        """Studies of whom nothing waits: oldest first; a negative limit lists all."""
        rows = self.database.rows(_FINISHED + "ORDER BY finished_at LIMIT ?", limit)
        return [_as_finished(row) for row in rows]

    def is_finished(self, study: FinishedStudy) -> bool:
        """Whether nothing has come or happened since this study was listed as finished."""
        rows = self.database.rows(
            _FINISHED + "AND i.study_instance_uid = ? AND i.patient_key = ?",
            *(study.study_instance_uid, study.patient_key),
        )
        return [_as_finished(row) for row in rows] == [study]


_FINISHED = """
    SELECT i.study_instance_uid, i.patient_key,
        max(i.last, ifnull(c.last, 0)) AS finished_at,
        ifnull(c.failed, 0) AS failed,
        i.size + ifnull(c.size, 0) AS size
    FROM (
        SELECT study_instance_uid, patient_key, sum(size) AS size,
            max(max(received_at, ifnull(settled_at, 0))) AS last,
            max(settled_at IS NULL) AS waits
        FROM instances GROUP BY study_instance_uid, patient_key
    ) i LEFT JOIN (
        SELECT study_instance_uid, patient_key, max(updated_at) AS last,
            max(state = 'failed') AS failed, max(state IN ('assembled', 'predicted')) AS waits,
            sum(prediction_size + ifnull((SELECT sum(size) FROM objects WHERE case_id = id), 0))
                AS size
        FROM cases GROUP BY study_instance_uid, patient_key
    ) c USING (study_instance_uid, patient_key)
    WHERE NOT i.waits AND NOT ifnull(c.waits, 0)
"""


def _record(kind: type[T], row: sqlite3.Row) -> T:
    values: dict[str, Any] = {field.name: row[field.name] for field in fields(kind)}
    return kind(**values)


def _as_case(row: sqlite3.Row) -> Case:
    values: dict[str, Any] = dict(row)
    return Case(**{**values, "state": State(row["state"])})


def _as_delivery(row: sqlite3.Row) -> Delivery:
    return Delivery(
        case_id=row["case_id"],
        destination=row["destination"],
        object=_record(ResultObject, row),
        state=row["state"],
        attempts=row["attempts"],
        next_at=row["next_at"],
        reason=row["reason"],
    )


def _as_finished(row: sqlite3.Row) -> FinishedStudy:
    values: dict[str, Any] = dict(row)
    return FinishedStudy(**{**values, "failed": bool(row["failed"])})
