"""Which engine answers: by itself only what the gate passed here; and every result says so."""

from __future__ import annotations

import onnxruntime
import pytest
from small_bundle import declared, small_manifest, small_model, write_bundle

from hipnet_edge import Bundle, EngineUnusable, Predictor, Reason
from hipnet_edge.backends import BACKENDS, choose_backend
from hipnet_edge.backends.plan_cache import PlanCache
from hipnet_edge.machine import int8_device
from hipnet_edge.simulation import simulate_study, write_study
from hipnet_edge.verdict import Verdict
from hipnet_edge.vocabulary import Cause, Flag

INT8 = Verdict("cpu-int8", "onnxruntime", onnxruntime.__version__, int8_device(), True, 9, "today")
ON_A_GPU = Verdict("trt-int8", "tensorrt", "tensorrt 10.3.0", "Orin (8.7)", True, 9, "today")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A folder of plans of this test's own."""
    monkeypatch.setenv("HIPNET_EDGE_PLANS", str(tmp_path / "plans"))
    return PlanCache()


def make_bundle(tmp_path, *verdicts: Verdict) -> Bundle:
    """A bundle with three variants; the files differ, what they compute matters little here."""
    folder = write_bundle(tmp_path / "bundle")
    files = {
        name: small_model(scale=scale)
        for name, scale in (("fp32", 1.0), ("cpu-int8", 0.9), ("trt-int8", 0.8))
    }
    manifest = small_manifest(files["fp32"])
    manifest["variants"] = {n: {"file": f"{n}.onnx", "dynamic_batch": False} for n in files}
    manifest["files"] = {f"{name}.onnx": declared(content) for name, content in files.items()}
    if verdicts:
        manifest["gate"] = {"limits": {}, "verdicts": [vars(verdict) for verdict in verdicts]}
    for name, content in files.items():
        (folder / f"{name}.onnx").write_bytes(content)
    return Bundle.load(write_bundle(folder, files["fp32"], manifest))


def test_without_a_verdict_the_reference_answers_and_needs_none(tmp_path):
    choice = choose_backend(make_bundle(tmp_path), threads=1)
    assert (choice.backend.name, choice.variant) == ("onnxruntime", "fp32")
    assert choice.flags == frozenset()
    assert "reference" in choice.reason


@pytest.mark.parametrize("shipped", [True, False])
def test_a_verdict_of_the_bundle_or_of_this_device_lets_int8_be_chosen(tmp_path, cache, shipped):
    bundle = make_bundle(tmp_path, *([INT8] if shipped else []))
    if not shipped:
        cache.record(bundle.network("cpu-int8"), INT8)
    choice = choose_backend(bundle, threads=1)
    assert choice.variant == "cpu-int8"
    assert choice.backend.device == int8_device()
    assert choice.flags == frozenset()


@pytest.mark.parametrize(
    "change",
    [
        {"passed": False},
        {"device": "cpu-of-another-kind"},
        {"version": "0.1"},
        {"backend": "openvino"},
        {"variant": "trt-int8"},
    ],
)
def test_a_verdict_on_something_else_lets_nothing_be_chosen(tmp_path, change):
    verdict = Verdict(**{**vars(INT8), **change})
    assert choose_backend(make_bundle(tmp_path, verdict), threads=1).variant == "fp32"


def test_the_devices_own_verdict_counts_before_the_shipped_one(tmp_path, cache):
    bundle = make_bundle(tmp_path, INT8)
    cache.record(bundle.network("cpu-int8"), Verdict(**{**vars(INT8), "passed": False}))
    assert choose_backend(bundle, threads=1).variant == "fp32"


def test_what_has_no_verdict_runs_when_it_is_named_and_every_result_says_so(tmp_path):
    bundle = make_bundle(tmp_path)
    write_study(simulate_study(Cause.PJI, 3, pixel_spacing_mm=1.0), tmp_path)
    with Predictor(bundle, backend="onnxruntime", precision="int8", threads=1) as predictor:
        prediction = predictor.predict(tmp_path / "ap.dcm", tmp_path / "lateral.dcm")
        assert predictor.info()["backend"]["flags"] == ["not_gated"]
    assert Flag.NOT_GATED in prediction.flags
    assert prediction.provenance.variant == "cpu-int8"


def test_a_named_backend_without_any_verdict_asks_for_the_precision(tmp_path):
    with pytest.raises(EngineUnusable, match="passed the gate") as caught:
        choose_backend(make_bundle(tmp_path), "tensorrt")
    assert caught.value.code is Reason.ENGINE_UNAVAILABLE


def test_a_gpu_that_passed_here_and_is_gone_is_missed_aloud(tmp_path, cache):
    no_driver()
    bundle = make_bundle(tmp_path, ON_A_GPU)
    # A verdict on some other device is no reason to miss it on this one.
    assert choose_backend(bundle, threads=1).flags == frozenset()
    cache.record(bundle.network("trt-int8"), ON_A_GPU)
    choice = choose_backend(bundle, threads=1)
    assert (choice.backend.name, choice.variant) == ("onnxruntime", "fp32")
    assert choice.flags == {Flag.CPU_FALLBACK}
    assert "no NVIDIA driver" in choice.reason


def test_without_a_driver_a_named_gpu_engine_says_what_is_missing(tmp_path):
    no_driver()
    for name in ("tensorrt", "tensorrt-parts"):
        with pytest.raises(EngineUnusable) as caught:
            choose_backend(make_bundle(tmp_path), name, "int8")
        assert caught.value.code is Reason.DRIVER_MISSING


def test_onnx_runtimes_gpu_providers_say_when_they_are_not_there(tmp_path):
    for name, precision in (("onnxruntime-cuda", "fp32"), ("onnxruntime-tensorrt", "int8")):
        provider = BACKENDS[name].provider
        if provider in onnxruntime.get_available_providers():
            pytest.skip(f"ONNX Runtime has {provider} here")
        with pytest.raises(EngineUnusable, match=provider) as caught:
            choose_backend(make_bundle(tmp_path), name, precision)
        assert caught.value.code is Reason.ENGINE_UNAVAILABLE


def test_a_folder_of_plans_that_others_can_write_has_no_say(tmp_path, cache):
    bundle = make_bundle(tmp_path)
    cache.record(bundle.network("cpu-int8"), INT8)
    cache.folder.chmod(0o777)
    assert choose_backend(bundle, threads=1).variant == "fp32"


def no_driver():
    """Skip where a driver is: what its absence does cannot be seen there."""
    from hipnet_edge.backends.tensorrt_flavour import require_driver

    try:
        require_driver()
    except EngineUnusable:
        return
    pytest.skip("this machine has an NVIDIA driver")
