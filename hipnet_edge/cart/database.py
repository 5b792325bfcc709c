"""One SQLite connection that many threads share, and transactions that are whole or not at all.

WAL with `synchronous=FULL`: a transaction that has ended is on disk. One lock serves all threads;
SQLite has one writer anyway, and another process (`hipnet-edge queue list`) waits its turn.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hipnet_edge.cart.audit import append
from hipnet_edge.cart.schema import QueueUnusable, migrate
from hipnet_edge.cart.store import make_folder, sync_folder

_BUSY_S = 30.0
"""How long to wait for another process's transaction."""


class Database:
    """The data folder's database.

    Args:
        path: made if missing, readable by this user alone.
        clock: gives seconds since the epoch.

    Raises:
        QueueUnusable: it cannot be opened, or a newer version of the package wrote it.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.clock = clock
        self._lock = threading.RLock()
        try:
            make_folder(path.parent)
            # SQLite gives -wal and -shm the mode of the database.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = _connect(path)
        except (OSError, sqlite3.Error) as error:
            raise _unusable("opened", error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction: durable when the block ends, and undone if it raises.

        Raises:
            QueueUnusable: SQLite could not do it (a full disk, a damaged file); nothing changed.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise _unusable("written", error) from error

    def rows(self, sql: str, *parameters: Any) -> list[sqlite3.Row]:
        """The rows of a question that changes nothing."""
        with self._lock:
            try:
                return self._connection.execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                raise _unusable("read", error) from error

    def note(self, event: str, **fields: object) -> None:
        """An audit record that belongs to no transition: a start, a stop, a refused caller."""
        with self.transaction() as connection:
            append(connection, self.clock(), event, fields)

    def close(self) -> None:
        """Close; what was acknowledged is on disk already."""
        with self._lock:
            self._connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.row_factory = sqlite3.Row
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise QueueUnusable("The queue's database needs a file system that can lock and map.")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        # Ends with a commit, so that all of SQLite's files exist when the folder is synced.
        migrate(connection)
        sync_folder(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection


def _unusable(what: str, error: Exception) -> QueueUnusable:
    said = getattr(error, "sqlite_errorname", type(error).__name__)
    return QueueUnusable(f"The queue's database cannot be {what} ({said}).")
