"""On a CPU the fastest engine answers: found once by a measurement, remembered, and said."""

from __future__ import annotations

import json
import os

import onnxruntime
import pytest
from onnx import helper
from small_bundle import declared, small_manifest, small_model, write_bundle

from hipnet_edge import Bundle, MissingExtra
from hipnet_edge.backends import OnnxRuntimeBackend, OpenVinoBackend, choose_backend
from hipnet_edge.backends.plan_cache import PlanCache
from hipnet_edge.backends.race import race, remembered
from hipnet_edge.machine import int8_device
from hipnet_edge.verdict import Verdict

INT8 = Verdict("cpu-int8", "onnxruntime", onnxruntime.__version__, int8_device(), True, 9, "today")
DETOUR = 40
"""So many sines of every pixel make a network slow."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> PlanCache:
    monkeypatch.setenv("HIPNET_EDGE_PLANS", str(tmp_path / "plans"))
    return PlanCache()


def slow(model) -> None:
    """The same network after a long detour; what it computes is of no interest here."""
    names = ["view", *(f"sine{i}" for i in range(DETOUR))]
    for i in range(DETOUR):
        model.graph.node.insert(1 + i, helper.make_node("Sin", [names[i]], [names[i + 1]]))
    model.graph.node[1 + DETOUR].input[0] = names[-1]


def make_bundle(tmp_path, *verdicts: Verdict) -> Bundle:
    """A bundle whose INT8, though the gate has passed it, is much slower than its FP32."""
    files = {"fp32": small_model(), "cpu-int8": small_model(change=slow)}
    manifest = small_manifest(files["fp32"])
    manifest["variants"] = {n: {"file": f"{n}.onnx", "dynamic_batch": False} for n in files}
    manifest["files"] = {f"{name}.onnx": declared(content) for name, content in files.items()}
    manifest["gate"] = {"limits": {}, "verdicts": [vars(verdict) for verdict in verdicts or [INT8]]}
    folder = write_bundle(tmp_path / "bundle", files["fp32"], manifest)
    (folder / "cpu-int8.onnx").write_bytes(files["cpu-int8"])
    return Bundle.load(folder)


def write_down(cache: PlanCache, **changes: object) -> None:
    """Change what is remembered, to see whether it is what counts."""
    path = cache.folder / "choices.json"
    value = json.loads(path.read_text())
    for choice in value["choices"].values():
        choice.update(changes)
    path.write_text(json.dumps(value))


def test_the_slower_is_not_chosen_and_the_reason_gives_the_times(tmp_path):
    said: list[str] = []
    choice = choose_backend(make_bundle(tmp_path), threads=1, progress=said.append)
    assert choice.variant == "fp32"
    (found,) = remembered()
    times = found.measured_ms
    assert 2 * times["onnxruntime fp32"] < times["onnxruntime cpu-int8"]
    for label, ms in times.items():
        assert f"{label} {ms:.1f} ms" in choice.reason
    assert "the fastest of 2" in choice.reason
    assert said == ["measuring which of 2 engines is the fastest here"]


def test_what_was_found_is_remembered_and_named(tmp_path, cache):
    bundle = make_bundle(tmp_path)
    choose_backend(bundle, threads=1)
    write_down(cache, variant="cpu-int8", date="2001-02-03")
    said: list[str] = []
    choice = choose_backend(bundle, threads=1, progress=said.append)
    assert choice.variant == "cpu-int8"
    assert "2001-02-03" in choice.reason
    assert said == []
    # With other threads, or for another bundle, nothing was measured yet.
    assert choose_backend(bundle, threads=2).variant == "fp32"
    assert len(remembered()) == 2


def test_what_the_gate_refuses_since_then_is_not_used(tmp_path, cache):
    bundle = make_bundle(tmp_path)
    choose_backend(bundle, threads=1)
    write_down(cache, variant="cpu-int8")
    cache.record(bundle.network("cpu-int8"), Verdict(**{**vars(INT8), "passed": False}))
    choice = choose_backend(bundle, threads=1)
    assert choice.variant == "fp32"
    assert "the only one" in choice.reason


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 2}', '{"schema": 1, "choices": 3}'])
def test_a_damaged_memory_is_measured_anew_and_mended(tmp_path, cache, content):
    bundle = make_bundle(tmp_path)
    choose_backend(bundle, threads=1)
    (cache.folder / "choices.json").write_text(content)
    assert choose_backend(bundle, threads=1).variant == "fp32"
    assert len(remembered()) == 1


def test_what_could_not_be_kept_is_not_measured(tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path)
    monkeypatch.setenv("HIPNET_EDGE_PLANS", os.devnull)
    choice = choose_backend(bundle, threads=1)
    assert choice.variant == "cpu-int8"  # by the order of preference, however slow
    assert "nothing measured" in choice.reason
    assert "it passed the gate here" in choice.reason


def test_a_folder_that_others_can_write_is_not_believed(tmp_path, cache):
    bundle = make_bundle(tmp_path)
    choose_backend(bundle, threads=1)
    cache.folder.chmod(0o777)
    choice = choose_backend(bundle, threads=1)
    assert choice.variant == "cpu-int8"
    assert "nothing measured" in choice.reason


def test_of_equals_the_preferred_one_wins(tmp_path):
    bundle = make_bundle(tmp_path)
    entrants = [("fp32", OnnxRuntimeBackend.open(bundle, "fp32", threads=1)) for _ in range(2)]
    place, found = race(entrants)
    assert place == 0
    assert found.measured_ms["onnxruntime fp32"] > 0


def test_openvino_runs_against_onnx_runtime_where_both_passed(cache):
    bundle = Bundle.reference()
    try:
        identity = OpenVinoBackend.identify("cpu-int8")
    except MissingExtra as error:
        pytest.skip(error.message)
    here = Verdict("cpu-int8", "openvino", identity.version, identity.device, True, 9, "today")
    runtime = OnnxRuntimeBackend.identify("cpu-int8")
    for verdict in (here, Verdict(**{**vars(here), "backend": "onnxruntime", **vars(runtime)})):
        cache.record(bundle.network("cpu-int8"), verdict)
    choice = choose_backend(bundle)
    (found,) = remembered()
    assert {"openvino cpu-int8", "onnxruntime cpu-int8"} <= set(found.measured_ms)
    assert (choice.backend.name, choice.variant) == (found.backend, found.variant)
    assert choice.flags == frozenset()
    again = choose_backend(bundle)
    assert again.reason == choice.reason
    if again.backend.name == "openvino":
        assert again.backend.settings["network_from"] == "cache"
