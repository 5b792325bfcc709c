"""What the queue does with images that come late, again or otherwise, and with its own file."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from keep_made import Kept, pair
from power_cut import memory_folder

from hipnet_edge.cart.queue import Admitted, NewCase, NewRefusal, Queue, Settlement, State
from hipnet_edge.cart.schema import MIGRATIONS, QueueUnusable, migrate
from hipnet_edge.errors import Fault, UsageError


@pytest.fixture
def kept() -> Iterator[Kept]:
    with memory_folder() as folder:
        made = Kept(folder, time.time)
        yield made
        made.queue.close()


def admit(kept: Kept, uid: str, view: str, content: bytes = b"") -> Admitted:
    return kept.queue.admit(kept.image(uid, view, "study", content))


def settle(kept: Kept, settlement: Settlement) -> None:
    (study,) = kept.queue.waiting_studies()
    assert kept.queue.settle(study, settlement)


def missing(ap: str, side: str = "left") -> NewRefusal:
    return NewRefusal(ap, None, side, "missing_view", "There is no lateral.")


def test_a_lateral_that_comes_late_is_no_longer_missing(kept):
    admit(kept, "ap", "ap")
    settle(kept, Settlement(refused=(missing("ap"),)))
    assert [case.state for case in kept.queue.cases()] == [State.REFUSED]
    admit(kept, "lateral", "lateral")
    (study,) = kept.queue.waiting_studies()
    assert study.new == {"lateral"}
    settle(kept, pair(study))
    (case,) = kept.queue.cases()
    assert case.state is State.ASSEMBLED
    assert [i.view for i in kept.queue.sources(case)] == ["ap", "lateral"]


def test_a_refusal_of_the_other_side_stays(kept):
    admit(kept, "ap", "ap")
    left = missing("ap", "left")
    settle(kept, Settlement(refused=(left, missing("ap", "right"))))
    admit(kept, "lateral", "lateral")
    settle(kept, Settlement(cases=(NewCase("ap", "lateral", "right"),), refused=(left,)))
    assert {(c.laterality, c.state) for c in kept.queue.cases()} == {
        ("left", State.REFUSED),
        ("right", State.ASSEMBLED),
    }


def test_another_image_of_the_same_uid_counts_until_a_case_has_it(kept):
    assert admit(kept, "ap", "ap") is Admitted.NEW
    settle(kept, Settlement(refused=(missing("ap"),)))
    assert admit(kept, "ap", "ap") is Admitted.DUPLICATE
    assert kept.queue.waiting_studies() == []
    assert admit(kept, "ap", "ap", b"better") is Admitted.REPLACED
    assert kept.queue.cases() == []
    admit(kept, "lateral", "lateral")
    settle(kept, Settlement(cases=(NewCase("ap", "lateral", "left"),)))
    assert admit(kept, "ap", "ap", b"other") is Admitted.CONFLICT
    assert kept.store.read(kept.queue.instance("ap").file) == b"apbetter"


def test_a_study_is_not_settled_when_something_came_meanwhile(kept):
    admit(kept, "ap", "ap")
    (study,) = kept.queue.waiting_studies()
    admit(kept, "lateral", "lateral")
    assert not kept.queue.settle(study, Settlement(refused=(missing("ap"),)))
    (study,) = kept.queue.waiting_studies()
    admit(kept, "ap", "ap", b"replaced")
    assert not kept.queue.settle(study, pair(study))
    assert kept.queue.cases() == []


def test_an_image_that_no_settlement_names_goes_on_waiting(kept):
    admit(kept, "ap", "ap")
    admit(kept, "knee", "ap")
    settle(kept, Settlement(unused=(("knee", "not_a_hip"),)))
    (study,) = kept.queue.waiting_studies()
    assert study.new == {"ap"}
    assert kept.queue.counts()[State.RECEIVED] == kept.queue.backlog() == 1


def test_no_row_names_a_file_that_is_not_there(kept):
    image = kept.image("ap", "ap", "study")
    kept.store.remove(image.file)
    with pytest.raises(Fault, match="not kept"):
        kept.queue.admit(image)
    assert kept.queue.waiting_studies() == []
    assert kept.queue.admit(kept.image("ap", "ap", "study")) is Admitted.NEW


def test_a_case_that_ends_the_process_is_seen_to_have_been_tried(kept):
    admit(kept, "ap", "ap")
    admit(kept, "lateral", "lateral")
    settle(kept, Settlement(cases=(NewCase("ap", "lateral", "left"),)))
    for attempt in (1, 2, 3):
        case = kept.queue.claim(time.time() + 1000 * attempt)
        assert case is not None
        assert case.attempts == attempt
        assert kept.queue.claim(time.time() + 1000 * attempt) is None
        kept.queue.close()
        kept.queue = Queue(kept.data / "cart.sqlite3", pseudonym=str)


def test_a_step_that_does_not_fit_is_refused_and_changes_nothing(kept):
    admit(kept, "ap", "ap")
    settle(kept, Settlement(refused=(missing("ap"),)))
    (case,) = kept.queue.cases()
    with pytest.raises(UsageError, match="refused, not failed"):
        kept.queue.retry(case.id)
    with pytest.raises(Fault, match="not assembled"):
        kept.queue.predicted(case.id, *kept.results(case.id), {})
    with pytest.raises(UsageError, match="no case 99"):
        kept.queue.case(99)
    assert kept.queue.cases() == [case]


def test_many_threads_at_once(kept):
    """Senders, workers and lookers: every case is read once, every image is there."""
    read: list[int] = []
    stop = threading.Event()

    def send(sender: int) -> None:
        for n in range(10):
            for view in ("ap", "lateral"):
                uid = f"{sender}.{n}.{view}"
                assert kept.queue.admit(kept.image(uid, view, uid[:-3])) is Admitted.NEW

    def assemble() -> None:
        for study in kept.queue.waiting_studies():
            kept.queue.settle(study, Settlement(unused=tuple((u, "spare") for u in study.new)))

    def look() -> None:
        assert sum(kept.queue.counts().values()) >= 0
        kept.trail.flush()

    failures: list[BaseException] = []

    def again(step: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                step()
        except BaseException as error:
            failures.append(error)

    def work() -> None:
        for case in [kept.queue.claim(time.time())]:
            if case is not None:
                read.append(case.id)
                kept.queue.predicted(case.id, *kept.results(case.id), {})

    for n in range(20):
        for view in ("ap", "lateral"):
            kept.queue.admit(kept.image(f"w{n}.{view}", view, f"w{n}"))
    for study in kept.queue.waiting_studies():
        kept.queue.settle(study, pair(study))
    helpers = [
        threading.Thread(target=again, args=(step,)) for step in (assemble, look, work, work)
    ]
    senders = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in (*helpers, *senders):
        thread.start()
    for sender in senders:
        sender.join()
    while kept.queue.counts()[State.ASSEMBLED] and not failures:
        time.sleep(0.01)
    stop.set()
    for helper in helpers:
        helper.join()
    assert failures == []
    assert sorted(read) == sorted(case.id for case in kept.queue.cases())
    assert len(read) == 20
    assert kept.told()["instance_new"] == 120


def fill(kept: Kept) -> None:
    for n in range(100):
        admit(kept, f"more.{n}", "ap")


def test_a_full_disk_changes_nothing_and_is_no_end(kept):
    admit(kept, "ap", "ap")
    with kept.queue.database.transaction() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    kept.queue.database.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(QueueUnusable, match="cannot be written"):
        fill(kept)
    kept.queue.database.rows("PRAGMA max_page_count = 1000000")
    before = kept.told()["instance_new"]
    assert len(kept.queue.waiting_studies()[0].instances) == before
    assert admit(kept, "after", "ap") is Admitted.NEW


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_a_database_that_cannot_be_opened_is_said_to_be_so(tmp_path, content):
    path = tmp_path / "cart.sqlite3"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(QueueUnusable, match="cannot be opened"):
        Queue(path, pseudonym=str)


def test_an_older_database_is_brought_up_to_date_and_a_newer_one_refused(tmp_path):
    path = tmp_path / "cart.sqlite3"
    kept = Kept(tmp_path, time.time)
    admit(kept, "ap", "ap")
    kept.queue.close()
    newer = (*MIGRATIONS, ("ALTER TABLE instances ADD COLUMN room TEXT DEFAULT 'x-ray 1'",))
    connection = sqlite3.connect(path, isolation_level=None)
    broken = (*MIGRATIONS, (newer[-1][0], "CREATE TABLE instances (again)"))
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, broken)
    assert columns(connection) == {*columns(connection)} - {"room"}
    migrate(connection, newer)
    migrate(connection, newer)
    assert connection.execute("SELECT sop_instance_uid, room FROM instances").fetchall() == [
        ("ap", "x-ray 1")
    ]
    connection.close()
    with pytest.raises(QueueUnusable, match=r"version 3, and this hipnet-edge knows .* up to 2"):
        Queue(path, pseudonym=str)


def columns(connection: sqlite3.Connection) -> set[str]:
    return {row[1] for row in connection.execute("PRAGMA table_info(instances)")}


def test_the_files_are_for_their_user_alone(tmp_path):
    kept = Kept(tmp_path / "data", time.time)
    admit(kept, "ap", "ap")
    kept.trail.flush()
    modes = {path.name: path.stat().st_mode & 0o077 for path in Path(kept.data).rglob("*")}
    assert {"cart.sqlite3", "cart.sqlite3-wal", "audit.jsonl", "objects"} < modes.keys()
    assert set(modes.values()) == {0}
    kept.queue.close()


def test_a_clock_that_was_set_back_holds_nothing_up(kept):
    admit(kept, "ap", "ap")
    admit(kept, "lateral", "lateral")
    settle(kept, Settlement(cases=(NewCase("ap", "lateral", "left"),)))
    now = time.time()
    assert kept.queue.claim(now - 60) is None
    case = kept.queue.claim(0.0)
    assert case is not None
    kept.queue.predicted(case.id, *kept.results(case.id), {"pacs": ("report",)})
    assert kept.queue.due("pacs", now - 60, 9) == []
    assert len(kept.queue.due("pacs", 0.0, 9)) == 1


def test_a_second_patient_in_a_study_is_a_study_of_its_own(kept):
    admit(kept, "ap", "ap")
    kept.queue.admit(replace(kept.image("lateral", "lateral", "study"), patient_key="another"))
    assert [len(study.instances) for study in kept.queue.waiting_studies()] == [1, 1]
