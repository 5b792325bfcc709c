"""The reference bundle's own variants: judged again on a hundred studies, and built for GPUs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tqdm", reason="tqdm is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import onnx
from click.testing import CliRunner

from export import gate
from export.build_engines import LAYOUTS, build_engines
from export.gate import simulated_cohort
from export.parts import TAIL
from hipnet_edge.backends.openvino_runtime import import_openvino
from hipnet_edge.backends.plan_cache import PlanCache
from hipnet_edge.backends.tensorrt_build import BuildOptions
from hipnet_edge.backends.tensorrt_flavour import load_tensorrt
from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import EngineUnusable, MissingExtra
from hipnet_edge.verdict import Gate

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
STUDIES = 200
"""Of 100, three in one bin more or less can change the calibration error by more than the limit."""
JUDGED = {
    "cpu-int8": ("cpu-int8",),
    "openvino-int8": ("cpu-int8", "--backend", "openvino"),
    "openvino-int8-f32": ("cpu-int8", "--backend", "openvino"),
    "openvino-bf16": ("cpu-bf16", "--backend", "openvino"),
    "trt-int8": ("trt-int8", "--rehearse"),
    "trt-fp16": ("trt-fp16", "--rehearse"),
}
"""The committed reports, `gate-….json`, and how the gate's command line asked for each."""
LARGEST = 36 * 2**20


@pytest.fixture(scope="module")
def reference() -> Bundle:
    return Bundle.reference()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gate")
    simulated_cohort(STUDIES, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu-int8", "openvino-int8", "trt-int8", "trt-fp16"])
def test_the_gate_passes_it_again(name: str, cohort: Path, tmp_path: Path) -> None:
    if name.startswith("openvino"):
        has_openvino()
    if name == "trt-int8" and not gate.rounds_half():
        pytest.skip("this ONNX Runtime cuts off where half precision is quantised")
    out = tmp_path / "gate.json"
    words = ["--cohort", str(cohort), "--out", str(out), "--variant", *JUDGED[name]]
    asked = STUDIES // 2 if "--rehearse" in words else STUDIES
    words += ["--studies", str(asked)]
    result = CliRunner().invoke(gate.main, words)
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text())["studies"] > 0.95 * asked  # a few films may be refused


@pytest.mark.parametrize("name", JUDGED)
def test_it_was_judged_on_two_thousand_studies(name: str, reference: Bundle) -> None:
    report = json.loads((RESULTS / f"gate-{name}.json").read_text())
    variant, *words = JUDGED[name]
    assert report["variant"] == {"name": variant, "network_sha256": reference.network(variant)}
    assert report["passed"]
    assert report["studies"] >= 2000
    assert report["cohort"]["site"] == "shifted"
    assert report["kind"] == ("rehearsal" if "--rehearse" in words else "verdict")
    recorded = (reference.manifest.gate or Gate()).verdicts
    about = (variant, report["engine"]["backend"])
    judged = [verdict for verdict in recorded if (verdict.variant, verdict.backend) == about]
    # What was only rehearsed has no verdict.
    assert bool(judged) == (report["kind"] == "verdict")
    assert all(verdict.passed and verdict.studies >= 2000 for verdict in judged)


def has_openvino() -> None:
    """Skip where it is not installed."""
    try:
        import_openvino()
    except MissingExtra as error:
        pytest.skip(error.message)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("variant", "kind"), [("trt-int8", "int8"), ("trt-fp16", "half")])
def test_every_convolution_of_a_backbone_is_built_in_the_precision_of_the_variant(
    variant: str, kind: str, layout: str, reference: Bundle, tmp_path: Path
) -> None:
    try:
        if not load_tensorrt().rtx:
            pytest.skip("the full TensorRT is installed, which builds for no GPU but its own")
    except EngineUnusable as error:
        pytest.skip(error.message)
    options = BuildOptions(compute_capabilities=("8.6", "8.9"))
    cache = PlanCache(tmp_path / "plans")
    parts = build_engines(reference, variant, layout, options, cache)["parts"]
    names = {backbone.name for backbone in reference.manifest.backbones}
    assert set(parts) == ({"network"} if layout == "merged" else {*names, TAIL})
    built = {name: found for part in parts.values() for name, found in part["convolutions"].items()}
    asked = convolutions(onnx.load_from_string(reference.model(variant)), names)
    assert Counter(name.partition(".")[0] for name in asked).keys() == names
    assert {built[name] for name in asked} == {kind}
    for part in parts.values():
        assert {"streams", "reformat_layers"} <= set(part)


def convolutions(model: onnx.ModelProto, backbones: set[str]) -> list[str]:
    """The backbones' convolutions by the names of their nodes."""
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and node.name.partition(".")[0] in backbones
    ]


@pytest.mark.parametrize("variant", ["trt-int8", "trt-fp16"])
def test_the_committed_reports_are_of_these_files(variant: str, reference: Bundle) -> None:
    for layout in LAYOUTS:
        report: dict[str, Any] = json.loads(
            (RESULTS / f"engines-{variant}-{layout}.json").read_text()
        )
        assert report["network"] == reference.network(variant)
        assert report["compute_capabilities"] == "8.6,8.9"


def test_the_bundle_stays_small(reference: Bundle) -> None:
    files = reference.manifest.files.values()
    assert sum(file.bytes for file in files) < LARGEST
