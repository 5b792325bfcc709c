"""What the queue has acknowledged is there after the power was cut, at whatever moment."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from keep_made import KINDS, Kept
from power_cut import PowerCut, memory_folder

from hipnet_edge.cart.queue import State

PROCESS = Path(__file__).with_name("keep_process.py")
AS_FAR_AS = {"assembled": 0, "predicted": 1, "delivered": 2}


def run_and_kill(power: PowerCut, run: int, seconds: float) -> list[list[str]]:
    """Let the process work for so long; returns what it has acknowledged."""
    with subprocess.Popen(
        [sys.executable, str(PROCESS), str(power.root), str(run)],
        env={**os.environ, **power.environment()},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        # Now and then the opening itself is interrupted, that of the first time too.
        said = process.stdout.readline() if run % 4 else ""
        time.sleep(seconds)
        process.kill()
        said += process.stdout.read()
    assert process.returncode == -9
    return [line.split() for line in said.splitlines(keepends=True) if line.endswith("\n")]


def check(data: Path, acknowledged: list[list[str]], copy: Path) -> None:
    """Open a copy of what is left, and hold it against what was acknowledged."""
    shutil.copytree(data, copy)
    kept = Kept(copy, time.time)
    cases = {case.id: case for case in kept.queue.cases(limit=-1)}
    studies = {case.study_instance_uid for case in cases.values()}
    for word, *names in acknowledged:
        if word == "admit":
            instance = kept.queue.instance(names[0])
            assert instance is not None
            assert kept.store.read(instance.file) == names[0].encode()
        elif word == "assembled":
            assert names[0] in studies
        elif word == "predicted":
            assert AS_FAR_AS[cases[int(names[0])].state.value] >= 1
        elif word == "sent":
            sent = {
                (d.destination, d.object.sop_instance_uid)
                for d in kept.queue.deliveries(int(names[0]))
                if d.state == "sent"
            }
            assert (names[1], names[2]) in sent
    for name in kept.queue.files_in_use():
        kept.store.read(name)
    pairs = Counter((case.ap, case.lateral) for case in cases.values())
    assert not pairs or max(pairs.values()) == 1
    assert kept.told()["instance_new"] == len(
        kept.queue.database.rows("SELECT sop_instance_uid FROM instances")
    )
    kept.queue.close()
    shutil.rmtree(copy)


@pytest.mark.parametrize(
    "seed", [None, 1], ids=["nothing unsynced survives", "part of it survives"]
)
def test_what_was_acknowledged_survives_power_cuts(seed):
    with memory_folder() as folder:
        power = PowerCut(folder / "data", folder / "shadow", seed=seed)
        moments = random.Random(7)
        acknowledged: list[list[str]] = []
        for run in range(12):
            acknowledged += run_and_kill(power, run, moments.uniform(0, 0.4))
            power.cut()
            check(power.root, acknowledged, folder / "copy")
        words = Counter(word for word, *_ in acknowledged)
        assert min(words["admit"], words["assembled"], words["predicted"], words["sent"]) > 20
        # Left alone, it brings everything to its end, and nothing was done twice.
        command = [sys.executable, str(PROCESS), str(power.root), "last", "3"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
        kept = Kept(power.root, time.time)
        for case in kept.queue.cases(limit=-1):
            assert case.state is State.DELIVERED
            assert len(kept.queue.objects(case.id)) == len(KINDS)
        kept.queue.close()
