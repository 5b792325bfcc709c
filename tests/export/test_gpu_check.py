"""The check of a GPU on a machine without one: it measures what it can and says what is missing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from small_bundle import declared, small_manifest, small_model, write_bundle

from benchmarks import gpu_check
from benchmarks.gpu_latency import latency
from hipnet_edge import EngineUnusable
from hipnet_edge.backends.tensorrt_flavour import require_driver


def test_percentiles_are_those_of_the_timed_calls_alone():
    calls = []
    report = latency(lambda: calls.append(None), runs=50, warm_up=7)
    assert len(calls) == 57
    assert report["runs"] == 50
    assert 0 <= report["p50_ms"] <= report["p95_ms"] <= report["p99_ms"] <= report["largest_ms"]


@pytest.mark.slow
def test_without_a_gpu_every_engine_says_why_and_the_check_fails(tmp_path):
    try:
        require_driver()
    except EngineUnusable:
        pass
    else:
        pytest.skip("this machine has an NVIDIA driver")
    files = {name: small_model() for name in ("fp32", "trt-int8", "trt-fp16")}
    manifest = small_manifest(files["fp32"])
    manifest["variants"] = {n: {"file": f"{n}.onnx", "dynamic_batch": False} for n in files}
    manifest["files"] = {f"{name}.onnx": declared(content) for name, content in files.items()}
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.onnx").write_bytes(content)
    write_bundle(folder, files["fp32"], manifest)
    out = tmp_path / "report.json"
    arguments = ["--bundle", str(folder), "--studies", "2", "--runs", "3", "--out", str(out)]
    ran = CliRunner().invoke(gpu_check.main, arguments)
    assert ran.exit_code == 1, ran.output
    report = json.loads(out.read_text())
    assert report["reference"]["p50_ms"] > 0
    assert len(report["engines"]) == 20
    assert all(engine["error"] for engine in report["engines"].values())
    of_tensorrt = {n: e for n, e in report["engines"].items() if n.startswith("tensorrt")}
    assert {engine["code"] for engine in of_tensorrt.values()} <= {
        "driver_missing",
        "missing_extra",
    }
    assert report["device_layer"]["code"] == "driver_missing"


def test_the_rival_in_pytorch_is_the_whole_network():
    torch = pytest.importorskip("torch", reason="torch (the export extra) is not installed")
    pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")
    from benchmarks.gpu_torch import Whole
    from export.network import channels_last, deploy

    network = deploy(Whole())
    channels_last(network)
    with torch.inference_mode():
        outputs = network(torch.zeros(1, 2, 64, 64))
    shapes = {name: tuple(value.shape) for name, value in outputs._asdict().items()}
    assert shapes == {
        "probabilities": (1, 5),
        "member_probabilities": (1, 4, 5),
        "maps": (1, 2, 5, 8, 8),
        "novelty": (1,),
    }


def test_an_engine_that_answers_otherwise_is_not_right():
    class Answer:
        def __init__(self, first: float) -> None:
            rest = (1.0 - first) / 4
            self.probabilities = np.array([[first, rest, rest, rest, rest]], np.float32)
            self.maps = np.zeros((1, 2, 5, 2, 2), np.float32)

    close = gpu_check._compare([Answer(0.6)], [Answer(0.61)], "tensorrt fp16")
    assert (close["right"], close["decision_flips"]) == (True, 0)
    far = gpu_check._compare([Answer(0.6)], [Answer(0.1)], "tensorrt fp16")
    assert (far["right"], far["decision_flips"]) == (False, 1)
    assert far["largest_probability_change"] == pytest.approx(0.5)
