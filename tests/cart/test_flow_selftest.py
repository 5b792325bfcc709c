"""The self-test of a running cart: what it says is told, and a failure stops the reading."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from flowing import Setup, audit_events, finished, get, running, study, wait_for
from small_bundle import declared, write_bundle

from hipnet_edge.cart.records import State
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


def test_it_is_repeated_and_can_be_switched_off(tmp_path, tested):
    setup = Setup(tmp_path, tested)
    often = "[selftest]\nevery_h = 0.0001"
    with running(setup, setup.configuration(page=False, more=often)) as cart:
        wait_for(lambda: len(cart.queue.database.rows("SELECT 1 FROM audit_file WHERE seq > 3")))
    assert len(selftests(setup)) > 1
    before = len(selftests(setup))
    with running(setup, setup.configuration(page=False, more="[selftest]\nevery_h = 0")):
        time.sleep(0.3)
    assert len(selftests(setup)) == before


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
        wait_for(lambda: not cart.engine.trusted)
        wait_for(lambda: cart.not_ready() == ["selftest"])
        status, said = get(setup, "/readyz")
        assert (status, b"selftest" in said) == (503, True)
        assert b"hipnet_selftest_passed 0.0" in get(setup, "/metrics")[1]
        for file in study(1):
            assert cart.admission.admit(file, source="upload").accepted
        wait_for(lambda: cart.queue.counts()[State.ASSEMBLED] == 1)
        time.sleep(0.5)
        assert cart.queue.counts()[State.ASSEMBLED] == 1
        # Something else than the network was at fault, and the test passes again.
        cart.engine.trusted = True
        wait_for(lambda: finished(cart.queue))
    # The second time it was another predictor, loaded anew.
    assert selftests(setup) == [("failed", ["pattern 0"])] * 2
