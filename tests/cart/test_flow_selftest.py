"""The self-test of a running cart: what it says is told, and a failure stops the reading."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from flowing import Setup, audit_events, get, running, study, wait_for
from keep_made import Kept, pair
from small_bundle import declared, write_bundle

from hipnet_edge.cart.engine import Engine
from hipnet_edge.cart.metrics import Levels, Metrics
from hipnet_edge.cart.records import State
from hipnet_edge.cart.selfcheck import SelfCheck
from hipnet_edge.selftest import SELFTEST_FILE, write_selftest


@pytest.fixture
def tested(tmp_path) -> Path:
    """A bundle that brings a self-test, of patterns alone."""
    folder = write_bundle(tmp_path / "tested")
    write_selftest(folder, [], precision="fp32", backend="onnxruntime")
    return folder


def expect_another_answer(folder: Path) -> None:
    """From now on this bundle's answers are wrong."""
    file, manifest = folder / SELFTEST_FILE, folder / "manifest.json"
    value = json.loads(file.read_text())
    pattern = value["answers"]["fp32"]["patterns"][0]["probabilities"]
    pattern["pji"], pattern["dislocation"] = pattern["dislocation"], pattern["pji"] + 0.1
    file.write_text(json.dumps(value))
    stated = json.loads(manifest.read_text())
    stated["files"][SELFTEST_FILE] = declared(file.read_bytes())
    manifest.write_text(json.dumps(stated))


def selftests(setup: Setup) -> list[tuple[object, object]]:
    events = audit_events(setup.data)
    return [(e["outcome"], e["failed"]) for e in events if e["event"] == "selftest"]


def test_a_passed_selftest_is_on_record(tmp_path, tested):
    setup = Setup(tmp_path, tested)
    with running(setup, setup.configuration()) as cart:
        wait_for(lambda: b"hipnet_selftest_passed 1.0" in get(setup, "/metrics")[1])
        (line,) = (
            line
            for line in get(setup, "/metrics")[1].decode().splitlines()
            if line.startswith("hipnet_selftest_time_seconds ")
        )
        assert abs(float(line.split()[1]) - time.time()) < 60
        assert cart.ready()
    assert selftests(setup) == [("passed", [])]


def test_it_can_be_switched_off(tmp_path, tested):
    setup = Setup(tmp_path, tested)
    with running(setup, setup.configuration(page=False, more="[selftest]\nevery_h = 0")):
        time.sleep(0.3)
    assert selftests(setup) == []


def test_a_bundle_without_one_is_told_of_and_read(tmp_path, bundle):
    setup = Setup(tmp_path, bundle)
    with running(setup, setup.configuration(page=False)) as cart:
        wait_for(lambda: "brings no self-test" in (tmp_path / "cart.log").read_text())
        assert b"hipnet_selftest_passed NaN" in cart.metrics.text()
        assert cart.ready()
    assert selftests(setup) == [("none", [])]


def test_after_a_failed_selftest_studies_wait(tmp_path, tested):
    expect_another_answer(tested)
    setup = Setup(tmp_path, tested)
    with running(setup, setup.configuration()) as cart:
        # The second time it is another predictor, loaded anew.
        wait_for(lambda: (tmp_path / "cart.log").read_text().count('"message": "self-test"') == 2)
        status, said = get(setup, "/readyz")
        assert (status, b"selftest" in said) == (503, True)
        assert cart.not_ready() == ["selftest"]
        assert b"hipnet_selftest_passed 0.0" in get(setup, "/metrics")[1]
        for file in study(1):
            assert cart.admission.admit(file, source="upload").accepted
        wait_for(lambda: cart.queue.counts()[State.ASSEMBLED] == 1)
        time.sleep(0.5)
        (case,) = cart.queue.cases()
        assert (case.state, case.attempts) == (State.ASSEMBLED, 0)
    assert selftests(setup) == [("failed", ["pattern 0"])] * 2


def test_it_is_repeated_in_a_pause_between_studies_and_trust_comes_back(tmp_path, tested):
    right = {name: (tested / name).read_bytes() for name in (SELFTEST_FILE, "manifest.json")}
    setup = Setup(tmp_path, tested)
    pinned = setup.configuration(pinned="allow_fallback = true").predict
    kept, now = Kept(setup.data, time.time), [0.0]
    engine = Engine(pinned)
    metrics = Metrics(lambda: Levels({}, 0, {}, 0, engine.trusted))
    check = SelfCheck(engine, kept.queue, metrics, 24, clock=lambda: now[0])

    def after(hours: float) -> int:
        """How many tests were done by the time that so many more hours have passed."""
        now[0] += hours * 3600
        check.step()
        return kept.told()["selftest"]

    expect_another_answer(tested)
    engine.load()
    assert (after(0), engine.trusted, engine.ready) == (1, False, False)
    for name, content in right.items():
        (tested / name).write_bytes(content)
    engine.load()  # as a worker does
    assert (after(0), engine.trusted) == (2, True)
    assert (after(23.9), after(0.2)) == (2, 3)
    for view in ("ap", "lateral"):
        kept.queue.admit(kept.image(view, view, "study"))
    (waiting,) = kept.queue.waiting_studies()
    kept.queue.settle(waiting, pair(waiting))
    assert (after(24.1), after(0.2)) == (3, 4)  # there was no pause for ten minutes
    engine.predictor.backend.close()  # the test finds it broken: no wrong answer, no verdict
    assert (after(25), engine.ready, engine.trusted) == (4, False, True)
    kept.queue.close()
