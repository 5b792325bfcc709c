"""The gate passes what says the same, and refuses what does not, whatever it is that went wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tqdm", reason="tqdm is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import onnx
import onnxruntime
from click.testing import CliRunner
from onnx import numpy_helper
from tiny_bundle import Quantised

from export import gate
from export.bundle import add_variants
from export.gate_figures import Answers, compare, exact_interval, exceeded
from hipnet_edge.backends import choose_backend
from hipnet_edge.backends.openvino_runtime import import_openvino
from hipnet_edge.backends.plan_cache import PlanCache
from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import EngineUnusable, MissingExtra
from hipnet_edge.machine import bf16_instructions
from hipnet_edge.verdict import Gate, Limits

ROOT = Path(__file__).parents[2]


def run(bundle: Path, cohort: Path, out: Path, *more: str) -> Any:
    words = ["--bundle", bundle, "--cohort", cohort, "--out", out, "--threads", 1, *more]
    return CliRunner().invoke(gate.main, [str(word) for word in words])


def ruined(quantised: Quantised, folder: Path, factor: float) -> Path:
    """A copy of the bundle in which one backbone's activations have wrong scales."""
    model = onnx.load(quantised.bundle / "cpu-int8.onnx")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    steps = {
        node.input[1]
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        and node.input[0].startswith("south.")
        and not constants[node.input[1]].dims
    }
    assert len(steps) > 3
    for name in steps:
        wrong = numpy_helper.to_array(constants[name]) * np.float32(factor)
        constants[name].CopyFrom(numpy_helper.from_array(wrong, name))
    files = {"cpu-int8": model.SerializeToString()}
    add_variants(quantised.bundle, folder, files, Gate())
    return folder


def test_a_variant_that_says_the_same_passes(quantised: Quantised, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    out, page = tmp_path / "gate.json", tmp_path / "pages" / "gate.png"
    result = run(
        quantised.bundle, quantised.gate_cohort, out, "--variant", "cpu-int8", "--page", str(page)
    )
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["passed"]
    assert report["kind"] == "verdict"
    assert report["failed"] == []
    assert report["not_measured"] == ["map_pointing_drop"]  # nobody has drawn the disease
    assert set(report["figures"]) == set(report["limits"])
    assert report["engine"]["backend"] == "onnxruntime"
    assert report["studies"] == 50
    assert page.read_bytes().startswith(b"\x89PNG")


def test_one_backbone_with_ruined_scales_is_refused(quantised: Quantised, tmp_path: Path) -> None:
    bundle = ruined(quantised, tmp_path / "bundle", 0.05)
    out = tmp_path / "gate.json"
    result = run(bundle, quantised.gate_cohort, out, "--variant", "cpu-int8", "--record", "bundle")
    assert result.exit_code == 1
    report = json.loads(out.read_text())
    assert not report["passed"]
    assert "probability_change_p99" in report["failed"]
    # What was recorded says so to whoever loads the bundle.
    recorded = Bundle.load(bundle).manifest.gate
    assert recorded is not None
    assert [(verdict.variant, verdict.passed) for verdict in recorded.verdicts] == [
        ("cpu-int8", False)
    ]


def test_an_engine_that_gives_no_numbers_is_refused_with_its_reason(
    quantised: Quantised, tmp_path: Path
) -> None:
    model = onnx.load(quantised.source / "fp32.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "tail.cells_bias":
            poison = np.full(20, np.nan, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(poison, tensor.name))
    files = {"cpu-int8": model.SerializeToString()}
    add_variants(quantised.source, tmp_path / "bundle", files, Gate())
    out, page = tmp_path / "gate.json", tmp_path / "gate.svg"
    result = run(tmp_path / "bundle", quantised.gate_cohort, out, "--variant", "cpu-int8")
    assert result.exit_code == 1
    report = json.loads(out.read_text())
    assert report["failed"] == ["non_finite_output"]
    assert "figures" not in report
    assert not page.exists()


def test_a_rehearsal_is_called_one_and_is_never_recorded(
    quantised: Quantised, tmp_path: Path
) -> None:
    out, asked = tmp_path / "gate.json", ("--variant", "trt-fp16", "--rehearse")
    digest = Bundle.load(quantised.bundle).digest
    result = run(quantised.bundle, quantised.gate_cohort, out, *asked)
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text())["kind"] == "rehearsal"
    recorded = run(quantised.bundle, quantised.gate_cohort, out, *asked, "--record", "bundle")
    assert recorded.exit_code == 2
    assert "no verdict" in recorded.output
    assert Bundle.load(quantised.bundle).digest == digest


def test_int8_is_not_rehearsed_where_half_precision_is_cut_off(
    quantised: Quantised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "ROUNDS_HALF", (99, 0))
    out = tmp_path / "gate.json"
    result = run(
        quantised.bundle, quantised.gate_cohort, out, "--variant", "trt-int8", "--rehearse"
    )
    assert result.exit_code == 1
    assert "needs 99.0 or newer" in result.output
    assert not out.exists()


def test_this_onnx_runtime_rounds_if_we_say_so() -> None:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT16, [3])
    q = onnx.helper.make_tensor_value_info("q", onnx.TensorProto.INT8, [3])
    constants = {"scale": np.array(1, np.float16), "zero": np.array(0, np.int8)}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("QuantizeLinear", ["x", *constants], ["q"])],
        "rounding",
        [x],
        [q],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"x": np.array([1.7, -2.6, 3.2], np.float16)})
    assert found.tolist() == ([2, -3, 3] if gate.rounds_half() else [1, -2, 3])


