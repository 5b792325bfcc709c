"""The cart's daily statistics: an answer or refusal is counted in the transaction that keeps it.

So none is counted twice or not at all, wherever a kill or a power cut falls, and a study that
retention forgets stays counted. The table has a row for each day (local time) and model, and for
each schema: a newer version of the package leaves older records as they are. The file daily.jsonl
is written from it for `hipnet-edge drift`. No patient data are in either.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from datetime import date
from pathlib import Path

from hipnet_edge.cart.database import Database
from hipnet_edge.cart.store import sync_folder
from hipnet_edge.evaluation.daily import (
    DAILY_FILE,
    SCHEMA,
    Model,
    Statistics,
    as_line,
    from_line,
)

_WHERE = "the cart's database"


def count(connection: sqlite3.Connection, now: float, one: Statistics) -> None:
    """Add to the record of the day, within the caller's transaction.

    Args:
        connection: in a transaction.
        now: seconds since the epoch.
        one: of one answer or one refusal.
    """
    day = _day(now)
    found = connection.execute(
        "SELECT line FROM daily WHERE day = ? AND schema = ? AND model = ?",
        (day, SCHEMA, _key(one.model)),
    ).fetchone()
    if found is not None:
        one.merge(from_line(found[0], _WHERE)[1])
    _write(connection, day, one)


def refusal(model: Model, code: str) -> Statistics:
    """One refusal by its reason code."""
    return Statistics(model, refused=Counter({code: 1}))


def take_back(connection: sqlite3.Connection, at: float, code: str) -> None:
    """One refusal of that time is none any more, since a late image made the pair complete."""
    lines = connection.execute(
        "SELECT line FROM daily WHERE day = ? AND schema = ?", (_day(at), SCHEMA)
    ).fetchall()
    for (line,) in lines:
        day, statistics = from_line(line, _WHERE)
        if statistics.refused[code] > 0:
            statistics.refused -= Counter({code: 1})
            _write(connection, day, statistics)
            return


def export(database: Database, data: Path) -> None:
    """Write all days as daily.jsonl into the data folder: whole, or it stays as it was.

    Raises:
        OSError, QueueUnusable: try again later; nothing is lost.
    """
    rows = database.rows("SELECT line FROM daily WHERE schema = ? ORDER BY day, model", SCHEMA)
    path = data / DAILY_FILE
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(row["line"] for row in rows)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def _day(now: float) -> str:
    return date.fromtimestamp(now).isoformat()


def _key(model: Model) -> str:
    return json.dumps([model.bundle, model.variant, model.overlay])


def _write(connection: sqlite3.Connection, day: str, statistics: Statistics) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO daily (day, schema, model, line) VALUES (?, ?, ?, ?)",
        (day, SCHEMA, _key(statistics.model), as_line(day, statistics)),
    )
