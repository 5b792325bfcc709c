"""What is forgotten, what never is, and the commands for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from keep_made import KINDS, Kept, pair
from power_cut import memory_folder

from hipnet_edge.cart.identity import Pseudonyms
from hipnet_edge.cart.queue import State
from hipnet_edge.cart.retention import GRACE_S, Forgotten, Limits, apply, sweep
from hipnet_edge.cli import run

DAY = 86400.0
PLENTY = Limits(days=30, max_bytes=1 << 40, free_bytes=0)


class Aged:
    """A data folder with studies that ended on different days."""

    def __init__(self, data: Path) -> None:
        self.now = time.time() - 100 * DAY
        self.kept = Kept(data, lambda: self.now)

    def study(self, name: str, end: str, size: int = 1000) -> None:
        """Let a study arrive and go as far as `end`."""
        queue = self.kept.queue
        for view in ("ap", "lateral"):
            queue.admit(self.kept.image(f"{name}.{view}", view, name, bytes(size)))
        if end == "received":
            return
        (study,) = (s for s in queue.waiting_studies() if s.study_instance_uid == name)
        assert queue.settle(study, pair(study))
        if end == "assembled":
            return
        case = queue.claim(self.now)
        assert case is not None
        destinations = {} if end == "delivered" else {"pacs": KINDS}
        queue.predicted(case.id, *self.kept.results(case.id), destinations)
        for delivery in queue.due("pacs", self.now, 9) if end == "failed" else ():
            queue.delivery_postponed(delivery, "no_answer", None)

    def left(self) -> set[str]:
        rows = self.kept.queue.database.rows("SELECT study_instance_uid FROM instances")
        assert set(self.kept.store.names()) == self.kept.queue.files_in_use()
        return {row[0] for row in rows}

    def pass_days(self, days: float) -> None:
        self.now += days * DAY
        for name in self.kept.store.names():
            os.utime(self.kept.store.path(name), (self.now - GRACE_S - 1,) * 2)


@pytest.fixture
def aged() -> Iterator[Aged]:
    with memory_folder() as folder:
        made = Aged(folder)
        yield made
        made.kept.queue.close()


def test_by_age_what_is_finished_goes_and_nothing_else(aged):
    for end in ("delivered", "failed", "predicted", "assembled", "received"):
        aged.study(end, end)
    aged.pass_days(20)
    aged.study("new", "delivered")
    aged.pass_days(11)
    done = apply(aged.kept.queue, aged.kept.store, PLENTY, aged.now)
    assert done == Forgotten(studies=2, files=4 + 2 * (1 + len(KINDS)))
    assert aged.left() == {"predicted", "assembled", "received", "new"}
    assert aged.kept.told()["purged"] == 2
    assert apply(aged.kept.queue, aged.kept.store, PLENTY, aged.now) == Forgotten()


def test_for_want_of_room_the_oldest_go_but_no_dead_letter(aged):
    for number, end in enumerate(("failed", "delivered", "delivered", "delivered")):
        aged.study(f"{number}.{end}", end)
        aged.pass_days(1)
    stored = aged.kept.queue.stored_bytes()
    limits = Limits(days=30, max_bytes=stored - 2500, free_bytes=0)
    apply(aged.kept.queue, aged.kept.store, limits, aged.now)
    assert aged.left() == {"0.failed", "3.delivered"}
    full = Limits(days=30, max_bytes=1 << 40, free_bytes=1 << 60)
    apply(aged.kept.queue, aged.kept.store, full, aged.now)
    assert aged.left() == {"0.failed"}


def test_a_study_to_which_something_came_is_not_purged(aged):
    aged.study("study", "delivered")
    (listed,) = aged.kept.queue.finished_studies()
    aged.now += 1
    aged.kept.queue.admit(aged.kept.image("late", "ap", "study"))
    assert not aged.kept.queue.purge(listed, "age")
    assert aged.kept.queue.finished_studies() == []


def test_files_that_nobody_names_are_swept_when_they_are_old_enough(aged):
    kept = aged.kept
    same = kept.store.keep(b"of two")
    kept.queue.admit(kept.image("of", "ap", "study", b" two"))
    orphan = kept.store.keep(b"orphan")
    assert sweep(kept.queue, kept.store, time.time() + GRACE_S - 5) == 0
    assert sweep(kept.queue, kept.store, time.time() + GRACE_S + 5) == 1
    assert list(kept.store.names()) == [same.name]
    assert not kept.store.path(orphan.name).exists()


def test_a_file_kept_again_is_young_again(aged):
    kept = aged.kept
    first = kept.store.keep(b"content")
    os.utime(kept.store.path(first.name), (0, 0))
    kept.store.path(first.name).write_bytes(b"damaged")
    assert kept.store.keep(b"content") == first
    assert sweep(kept.queue, kept.store, time.time()) == 0
    assert kept.store.read(first.name) == b"content"


@pytest.fixture
def data(tmp_path) -> Path:
    """A stopped cart's folder with one delivered, one failed and one waiting case."""
    aged = Aged(tmp_path / "data")
    for end in ("delivered", "failed", "assembled"):
        aged.study(f"1.2.840.{end}", end)
    aged.kept.queue.close()
    Pseudonyms.load(aged.kept.data)
    return aged.kept.data


