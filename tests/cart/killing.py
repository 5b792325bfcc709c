"""Kills a cart at random moments while studies flow, and says what became of every one of them.

The cart is a process of its own; with `power_cut` a kill also throws away what was not synced.
Senders resend whatever was not acknowledged; the PACS in this process counts what arrives.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from flowing import DX, Pacs, Setup, dicom_destination, study, wait_for
from power_cut import PowerCut
from pydicom import Dataset, dcmread
from pynetdicom import AE
from small_study import PATIENT_ID

from hipnet_edge.cart.audit import known_head, verify
from hipnet_edge.cart.queue import Queue
from hipnet_edge.cart.records import State
from hipnet_edge.cart.store import ObjectStore
from hipnet_edge.evaluation.daily import DAILY_FILE, read_days

SENDERS = 4
LONGEST_LIFE_S = 1.2
"""How long the cart is let live at most, from when it listens."""
LONGEST_START_S = 0.6
"""One life in five ends within this time of its beginning: mostly before the cart listens."""
_WAITS = "[assemble]\nsettle_s = 0.2\nlone_view_timeout_s = 6.0"
_RESULT_OBJECTS = 4


@dataclass
class Figures:
    """What came of a run."""

    studies: int
    kills: int
    seed: int
    power_cut: bool
    delivered: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    objects: int = 0
    sent_again_to_pacs: int = 0
    images_acknowledged: int = 0
    images_sent_again: int = 0
    audit_records: int = 0
    lives_that_listened: int = 0
    seconds: float = 0.0


def traffic(count: int) -> tuple[list[list[bytes]], Mapping[str, set[str]]]:
    """Studies as files, and for those that must be refused the reasons that are right."""
    studies, refused = [], {}
    for seed in range(1, count + 1):
        uid = f"1.2.3.{seed}"
        if seed % 20 == 5:
            files, refused[uid] = study(seed, ["ap"]), {"missing_view"}
        elif seed % 20 == 10:
            files, refused[uid] = study(seed, BodyPartExamined="CHEST"), {"not_a_hip"}
        elif seed % 20 == 15:
            other = study(seed, ["lateral"], PatientID=f"{PATIENT_ID}-2")
            # Where kills part the two for longer than a lone view waits, each misses the other.
            files = study(seed, ["ap"]) + other
            refused[uid] = {"different_patients", "missing_view"}
        else:
            files = study(seed)
        studies.append(files)
    return studies, refused


class Sender(threading.Thread):
    """Sends studies, each image again and again until it is acknowledged."""

    def __init__(self, port: int, studies: list[list[bytes]], pause_s: float) -> None:
        super().__init__(daemon=True)
        self._port, self._pause_s = port, pause_s
        self._studies = [[dcmread(BytesIO(file)) for file in files] for files in studies]
        self.acknowledged: set[str] = set()
        self.tries = 0
        self.giving_up = threading.Event()

    def run(self) -> None:
        entity = AE("XRAY1")
        entity.add_requested_context(DX, "1.2.840.10008.1.2.1")
        entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = 5
        association = None
        for images in self._studies:
            for image in images:
                while not self.giving_up.is_set():
                    if association is None or not association.is_established:
                        association = entity.associate("127.0.0.1", self._port, ae_title="HIPNET")
                        if not association.is_established:
                            time.sleep(0.05)
                            continue
                    if self._is_taken(association, image):
                        break
            time.sleep(self._pause_s)
        if association is not None and association.is_established:
            association.release()

    def _is_taken(self, association, image: Dataset) -> bool:
        self.tries += 1
        try:
            status = association.send_c_store(image)
        except (RuntimeError, ValueError, OSError):
            return False
        if status.get("Status") != 0:
            return False
        self.acknowledged.add(str(image.SOPInstanceUID))
        return True


def run(
    folder: Path, bundle: Path, *, studies: int, kills: int, seed: int, power_cut: bool
) -> Figures:
    """One run; raises AssertionError if anything was lost, doubled or left undone."""
    figures, started = Figures(studies, kills, seed, power_cut), time.monotonic()
    setup, pacs, draw = Setup(folder, bundle), Pacs(), random.Random(seed)
    config = setup.write(dicom_destination("pacs", pacs.port), page=False, more=_WAITS)
    power = PowerCut(setup.data, folder / "shadow") if power_cut else None
    sent, must_be_refused = traffic(studies)
    pause_s = 0.6 * kills * LONGEST_LIFE_S / 2 / (studies / SENDERS)
    senders = [Sender(setup.port, sent[n::SENDERS], pause_s) for n in range(SENDERS)]
    with pacs.open():
        for sender in senders:
            sender.start()
        try:
            for _ in range(kills):
                process = _serve(setup, config, power)
                if draw.random() < 0.2:
                    time.sleep(draw.uniform(0, LONGEST_START_S))
                else:
                    wait_for(lambda: _listens(setup), 60)
                    time.sleep(draw.uniform(0, LONGEST_LIFE_S))
                assert process.poll() is None, "the cart ended by itself"
                process.kill()
                process.wait()
                if power is not None:
                    power.cut()
            process = _serve(setup, config, power)
            try:
                _wait_for_the_end(setup, senders, figures, must_be_refused)
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=15) == 0
            finally:
                process.kill()
                process.wait()
        finally:
            for sender in senders:
                sender.giving_up.set()
    figures.images_sent_again = sum(s.tries - len(s.acknowledged) for s in senders)
    log = (folder / "serve.log").read_text()
    figures.lives_that_listened = log.count('"message": "ready"')
    acknowledged = set().union(*(sender.acknowledged for sender in senders))
    _examine(setup, pacs, acknowledged, must_be_refused, figures)
    figures.seconds = round(time.monotonic() - started, 1)
    return figures


def _serve(setup: Setup, config: Path, power: PowerCut | None) -> subprocess.Popen[bytes]:
    extra = {} if power is None else power.environment()
    with (setup.folder / "serve.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "hipnet_edge", "serve", "--config", str(config)],
            stdout=log,
            stderr=log,
            env={**os.environ, **extra},
        )


def _listens(setup: Setup) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", setup.port)) == 0


def _wait_for_the_end(
    setup: Setup, senders: list[Sender], figures: Figures, must_be_refused: Mapping[str, set[str]]
) -> None:
    """Until everything was acknowledged and nothing is left to do; no more cuts come."""
    wait_for(lambda: not any(sender.is_alive() for sender in senders), 300)
    queue = Queue(setup.data / "cart.sqlite3", pseudonym=str)
    try:
        wanted = figures.studies - len(must_be_refused)

        def ended() -> bool:
            counts = queue.counts()
            assert not counts[State.FAILED], [(c.id, c.reason) for c in queue.cases()[:5]]
            waiting = counts[State.RECEIVED] + counts[State.ASSEMBLED] + counts[State.PREDICTED]
            return not waiting and counts[State.DELIVERED] >= wanted

        wait_for(ended, 600)
    finally:
        queue.close()


def _examine(
    setup: Setup,
    pacs: Pacs,
    acknowledged: set[str],
    must_be_refused: Mapping[str, set[str]],
    figures: Figures,
) -> None:
    """Hold what is in the data folder and in the PACS against what was sent."""
    store, queue = (
        ObjectStore(setup.data / "objects"),
        Queue(setup.data / "cart.sqlite3", pseudonym=str),
    )
    try:
        missing = [uid for uid in acknowledged if queue.instance(uid) is None]
        assert not missing, f"acknowledged and lost: {missing}"
        for uid in acknowledged:
            instance = queue.instance(uid)
            assert instance is not None
            assert len(store.read(instance.file)) == instance.size
        cases = queue.cases(limit=10 * figures.studies)
        by_study: dict[str, list[tuple[State, str | None]]] = {}
        delivered: Counter[str] = Counter()
        for case in cases:
            by_study.setdefault(case.study_instance_uid, []).append((case.state, case.reason))
            for item in queue.objects(case.id):
                delivered[item.sop_instance_uid] += 1
        for seed in range(1, figures.studies + 1):
            uid = f"1.2.3.{seed}"
            states = {state for state, _ in by_study[uid]}
            if uid in must_be_refused:
                reasons = {reason for _, reason in by_study[uid]}
                assert states == {State.REFUSED}, (uid, by_study[uid])
                assert reasons <= must_be_refused[uid], (uid, reasons)
            else:
                assert [s for s, _ in by_study[uid]] == [State.DELIVERED], (uid, by_study[uid])
        good = figures.studies - len(must_be_refused)
        assert set(delivered.values()) == {1}
        assert delivered.keys() == pacs.received.keys()
        assert len(delivered) == _RESULT_OBJECTS * good
        # What was sent twice, since the kill came before the queue knew, was the same both times.
        assert all(len(contents) == 1 for contents in pacs.contents.values())
        days = read_days(setup.data / DAILY_FILE).values()
        assert sum(day.studies for day in days) == good
        counted = sum((day.refused for day in days), Counter[str]())
        assert counted == Counter(c.reason for c in cases if c.state is State.REFUSED)
        found = verify(setup.data / "audit.jsonl", known_head(queue.database))
        assert found.problem is None, found.problem
    finally:
        queue.close()
    figures.delivered, figures.objects = good, len(delivered)
    figures.refused = dict(Counter(c.reason or "" for c in cases if c.state is State.REFUSED))
    figures.sent_again_to_pacs = sum(pacs.received.values()) - len(pacs.received)
    figures.images_acknowledged, figures.audit_records = len(acknowledged), found.records
