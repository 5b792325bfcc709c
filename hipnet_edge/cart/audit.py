"""What happened, as a file that is only ever appended to and whose records are chained by hashes.

A record is made inside the transaction that it tells of (`append`), so neither can be without the
other. `AuditTrail.flush` later writes the records to audit.jsonl, syncs it, and only then takes
them out of the database, which goes on knowing the last record and the size of the file. So after a
crash at any point file and database agree again, and a file that was cut short is noticed.

A line is one JSON object, canonical (sorted keys, no spaces, ASCII). Its "hash" is the sha256 of
the line without it, and "previous", which is part of that, is the hash of the line before.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from hipnet_edge.cart.store import sync_folder
from hipnet_edge.errors import Fault

if TYPE_CHECKING:
    from hipnet_edge.cart.database import Database

_LOG = logging.getLogger(__name__)
_BATCH = 1000


@dataclass(frozen=True)
class Head:
    """A place in the chain.

    Attributes:
        seq: how many records there are up to here.
        hash: that of the last of them; zeros before the first.
        size: of the file up to here, in bytes.
    """

    seq: int
    hash: str
    size: int


START = Head(0, "0" * 64, 0)


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        records: how many records are sound, from the first on.
        problem: which record is wrong and in what way; None if all is well.
    """

    records: int
    problem: str | None


def append(
    connection: sqlite3.Connection, now: float, event: str, fields: Mapping[str, object]
) -> None:
    """Add a record to the chain, within the caller's transaction.

    Args:
        connection: in a transaction.
        now: seconds since the epoch.
        event: what happened.
        fields: pseudonyms, codes and numbers; never patient data.
    """
    last = connection.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    if last is None:
        last = connection.execute("SELECT seq, hash FROM audit_file").fetchone()
    when = datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="milliseconds")
    _insert(connection, last[0] + 1, last[1], {**fields, "event": event, "time": when})


def _insert(
    connection: sqlite3.Connection, seq: int, previous: str, record: Mapping[str, object]
) -> str:
    """Chain a record to the one before it; returns its hash."""
    body = {**record, "seq": seq, "previous": previous}
    digest = hashlib.sha256(_canonical(body)).hexdigest()
    line = _canonical({**body, "hash": digest}).decode("ascii")
    connection.execute("INSERT INTO audit VALUES (?, ?, ?)", (seq, digest, line))
    return digest


def _canonical(record: Mapping[str, object]) -> bytes:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