def test_commands_of_a_stopped_cart(data, capfd):
    at = ("--data", str(data))
    assert run(["queue", "list", *at]) == 0
    table = capfd.readouterr().out
    assert "assembled 1  predicted 0  delivered 1  refused 0  failed 1" in table
    assert "no_answer" in table
    assert "1.2.840" not in table
    assert run(["queue", "list", "--state", "failed", "--json", *at]) == 0
    (failed,) = json.loads(capfd.readouterr().out)["cases"]
    assert failed["state"] == "failed"
    assert run(["queue", "retry", str(failed["id"]), *at]) == 0
    assert run(["queue", "retry", str(failed["id"]), *at]) == 2
    assert "predicted, not failed" in capfd.readouterr().err
    assert run(["queue", "purge", "--older-than", "1", "--yes", *at]) == 0
    assert "1 studies purged" in capfd.readouterr().out
    assert run(["audit", "verify", *at]) == 0
    text = (data / "audit.jsonl").read_text()
    (data / "audit.jsonl").write_text(text.replace("instance_new", "instance_old", 1))
    assert run(["audit", "verify", *at]) == 1
    assert "Record 1: changed after it was written." in capfd.readouterr().err


def test_commands_beside_a_running_service(data):
    """The service's own connection sees what another process has done, and goes on."""
    kept = Kept(data, time.time)
    unfinished = kept.store.incoming / "arriving"
    unfinished.write_bytes(b"half of an image")
    for command in (["retry", "--all"], ["purge", "--older-than", "1", "--yes"]):
        arguments = [sys.executable, "-m", "hipnet_edge", "queue", *command, "--data", str(data)]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    assert unfinished.exists()
    assert kept.queue.counts()[State.PREDICTED] == 1
    assert kept.queue.counts()[State.DELIVERED] == 0
    case = kept.queue.claim(time.time())
    assert case is not None
    kept.queue.predicted(case.id, *kept.results(case.id), {})
    kept.told()
    kept.queue.close()


@pytest.mark.parametrize(
    "arguments", [[], ["--data", "/nonexistent"], ["--data", "a", "--config", "b"]]
)
def test_a_folder_that_is_none_is_said_to_be_so(arguments, capfd):
    assert run(["queue", "list", *arguments]) == 2
    assert not Path("/nonexistent").exists()
    assert capfd.readouterr().out == ""


def test_help_stays_light():
    script = "import sys; from hipnet_edge.cli import run; run(['--help']); print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert "hipnet_edge.cli" in loaded
    assert {"sqlite3", "pydantic", "pynetdicom", "hipnet_edge.cart.queue"}.isdisjoint(loaded)
