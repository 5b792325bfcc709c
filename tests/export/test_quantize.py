"""From a bundle with a reference to one with variants for the CPU and for TensorRT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import onnx
import onnxruntime
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper
from tiny_bundle import CONVOLUTIONS, NAMES, SIDE, Quantised, striped_cohort

from export import qdq, quantize, variants
from export.bias_correction import corrected
from export.bundle import add_variants
from export.cohort import Cohort
from export.gate import rounds_half
from export.half import half_nodes, to_half
from export.parts import cut
from export.ranges import METHODS, Histogram, ranges_by
from export.sensitivity import Recipe, Trials, search
from hipnet_edge.backends import choose_backend
from hipnet_edge.backends.plan_cache import PlanCache
from hipnet_edge.backends.tensorrt_build import BuildOptions
from hipnet_edge.bundle import Bundle
from hipnet_edge.selftest import write_selftest
from hipnet_edge.verdict import Gate, Limits


class Graph:
    """A network to ask questions of."""

    def __init__(self, bundle: Path, variant: str) -> None:
        self.model = onnx.load(bundle / f"{variant}.onnx")
        self.nodes = list(self.model.graph.node)
        self.made_by = {name: node for node in self.nodes for name in node.output}
        self.constants = {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(self.model, strict_mode=True)
        self.types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input)
        }

    def of(self, *kinds: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type in kinds]

    def backbone_convolutions(self) -> list[onnx.NodeProto]:
        found = [node for node in self.of("Conv") if node.output[0].startswith(NAMES)]
        assert len(found) == len(NAMES) * len(CONVOLUTIONS)
        return found


def test_the_cpu_gets_unsigned_activations_signed_weights_and_whole_biases(
    quantised: Quantised,
) -> None:
    graph = Graph(quantised.bundle, "cpu-int8")
    for node in graph.of("QuantizeLinear"):
        assert graph.constants[node.input[2]].dtype == np.uint8
    for node in graph.backbone_convolutions():
        if node.name.endswith("stem"):  # it reads the radiographs, of more than 8 bits
            assert node.input[1] in graph.constants
            assert graph.constants[node.input[1]].dtype == np.float32
            continue
        activation, weight, bias = (graph.made_by[name] for name in node.input)
        assert graph.constants[activation.input[2]].dtype == np.uint8
        assert graph.constants[weight.input[0]].dtype == np.int8
        channels = graph.constants[weight.input[0]].shape[0]
        assert graph.constants[weight.input[1]].shape == (channels,)
        assert graph.constants[bias.input[0]].dtype == np.int32
    assert graph.types[graph.of("Softmax")[0].input[0]] == TensorProto.FLOAT


def test_the_cpus_variant_runs_and_says_what_the_reference_says(quantised: Quantised) -> None:
    bundle = Bundle.load(quantised.bundle)
    engines = [
        choose_backend(bundle, "onnxruntime", precision, 1) for precision in ("fp32", "int8")
    ]
    assert [engine.variant for engine in engines] == ["fp32", "cpu-int8"]
    studies = np.asarray(striped_cohort(20, seed=4).radiographs, np.float32)
    for study in studies:
        wanted, found = (engine.backend.infer(study[np.newaxis]) for engine in engines)
        np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=0.02)
        assert not np.array_equal(found.maps, wanted.maps)  # another network, after all


def test_every_convolution_of_tensorrts_variant_reads_int8_without_zero_point(
    quantised: Quantised,
) -> None:
    graph = Graph(quantised.bundle, "trt-int8")
    for node in graph.backbone_convolutions():
        activation, weight = (graph.made_by[node.input[place]] for place in (0, 1))
        pair = graph.made_by[activation.input[0]]
        assert pair.op_type == "QuantizeLinear"
        assert list(activation.input[1:]) == list(pair.input[1:])
        for dequantise in (activation, weight):
            assert dequantise.op_type == "DequantizeLinear"
            scale, zero = (graph.constants[name] for name in dequantise.input[1:])
            assert zero.dtype == np.int8
            assert not zero.any()
            assert scale.dtype == np.float16
            assert (scale > 0).all()
        assert {a.name: a.i for a in weight.attribute} == {"axis": 0}
        kernel = graph.constants[weight.input[0]]
        assert kernel.dtype == np.int8
        assert np.abs(kernel).reshape(len(kernel), -1).max(axis=1).min() > 120  # 127, or a bit less
        assert graph.constants[weight.input[1]].shape == (len(kernel),)
        assert node.input[2] in graph.constants  # no quantised bias
        readers = [other for other in graph.nodes if node.output[0] in other.input]
        assert not [other for other in readers if other.op_type == "QuantizeLinear"]


def test_of_an_addition_only_the_shortcut_is_quantised(quantised: Quantised) -> None:
    graph = Graph(quantised.bundle, "trt-int8")
    sums = [node for node in graph.of("Add") if node.output[0].startswith(NAMES)]
    assert len(sums) == len(NAMES)
    for node in sums:
        kinds = sorted(graph.made_by[name].op_type for name in node.input)
        assert kinds == ["Conv", "DequantizeLinear"]


@pytest.mark.parametrize("variant", ["trt-int8", "trt-fp16"])
def test_half_precision_stops_where_probabilities_begin(quantised: Quantised, variant: str) -> None:
    graph = Graph(quantised.bundle, variant)
    onnx.checker.check_model(graph.model, full_check=True)
    types = graph.types
    assert types["radiographs"] == TensorProto.FLOAT16
    outputs = [value.name for value in graph.model.graph.output]
    assert outputs == ["probabilities", "member_probabilities", "maps", "novelty"]
    assert {types[name] for name in outputs} == {TensorProto.FLOAT}
    assert {types[node.output[0]] for node in graph.of("Conv")} == {TensorProto.FLOAT16}
    for node in graph.of("Softmax", "Sigmoid", "Mul", "Gemm", "ReduceMean"):
        assert types[node.output[0]] == TensorProto.FLOAT
    assert Bundle.load(quantised.bundle).signature(variant).input_type == "float16"


@pytest.mark.parametrize("variant", ["fp32", "cpu-int8", "trt-int8", "trt-fp16"])
def test_every_variant_comes_apart_into_five_that_answer_like_the_whole(
    quantised: Quantised, variant: str
) -> None:
    if variant == "trt-int8" and not rounds_half():
        pytest.skip("this ONNX Runtime cuts off where half precision is quantised")
    model = onnx.load(quantised.bundle / f"{variant}.onnx")
    kind = np.float16 if variant.startswith("trt-") else np.float32
    given = {"radiographs": striped_cohort(1, seed=5).radiographs.astype(kind)}
    known = dict(given)
    for part in cut(model, NAMES).values():
        session = onnxruntime.InferenceSession(part.SerializeToString())
        asked = {value.name: known[value.name] for value in session.get_inputs()}
        names = [value.name for value in session.get_outputs()]
        known.update(zip(names, session.run(names, asked), strict=True))
    whole = onnxruntime.InferenceSession(model.SerializeToString())
    for value, expected in zip(whole.get_outputs(), whole.run(None, given), strict=True):
        np.testing.assert_allclose(known[value.name], expected, atol=5e-3)


@pytest.mark.parametrize(("variant", "kind"), [("trt-int8", "int8"), ("trt-fp16", "half")])
def test_tensorrt_builds_every_convolution_in_the_precision_of_the_variant(
    quantised: Quantised, tmp_path: Path, variant: str, kind: str
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    from export.build_engines import build_engines

    report = build_engines(
        Bundle.load(quantised.bundle),
        variant,
        "merged",
        BuildOptions(compute_capabilities=("8.6",)),
        PlanCache(tmp_path / "plans"),
    )
    (built,) = report["parts"].values()
    expected = {f"{name}.{layer}" for name in NAMES for layer in CONVOLUTIONS}
    assert {built["convolutions"][layer] for layer in expected} == {kind}


def test_a_network_that_was_not_merged_by_these_names_is_not_cut(quantised: Quantised) -> None:
    with pytest.raises(ValueError, match=r"no tensor north-east\.logits"):
        cut(onnx.load(quantised.bundle / "fp32.onnx"), ("north-east", *NAMES[1:]))


def test_the_new_bundle_has_the_verdict_of_the_engine_that_judged(quantised: Quantised) -> None:
    source, bundle = Bundle.load(quantised.source), Bundle.load(quantised.bundle)
    made = {"fp32", "cpu-int8", "cpu-bf16", "trt-int8", "trt-fp16"}
    assert set(bundle.manifest.variants) == made
    # BF16 is the reference's own file, computed otherwise.
    assert bundle.network("cpu-bf16") == bundle.network("fp32")
    assert bundle.model("fp32") == source.model("fp32")
    assert bundle.manifest.decision == source.manifest.decision
    engine = choose_backend(bundle, "onnxruntime", "int8", 1).backend
    gate = bundle.manifest.gate
    assert gate is not None
    about = (engine.name, engine.version, engine.device)
    verdict = gate.verdict("cpu-int8", *about)
    assert verdict is not None
    assert verdict.passed
    assert verdict.studies == 50
    assert len(gate.verdicts) == 1  # rehearsals are none


def test_the_report_compares_ranges_and_names_what_was_restored(quantised: Quantised) -> None:
    made = quantised.report["variants"]
    for variant, kind in (("cpu-int8", "gate"), ("trt-int8", "rehearsal")):
        compared = made[variant]["disturbance_by_ranges"]
        assert set(compared) == set(METHODS)
        assert made[variant]["ranges"] == min(compared, key=compared.get)
        assert made[variant][kind]["passed"]
        assert made[variant]["restored_layers"] == {}
    assert made["trt-fp16"]["disturbance_in_half_precision"] < 0.01
    assert quantised.report["calibration"]["studies"] == 20


@pytest.fixture(scope="module")
def trial(quantised: Quantised) -> tuple[Recipe, dict, Trials]:
    """The recipe for TensorRT, its ranges, and a gate that allows almost nothing."""
    bundle = Bundle.load(quantised.source)
    prepared = variants.prepare(onnx.load_from_string(bundle.model("fp32")), NAMES)
    seen = {name: Histogram() for name in variants.tensors_to_observe(prepared)}
    session_outputs = [name for name in seen if name != "radiographs"]
    asked = onnx.ModelProto.FromString(prepared.SerializeToString())
    asked.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in session_outputs
    )
    session = onnxruntime.InferenceSession(asked.SerializeToString())
    for study in np.asarray(striped_cohort(10, seed=2).radiographs, np.float32):
        answers = session.run(session_outputs, {"radiographs": study[np.newaxis]})
        for name, values in zip(session_outputs, answers, strict=True):
            seen[name].add(values)
    means = {name: histogram.channel_means for name, histogram in seen.items()}
    _, recipe = quantize.recipes(prepared, means)
    limits = Limits(map_correlation=0.9995)
    trials = Trials(
        bundle.model("fp32"),
        bundle.signature("fp32"),
        striped_cohort(20, seed=3),
        striped_cohort(10, seed=2),
        limits,
        bundle.manifest.decision,
        few=3,
        threads=1,
    )
    return recipe, ranges_by("minmax", seen), trials


def test_layers_that_matter_are_restored_until_the_gate_passes(
    trial: tuple[Recipe, dict, Trials],
) -> None:
    recipe, ranges, trials = trial
    everything = trials.gate(recipe.build(ranges, recipe.layers), "all")
    assert everything["failed"] == ["map_correlation"]
    found = search(recipe, ranges, trials)
    assert found.gate["passed"]
    assert 0 < len(found.restored) < len(recipe.layers)
    assert set(found.restored) | set(found.quantised) == set(recipe.layers)
    ranked = list(found.restored.values())
    assert ranked == sorted(ranked, reverse=True)
    left = {
        node.name
        for node in found.model.graph.node
        if node.op_type == "Conv" and not node.input[0].endswith("/dq")
    }
    assert left == set(found.restored)
    one_fewer = [*found.quantised, list(found.restored)[-1]]
    assert not trials.gate(recipe.build(ranges, one_fewer), "one fewer")["passed"]


def test_a_network_that_no_restoring_saves_is_refused(
    trial: tuple[Recipe, dict, Trials],
) -> None:
    recipe, ranges, trials = trial

    def ruined(given: dict, layers: object) -> onnx.ModelProto:
        model = recipe.build(given, [])
        for tensor in model.graph.initializer:
            if tensor.name == "tail.cells_kernel":
                tensor.CopyFrom(
                    numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name)
                )
        return model

    few = Recipe(recipe.variant, recipe.layers[:4], ruined)
    with pytest.raises(ValueError, match="3 of its 4 layers restored: map_correlation"):
        search(few, ranges, trials)


def test_a_cohort_of_another_size_or_the_same_for_both_is_refused(
    quantised: Quantised, tmp_path: Path
) -> None:
    bundle = Bundle.load(quantised.source)
    cohort = striped_cohort(5, seed=1)
    other = {**cohort.index, "input": {**cohort.index["input"], "rows": SIDE * 2}}
    with pytest.raises(ValueError, match="another input"):
        quantize.quantize(
            bundle,
            cohort,
            cohort.__class__(
                cohort.radiographs, cohort.occupancy, cohort.causes, cohort.table, other
            ),
            limits=Limits(),
        )
    same = [
        "--calibration",
        str(quantised.calibration),
        "--gate-cohort",
        str(quantised.calibration),
    ]
    words = ["--bundle", str(quantised.source), *same, "--out", str(tmp_path / "a")]
    result = CliRunner().invoke(quantize.main, [*words, "--report", str(tmp_path / "r.json")])
    assert result.exit_code == 2
    assert "other studies" in result.output


def test_rounded_weights_no_longer_move_the_mean_of_a_channel() -> None:
    random = np.random.default_rng(0)
    shapes = {"x": (1, 8, 32, 32), "weights": (8, 4, 1, 1), "y": (1, 8, 32, 32)}
    channels = random.uniform(1.0, 5.0, size=8)  # as behind a ReLU: positive, each its own mean
    x = (channels[:, None, None] + 0.1 * random.normal(size=shapes["x"])).astype(np.float32)
    weights = random.normal(size=shapes["weights"]).astype(np.float32)
    weights[:, 0] *= 30.0  # one large weight makes coarse steps for all
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "weights"], ["y"], "conv", group=2)],
        "one",
        [onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, shapes["x"])],
        [onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes["y"])],
        [numpy_helper.from_array(weights, "weights")],
    )
    opsets = [onnx.helper.make_opsetid("", 20)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def means(asked: onnx.ModelProto) -> np.ndarray:
        session = onnxruntime.InferenceSession(asked.SerializeToString())
        return session.run(None, {"x": x})[0].mean(axis=(0, 2, 3))

    def moved(given: onnx.ModelProto) -> float:
        quantised = qdq.insert(given, {"x": (0.0, float(x.max()))}, ["conv"])
        return float(np.abs(means(quantised) - means(model)).max())

    better = corrected(model, {"x": x.mean(axis=(0, 2, 3))}, ["conv"])
    assert moved(model) > 0.1
    assert moved(better) < 0.1 * moved(model)
    # Where nothing is quantised nothing is corrected.
    assert corrected(model, {"x": channels}, []).graph == model.graph


def test_the_novelty_of_a_quantised_network_is_the_references_on_average(
    quantised: Quantised,
) -> None:
    bundle = Bundle.load(quantised.bundle)
    engines = [
        choose_backend(bundle, "onnxruntime", precision, 1).backend
        for precision in ("fp32", "int8")
    ]
    studies = np.asarray(Cohort.load(quantised.calibration).radiographs, np.float32)
    wanted, found = (
        np.array([engine.infer(study[np.newaxis]).novelty for study in studies])
        for engine in engines
    )
    assert not np.array_equal(found, wanted)
    np.testing.assert_allclose(found.mean(), wanted.mean(), rtol=1e-4)


def test_what_decides_keeps_its_resolution_on_the_cpu(quantised: Quantised) -> None:
    graph = Graph(quantised.bundle, "cpu-int8")
    (last,) = [node for node in graph.of("Conv") if node.output[0] == "tail.cells"]
    assert last.input[1] in graph.constants  # a float weight as it was
    (reader,) = [node for node in graph.nodes if "tail.cells" in node.input]
    assert reader.op_type == "DepthToSpace"


def test_a_scale_is_the_same_in_half_precision_and_clips_nothing() -> None:
    largest = np.array([1e-9, 0.013, 1.0, 777.7])
    scale = qdq.scale_for(largest)
    assert (scale == scale.astype(np.float16).astype(np.float32)).all()
    assert (scale * qdq.LEVELS >= largest).all()
    np.testing.assert_allclose(scale[1:] * qdq.LEVELS, largest[1:], rtol=2e-3)


def test_weights_too_large_for_half_precision_are_named(quantised: Quantised) -> None:
    model = onnx.load(quantised.source / "fp32.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "east.body_kernel":
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) * 1e6, tensor.name)
            )
    with pytest.raises(ValueError, match=r"east\.body_kernel .* too large"):
        to_half(model, half_nodes(model, NAMES))


def test_an_exchanged_variant_loses_its_answers_in_the_self_test(
    quantised: Quantised, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(quantised.bundle, folder)
    for precision in ("fp32", "int8"):
        write_selftest(folder, [], backend="onnxruntime", precision=precision)
    model = Bundle.load(folder).model("cpu-int8")
    made = add_variants(folder, tmp_path / "again", {"cpu-int8": model}, Gate())
    assert set(json.loads(made.read("selftest.json"))["answers"]) == {"fp32"}
