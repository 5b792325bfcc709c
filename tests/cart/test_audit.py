"""The audit file: every record chained to the one before, and every damage named."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator

import pytest
from keep_made import Kept
from power_cut import memory_folder

from hipnet_edge.cart.audit import Head, known_head, verify


@pytest.fixture
def kept() -> Iterator[Kept]:
    """With six records in its file."""
    with memory_folder() as folder:
        made = Kept(folder, time.time)
        for n in range(6):
            made.queue.note("started", number=n)
        made.trail.flush()
        yield made
        made.queue.close()


def test_records_leave_the_database_once_they_are_on_disk(kept):
    assert kept.queue.database.rows("SELECT * FROM audit") == []
    kept.queue.note("stopped")
    assert kept.trail.flush() == 1
    assert kept.trail.flush() == 0
    lines = [json.loads(line) for line in (kept.data / "audit.jsonl").read_text().splitlines()]
    assert [line["seq"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert lines[-1]["event"] == "stopped"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: [*lines[:2], lines[2].replace(b"started", b"stopped"), *lines[3:]],
         "Record 3: changed"),
        (lambda lines: [*lines[:2], *lines[3:]], "Record 3: another .* number 4"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], "Record 4: another .* number 3"),
        (lambda lines: [*lines[:2], b"\xff{]\n", *lines[3:]], "Record 3: not a record"),
        (lambda lines: [*lines[:2], b"[" * 100_000 + b"\n"], "Record 3: not a record"),
        (lambda lines: lines[:4], "Record 5: missing, and all to 6"),
        (lambda lines: [*lines[:5], lines[5][:-20]], "Record 6: cut short"),
        (lambda lines: [], "Record 1: missing"),
    ],
)  # fmt: skip
def test_the_damaged_record_is_named(kept, damage, said):
    path = kept.data / "audit.jsonl"
    assert verify(path, known_head(kept.queue.database)).problem is None
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    found = verify(path, known_head(kept.queue.database))
    assert found.problem is not None
    assert found.problem.startswith(said.partition(" .*")[0])
    assert found.records == int(said.partition(":")[0].removeprefix("Record ")) - 1


def test_a_chain_made_anew_is_sound_but_not_the_one_that_was_written(kept):
    """Hashing needs no secret: who can write the file can chain it anew, but for a known head."""
    path = kept.data / "audit.jsonl"
    with memory_folder() as folder:
        forger = Kept(folder, time.time)
        for n in range(6):
            forger.queue.note("started", number=n + 1)
        forger.trail.flush()
        forger.queue.close()
        shutil.copy(folder / "audit.jsonl", path)
    assert verify(path).problem is None
    found = verify(path, known_head(kept.queue.database))
    assert found.problem == "Record 6: not the one that was written."


@pytest.mark.parametrize("tail", [b'{"event":"tor', b"\0" * 5000, b"\n\n", b'{"seq":7}\n'])
def test_what_a_crash_left_behind_the_last_record_is_cut_off(kept, tail):
    path = kept.data / "audit.jsonl"
    with path.open("ab") as file:
        file.write(tail)
    kept.queue.note("started again")
    assert kept.trail.flush() == 1
    assert verify(path, known_head(kept.queue.database)) == verify(path)
    assert verify(path).records == 7


def test_records_on_disk_that_were_not_marked_are_not_written_twice(kept):
    """The crash came between the sync of the file and the mark in the database."""
    path = kept.data / "audit.jsonl"
    kept.queue.note("last")
    before = kept.queue.database.rows("SELECT seq, hash, line FROM audit")
    head = known_head(kept.queue.database)
    kept.trail.flush()
    content = path.read_bytes()
    with kept.queue.database.transaction() as connection:
        connection.execute("INSERT INTO audit VALUES (?, ?, ?)", tuple(before[0]))
        connection.execute(
            "UPDATE audit_file SET seq = ?, hash = ?, size = ?", (head.seq, head.hash, head.size)
        )
    assert kept.trail.flush() == 0
    assert path.read_bytes() == content
    assert known_head(kept.queue.database) == Head(7, before[0]["hash"], len(content))


def test_a_database_put_back_from_a_copy_goes_on_behind_the_newer_file(kept):
    copy = kept.data / "copy.sqlite3"
    kept.queue.database.rows("VACUUM INTO ?", str(copy))
    kept.queue.note("after the copy")
    kept.trail.flush()
    kept.queue.close()
    for suffix in ("-wal", "-shm"):
        (kept.data / f"cart.sqlite3{suffix}").unlink(missing_ok=True)
    copy.replace(kept.data / "cart.sqlite3")
    again = Kept(kept.data, time.time)
    again.queue.note("started from the copy")
    again.trail.flush()
    told = [
        json.loads(line)["event"] for line in (kept.data / "audit.jsonl").read_text().splitlines()
    ]
    assert told[6:] == ["after the copy", "started from the copy", "database_restored"]
    found = verify(kept.data / "audit.jsonl", known_head(again.queue.database))
    assert (found.records, found.problem) == (9, None)
    again.queue.close()


def test_a_file_that_was_cut_short_is_told_of_and_stays_visible(kept):
    path = kept.data / "audit.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    kept.trail.flush()
    assert b"audit_cut_short" in path.read_bytes()
    found = verify(path, known_head(kept.queue.database))
    assert found.problem is not None
    assert found.problem.startswith("Record 6:")