def test_a_variant_that_no_engine_here_runs_is_refused(
    quantised: Quantised, tmp_path: Path
) -> None:
    out = tmp_path / "gate.json"
    asked = ("--variant", "trt-fp16", "--backend", "onnxruntime")
    result = run(quantised.bundle, quantised.gate_cohort, out, *asked)
    assert result.exit_code == 1
    assert "fp16" in result.output
    assert not out.exists()


def test_a_verdict_made_on_a_device_decides_what_is_chosen_there(
    quantised: Quantised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIPNET_EDGE_PLANS", str(tmp_path / "plans"))
    shipped = Bundle.load(quantised.bundle)
    # The precision is named: of networks as small as these INT8 need not be the fastest.
    assert choose_backend(shipped, precision="int8", threads=1).flags == frozenset()
    files = {"cpu-int8": shipped.model("cpu-int8")}
    strict = Gate(Limits(map_correlation=1.0))
    bundle = add_variants(quantised.source, tmp_path / "bundle", files, strict)
    judge = ("--variant", "cpu-int8", "--studies", "10", "--record", "device")
    out = tmp_path / "gate.json"
    assert run(bundle.path, quantised.gate_cohort, out, *judge).exit_code == 1
    (verdict,) = PlanCache().verdicts(bundle.network("cpu-int8"))
    assert not verdict.passed
    assert verdict.studies == 10
    assert Bundle.load(bundle.path).digest == bundle.digest
    # The network is the same: what this device found out counts more than what came with it.
    with pytest.raises(EngineUnusable, match="passed the gate"):
        choose_backend(shipped, precision="int8", threads=1)
    assert choose_backend(shipped, threads=1).variant == "fp32"


def test_the_gate_judges_openvino_and_bf16(quantised: Quantised, tmp_path: Path) -> None:
    try:
        import_openvino()
    except MissingExtra as error:
        pytest.skip(error.message)
    words = {"cpu-int8": ("--backend", "openvino"), "cpu-bf16": ()}
    for variant, engine in words.items():
        if variant == "cpu-bf16" and bf16_instructions() is None:
            continue
        out = tmp_path / f"{variant}.json"
        judge = ("--variant", variant, *engine, "--studies", "10")
        run(quantised.bundle, quantised.gate_cohort, out, *judge)
        report = json.loads(out.read_text())
        assert report["variant"]["name"] == variant
        assert report["engine"]["backend"] == "openvino"
        assert report["studies"] == 10
        assert report["figures"]["decision_flips"] <= 0.1


def test_the_gate_needs_neither_pytorch_nor_onnx() -> None:
    script = "import sys, export.gate; print(*sorted(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert loaded.isdisjoint({"torch", "onnx", "sklearn", "scipy", "matplotlib", "tensorrt_rtx"})


def answers(n: int = 40) -> tuple[Answers, np.ndarray, np.ndarray]:
    """A sure network's answers, the causes, and where the disease is."""
    random = np.random.default_rng(0)
    causes = np.arange(n) % 5
    probabilities = np.full((n, 5), 0.05, np.float32)
    probabilities[np.arange(n), causes] = 0.8
    maps = random.random((n, 2, 5, 8, 8), dtype=np.float32) * 0.2
    occupancy = np.zeros((n, 2, 8, 8), np.float16)
    occupancy[:, :, 2, 3] = 1.0
    maps[np.arange(n), :, causes, 2, 3] = 0.9
    return Answers(probabilities, maps, random.random(n, dtype=np.float32)), causes, occupancy


def swap_leading(given: Answers, studies: int) -> Answers:
    """The same with another leading cause in the first few studies."""
    probabilities = given.probabilities.copy()
    probabilities[:studies] = np.roll(probabilities[:studies], 1, axis=1)
    return replace(given, probabilities=probabilities)


def test_the_same_answers_use_nothing_of_any_limit() -> None:
    given, causes, occupancy = answers()
    figures = compare(given, given, causes, occupancy, None)
    assert figures.pop("map_correlation") == pytest.approx(1.0)
    assert figures.pop("finding_flips") is None  # no calibration, no findings
    assert set(figures.values()) == {0.0}


def test_each_kind_of_harm_breaks_its_own_limit() -> None:
    given, causes, occupancy = answers()

    def broken(candidate: Answers) -> set[str]:
        return set(exceeded(compare(given, candidate, causes, occupancy, None), Limits()))

    flips = broken(swap_leading(given, 2))
    assert {"decision_flips", "auroc_drop", "auroc_drop_of_a_cause"} <= flips
    # Sure answers made unsure: every decision stays, and is worth less.
    compressed = 0.6 * given.probabilities + 0.4 * 0.2
    assert broken(replace(given, probabilities=compressed)) == {
        "calibration_error_change",
        "probability_change_p99",
    }
    blank = np.zeros_like(given.maps)
    assert broken(replace(given, maps=blank)) == {"map_correlation", "map_pointing_drop"}
    moved = np.roll(given.maps, 4, axis=4)
    assert broken(replace(given, maps=moved)) == {"map_correlation", "map_pointing_drop"}


def test_findings_that_change_are_counted(quantised: Quantised) -> None:
    given, causes, occupancy = answers()
    decision = Bundle.load(quantised.source).manifest.decision
    assert decision is not None
    assert given.novelty is not None
    decision = replace(decision, novelty_threshold=2.0)
    strange = given.novelty.copy()
    strange[:4] = 3.0
    figures = compare(given, replace(given, novelty=strange), causes, occupancy, decision)
    assert figures["finding_flips"] == pytest.approx(0.1)
    assert exceeded(figures, Limits()) == ["finding_flips"]


def test_what_a_cohort_cannot_show_is_not_held_against_anybody() -> None:
    given, causes, occupancy = answers()
    nowhere = np.full_like(occupancy, np.nan)
    figures = compare(given, given, causes, nowhere, None)
    assert figures["map_pointing_drop"] is None
    assert exceeded(figures, Limits()) == []


def test_every_limit_has_its_figure() -> None:
    given, causes, occupancy = answers()
    figures = compare(given, given, causes, occupancy, None)
    assert list(figures) == [limit.name for limit in fields(Limits)]


@pytest.mark.parametrize(
    ("hits", "n", "interval"),
    [
        (0, 10, (0.0, 0.30850)),
        (10, 10, (0.69150, 1.0)),
        (5, 10, (0.18709, 0.81291)),
        (3, 2000, (0.00030948, 0.0043774)),
    ],
)
def test_the_interval_is_clopper_and_pearsons(
    hits: int, n: int, interval: tuple[float, float]
) -> None:
    assert exact_interval(hits, n) == pytest.approx(interval, rel=1e-3)


def test_the_gate_judges_any_number_of_studies(quantised: Quantised, tmp_path: Path) -> None:
    out = tmp_path / "gate.json"
    words = ("--variant", "cpu-int8", "--studies", "10")
    assert run(quantised.bundle, quantised.gate_cohort, out, *words).exit_code in (0, 1)
    report = json.loads(out.read_text())
    assert report["studies"] == 10
    assert sum(report["cohort"]["by_cause"].values()) == 10