class AuditTrail:
    """Brings the records from the database into audit.jsonl.

    Args:
        database: where the records are made (`Queue.database`).
        path: the file; made if missing, readable by this user alone.
    """

    def __init__(self, database: Database, path: Path) -> None:
        self._database = database
        self._path = path
        with _locked(path):
            sync_folder(path.parent)

    def flush(self) -> int:
        """Write and sync what is not in the file yet; returns how many records that was.

        Whatever a crash left is put right first: the torn end of a write is cut off. Any process
        may call this at any time, they take turns.

        Raises:
            OSError, QueueUnusable: try again later; no record is lost.
        """
        written = 0
        with _locked(self._path) as file:
            head = self._settle(file)
            while rows := self._database.rows(
                "SELECT seq, hash, line FROM audit WHERE seq > ? ORDER BY seq LIMIT ?",
                *(head.seq, _BATCH),
            ):
                block = b"".join(row["line"].encode("ascii") + b"\n" for row in rows)
                file.seek(head.size)
                file.write(block)
                head = Head(rows[-1]["seq"], rows[-1]["hash"], head.size + len(block))
                self._mark(file, head)
                written += len(rows)
        return written

    def _settle(self, file: BinaryIO) -> Head:
        """Make file and database agree on where the file ends."""
        head = known_head(self._database)
        size = file.seek(0, os.SEEK_END)
        if size < head.size:
            # Not by a power cut: the file was synced to there. `verify` will go on telling.
            _LOG.error("audit file is shorter than it was", extra={"event": "audit_cut_short"})
            self._database.note("audit_cut_short", expected=head.size, found=size)
            if size > 0:
                file.write(b"\n")
                size += 1
            head = Head(head.seq, head.hash, size)
            self._mark(file, head)
        elif size > head.size:
            head = self._continue(file, head)
        return head

    def _continue(self, file: BinaryIO, head: Head) -> Head:
        """Take in sound records that the database does not know as written; cut off the rest.

        They were written before a crash that came before the mark; or the database is an older
        copy that was put back, and then its newer records are chained to the end of the file.
        """
        ours = {
            row["hash"]
            for row in self._database.rows("SELECT hash FROM audit WHERE seq > ?", head.seq)
        }
        file.seek(head.size)
        restored = False
        for line in file:
            following = _following(line, head)
            if isinstance(following, str):
                break
            head = following
            restored = restored or head.hash not in ours
        file.truncate(head.size)
        if restored:
            _LOG.warning("database is older than audit file", extra={"event": "audit_restored"})
            self._chain_anew(head)
        self._mark(file, head)
        return head

    def _chain_anew(self, head: Head) -> None:
        """Chain the unwritten records to the end of a file that the database did not know."""
        with self._database.transaction() as connection:
            lines = connection.execute("SELECT line FROM audit ORDER BY seq").fetchall()
            connection.execute("DELETE FROM audit")
            seq, previous = head.seq, head.hash
            for (line,) in lines:
                record = json.loads(line)
                del record["hash"]
                seq += 1
                previous = _insert(connection, seq, previous, record)
            connection.execute("UPDATE audit_file SET seq = ?, hash = ?", (head.seq, head.hash))
            append(connection, self._database.clock(), "database_restored", {"after": head.seq})

    def _mark(self, file: BinaryIO, head: Head) -> None:
        """Sync the file; then the records in it are no longer needed in the database."""
        file.flush()
        os.fsync(file.fileno())
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE audit_file SET seq = ?, hash = ?, size = ?",
                (head.seq, head.hash, head.size),
            )
            connection.execute("DELETE FROM audit WHERE seq <= ?", (head.seq,))


def known_head(database: Database) -> Head:
    """Up to where the database knows the file to be on disk."""
    (row,) = database.rows("SELECT seq, hash, size FROM audit_file")
    return Head(row["seq"], row["hash"], row["size"])


def verify(path: Path, expected_head: Head | None = None) -> Verification:
    """Check every record of an audit file.

    Args:
        path: the file; one that is missing is an empty one.
        expected_head: from `known_head`, or noted elsewhere: the file must contain this record.

    Raises:
        Fault: the file cannot be read.
    """
    head = START
    try:
        with _locked(path, exclusive=False) as file:
            for line in file:
                following = _following(line, head)
                if isinstance(following, str):
                    return Verification(head.seq, f"Record {head.seq + 1}: {following}.")
                head = following
                if (
                    expected_head is not None
                    and head.seq == expected_head.seq
                    and head.hash != expected_head.hash
                ):
                    problem = f"Record {head.seq}: not the one that was written."
                    return Verification(head.seq - 1, problem)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise Fault(f"{path} cannot be read ({type(error).__name__}).") from error
    if expected_head and head.seq < expected_head.seq:
        problem = f"Record {head.seq + 1}: missing, and all to {expected_head.seq} that were there."
        return Verification(head.seq, problem)
    return Verification(head.seq, None)


def _following(line: bytes, head: Head) -> Head | str:
    """The place after this line, if it follows `head`; else what is wrong with it."""
    if not line.endswith(b"\n"):
        return "cut short"
    try:
        record: Any = json.loads(line)
        claimed = record.pop("hash")
        canonical = _canonical(record)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return "not a record"
    if record.get("seq") != head.seq + 1:
        return f"another stands in its place (number {record.get('seq')!r:.20})"
    if hashlib.sha256(canonical).hexdigest() != claimed:
        return "changed after it was written"
    if record.get("previous") != head.hash:
        return "not chained to the one before it"
    return Head(head.seq + 1, claimed, head.size + len(line))


@contextmanager
def _locked(path: Path, *, exclusive: bool = True) -> Iterator[BinaryIO]:
    """The file, while no other process writes to it."""
    flags = os.O_RDWR | os.O_CREAT if exclusive else os.O_RDONLY
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b" if exclusive else "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield file
