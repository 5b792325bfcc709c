"""The queue's tables, and how a database of an older version becomes one of this version.

`PRAGMA user_version` says which version a file is. Version n is what the first n migrations make;
a released migration never changes, a new version is one more of them.
"""

from __future__ import annotations

import sqlite3

from hipnet_edge.errors import Fault

_VERSION_1 = (
    """CREATE TABLE instances (
        sop_instance_uid TEXT PRIMARY KEY,
        sop_class_uid TEXT NOT NULL,
        study_instance_uid TEXT NOT NULL,
        patient_key TEXT NOT NULL,
        transfer_syntax TEXT NOT NULL,
        file TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        size INTEGER NOT NULL,
        view TEXT,
        laterality TEXT,
        acquired_at TEXT,
        refusal TEXT,
        received_at REAL NOT NULL,
        source TEXT NOT NULL,
        settled_at REAL,  -- NULL while it waits for the assembler
        unused TEXT       -- why it was set aside
    )""",
    "CREATE INDEX instances_of_study ON instances (study_instance_uid, patient_key)",
    "CREATE INDEX instances_waiting ON instances (received_at) WHERE settled_at IS NULL",
    "CREATE INDEX instances_by_file ON instances (file)",
    """CREATE TABLE cases (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        study_instance_uid TEXT NOT NULL,
        patient_key TEXT NOT NULL,
        laterality TEXT,
        ap TEXT REFERENCES instances (sop_instance_uid),
        lateral TEXT REFERENCES instances (sop_instance_uid),
        state TEXT NOT NULL
            CHECK (state IN ('assembled', 'predicted', 'delivered', 'refused', 'failed')),
        reason TEXT,
        message TEXT,
        attempts INTEGER NOT NULL DEFAULT 0,
        next_at REAL NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        assembled INTEGER NOT NULL,  -- 0: a refusal of the assembler, which a late image may undo
        prediction TEXT,
        prediction_size INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE UNIQUE INDEX cases_once
        ON cases (study_instance_uid, patient_key, ifnull(ap, ''), ifnull(lateral, ''),
            ifnull(laterality, ''))""",
    "CREATE INDEX cases_by_state ON cases (state, next_at)",
    "CREATE INDEX cases_of_study ON cases (study_instance_uid, patient_key)",
    "CREATE INDEX cases_by_ap ON cases (ap)",
    "CREATE INDEX cases_by_lateral ON cases (lateral)",
    "CREATE INDEX cases_by_prediction ON cases (prediction)",
    """CREATE TABLE objects (
        case_id INTEGER NOT NULL REFERENCES cases (id) ON DELETE CASCADE,
        sop_instance_uid TEXT NOT NULL,
        sop_class_uid TEXT NOT NULL,
        transfer_syntax TEXT NOT NULL,
        kind TEXT NOT NULL,
        file TEXT NOT NULL,
        size INTEGER NOT NULL,
        PRIMARY KEY (case_id, sop_instance_uid)
    )""",
    "CREATE INDEX objects_by_file ON objects (file)",
    """CREATE TABLE deliveries (
        case_id INTEGER NOT NULL,
        destination TEXT NOT NULL,
        sop_instance_uid TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'failed')),
        attempts INTEGER NOT NULL DEFAULT 0,
        next_at REAL NOT NULL,
        reason TEXT,
        PRIMARY KEY (case_id, destination, sop_instance_uid),
        FOREIGN KEY (case_id, sop_instance_uid)
            REFERENCES objects (case_id, sop_instance_uid) ON DELETE CASCADE
    )""",
    """CREATE INDEX deliveries_waiting ON deliveries (destination, next_at)
        WHERE state = 'waiting'""",
    """CREATE TABLE audit (
        seq INTEGER PRIMARY KEY,
        hash TEXT NOT NULL,
        line TEXT NOT NULL
    )""",
    # How far audit.jsonl is known to be on disk: its last record, and its size after that.
    """CREATE TABLE audit_file (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        seq INTEGER NOT NULL,
        hash TEXT NOT NULL,
        size INTEGER NOT NULL
    )""",
    f"INSERT INTO audit_file VALUES (1, 0, '{'0' * 64}', 0)",
)

_VERSION_2 = (
    # No row of it belongs to a study: what retention forgets stays counted.
    """CREATE TABLE daily (
        day TEXT NOT NULL,
        schema INTEGER NOT NULL,
        model TEXT NOT NULL,
        line TEXT NOT NULL,
        PRIMARY KEY (day, schema, model)
    )""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1, _VERSION_2)
"""The statements that lead from each version to the next; the first begins with an empty file."""


class QueueUnusable(Fault):
    """The queue's database cannot be opened, read or written; nothing was changed."""


def migrate(
    connection: sqlite3.Connection, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS
) -> None:
    """Bring a database to this version: all of it, or nothing.

    Args:
        connection: in autocommit mode (`isolation_level=None`).
        migrations: those of this version of the package.

    Raises:
        QueueUnusable: a newer version of the package wrote this database.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise QueueUnusable(
                f"The queue's database is of version {version}, and this hipnet-edge knows "
                f"versions up to {len(migrations)}: use the newer hipnet-edge that wrote it."
            )
        for statement in (s for migration in migrations[version:] for s in migration):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
