"""The watch folder: taken when quiet, nothing lost at a crash, no link followed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from receiving import Cart, cart, wait_until
from small_study import PATIENT_ID, dicom_bytes, pair, small_dicom

from hipnet_edge.cart.settings import Receive, Watch
from hipnet_edge.cart.watch import Watcher

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

AP, LATERAL = pair(7)


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class _Folder:
    """A watch folder that is looked at when the test says so."""

    def __init__(self, running: Cart, path: Path, **receive: object) -> None:
        self.path, self.clock = path, _Clock()
        path.mkdir(exist_ok=True)
        limits = Receive.model_validate({"any_caller": True, **receive})
        self.watcher = Watcher(
            Watch(folder=path, quiet_s=5.0),
            limits,
            running.admission,
            running.store.incoming,
            clock=self.clock,
        )

    def look(self, *, after: float) -> set[str]:
        """Look after so many seconds; what lies in the folder then."""
        self.clock.now += after
        self.watcher.look()
        return {p.relative_to(self.path).as_posix() for p in self.path.rglob("*")}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cart]:
    with cart(tmp_path / "data") as started:
        yield started
        started.check_kept()


@pytest.fixture
def folder(running: Cart, tmp_path: Path) -> _Folder:
    return _Folder(running, tmp_path / "inbox")


def test_a_study_is_taken_when_all_of_it_is_quiet(running: Cart, folder: _Folder) -> None:
    study = folder.path / "export" / "1"
    study.mkdir(parents=True)
    (study / "ap").write_bytes(AP[:5000])
    assert folder.look(after=1) == folder.look(after=4)  # not quiet for long enough
    (study / "ap").write_bytes(AP)  # the copy goes on
    folder.look(after=1)
    (study / "lateral").write_bytes(LATERAL)
    for _ in range(2):
        assert {"export/1/ap", "export/1/lateral"} <= folder.look(after=3)
    assert folder.look(after=3) == set()
    assert {i.source for i in running.instances().values()} == {"watch"}
    assert len(running.instances()) == 2


def test_what_is_refused_is_put_aside_with_its_reason(running: Cart, folder: _Folder) -> None:
    wrong = small_dicom("ap", 8)
    wrong.Modality = "CT"
    (folder.path / "letter.txt").write_text("Dear colleague")
    (folder.path / "ct.dcm").write_bytes(dicom_bytes(wrong))
    (folder.path / "cut.dcm").write_bytes(AP[:-900])
    (folder.path / "good.dcm").write_bytes(AP)
    (folder.path / ".hidden").write_bytes(AP)
    (folder.path / "empty").mkdir()
    folder.look(after=1)
    left = folder.look(after=6)
    reasons = {p.name: p.read_text() for p in (folder.path / "refused").glob("*.txt")}
    assert {name: text for name, text in reasons.items() if name != "letter.txt"} == {
        "letter.txt.txt": "not_dicom\n",
        "ct.dcm.txt": "wrong_modality\n",
        "cut.dcm.txt": "not_dicom\n",
    }
    assert left == {".hidden", "empty", "refused"} | {f"refused/{name}" for name in reasons} | {
        "refused/ct.dcm",
        "refused/cut.dcm",
    }
    assert list(running.instances()) == ["1.2.3.7.1"]
    (folder.path / "ct.dcm").write_bytes(AP[:200])  # the same name again
    folder.look(after=1)
    folder.look(after=6)
    assert len(list((folder.path / "refused").glob("*ct.dcm"))) == 2


def test_links_and_pipes_are_left_alone(running: Cart, folder: _Folder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "ap.dcm").write_bytes(AP)
    (folder.path / "link.dcm").symlink_to(outside / "ap.dcm")
    (folder.path / "study").symlink_to(outside)
    os.mkfifo(folder.path / "pipe.dcm")
    before = folder.look(after=1)
    assert folder.look(after=60) == before
    assert not running.instances()
    assert (outside / "ap.dcm").read_bytes() == AP


def test_a_folder_that_becomes_a_link_is_not_followed(
    running: Cart, folder: _Folder, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "ap").write_bytes(AP)
    (folder.path / "study").mkdir()
    os.link(outside / "ap", folder.path / "study" / "ap")
    folder.look(after=1)
    found = folder.watcher._found

    def swap() -> object:
        seen = found()
        (folder.path / "study").rename(tmp_path / "away")
        (folder.path / "study").symlink_to(outside)
        return seen

    folder.watcher._found = swap  # type: ignore[method-assign, assignment]
    folder.look(after=6)
    assert not running.instances()
    assert (outside / "ap").exists()


def test_no_room_leaves_the_file_where_it_is(tmp_path: Path) -> None:
    with cart(tmp_path / "data", min_free_mib=10**9) as full:
        folder = _Folder(full, tmp_path / "inbox")
        (folder.path / "ap").write_bytes(AP)
        folder.look(after=1)
        assert folder.look(after=6) == {"ap"}
    with cart(tmp_path / "data") as roomy:
        folder = _Folder(roomy, tmp_path / "inbox")
        folder.look(after=1)
        assert folder.look(after=6) == set()
        assert len(roomy.instances()) == 1
        too_large = _Folder(roomy, tmp_path / "inbox", max_object_mib=1)
        (too_large.path / "large").write_bytes(AP + bytes(2**20))
        too_large.look(after=1)
        assert too_large.look(after=6) == {"refused", "refused/large", "refused/large.txt"}


_CRASH = """
import os, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from receiving import cart
from test_watch import _Folder
import hipnet_edge.cart.watch as watch, hipnet_edge.cart.admission as admission
step = {step!r}
die = lambda *a, **k: os._exit(9)
with cart(Path({data!r})) as running:
    if step == "copied":
        running.store.keep = die
    elif step == "kept":
        running.queue.admit = die
    elif step == "queued":
        watch.os.unlink = die
    folder = _Folder(running, Path({inbox!r}))
    folder.look(after=1)
    folder.look(after=6)
"""


@pytest.mark.parametrize("step", ["copied", "kept", "queued"])
def test_a_crash_between_two_steps_loses_and_doubles_nothing(tmp_path: Path, step: str) -> None:
    inbox, data = tmp_path / "inbox", tmp_path / "data"
    inbox.mkdir()
    (inbox / "ap").write_bytes(AP)
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    script = _CRASH.format(paths=paths, step=step, data=str(data), inbox=str(inbox))
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert (inbox / "ap").exists()
    with cart(data) as again:
        folder = _Folder(again, inbox)
        folder.look(after=1)
        assert folder.look(after=6) == set()
        assert list(again.instances()) == ["1.2.3.7.1"]
        again.check_kept()
        assert PATIENT_ID not in str(again.events)


def test_it_watches_by_itself(running: Cart, tmp_path: Path) -> None:
    inbox = tmp_path / "made" / "inbox"
    limits = Receive.model_validate({"any_caller": True})
    watch = Watch(folder=inbox, quiet_s=0.2)
    watcher = Watcher(watch, limits, running.admission, running.store.incoming)
    watcher.start()
    (inbox / "ap").write_bytes(AP)
    wait_until(lambda: running.instances())
    watcher.stop()
    assert not list(inbox.iterdir())
