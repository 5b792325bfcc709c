"""Plans of a bundle built ahead of time, kept, found again, and refused when they are not right."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from engine_networks import (
    COLUMNS,
    CONVOLUTIONS,
    NAMES,
    OUTPUTS,
    ROWS,
    STRIDE,
    merged_network,
    tensorrt_variant,
)
from small_bundle import declared, small_decision, small_manifest, write_bundle

from export.build_engines import build_engines, main
from export.parts import cut
from hipnet_edge import Bundle, EngineUnusable, Reason
from hipnet_edge.backends.plan_cache import PlanCache
from hipnet_edge.backends.tensorrt_backend import (
    TensorRtBackend,
    TensorRtPartsBackend,
    keep_options,
)
from hipnet_edge.backends.tensorrt_build import WHOLE, BuildOptions
from hipnet_edge.backends.tensorrt_flavour import load_tensorrt

AHEAD = BuildOptions(compute_capabilities=("8.6", "8.9"))
AMPERE = ("NVIDIA A10", "8.6")


@pytest.fixture(scope="module")
def flavour():
    try:
        found = load_tensorrt()
    except EngineUnusable as error:
        pytest.skip(error.message)
    if not found.rtx:
        pytest.skip("the full TensorRT is installed, which builds for no GPU but its own")
    return found


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"), seed=0)


def make_bundle(folder, seed: int) -> Bundle:
    """A bundle of the network of four backbones, with TensorRT's variants."""
    files = {
        "fp32": merged_network(seed).SerializeToString(),
        **{name: tensorrt_variant(name, seed) for name in ("trt-int8", "trt-fp16")},
    }
    manifest = small_manifest(files["fp32"])
    manifest["input"].update(rows=ROWS, columns=COLUMNS)
    manifest["map_stride"] = STRIDE
    manifest["decision"] = small_decision()
    manifest["backbones"] = [
        {**b, "name": n} for b, n in zip(manifest["backbones"], NAMES, strict=True)
    ]
    manifest["variants"] = {n: {"file": f"{n}.onnx", "dynamic_batch": False} for n in files}
    manifest["files"] = {f"{name}.onnx": declared(content) for name, content in files.items()}
    for name, content in files.items():
        (folder / f"{name}.onnx").write_bytes(content)
    return Bundle.load(write_bundle(folder, files["fp32"], manifest))


@pytest.fixture(scope="module")
def stored(tmp_path_factory, bundle, flavour):
    """A folder with both layouts of one variant, and what was reported of them."""
    cache = PlanCache(tmp_path_factory.mktemp("factory") / "plans")
    merged = build_engines(bundle, "trt-int8", "merged", AHEAD, cache, flavour)
    parts = build_engines(bundle, "trt-int8", "parts", AHEAD, cache, flavour)
    return cache, merged, parts


@pytest.fixture
def cache(stored, tmp_path):
    """A copy of it that a test may spoil."""
    copy = PlanCache(tmp_path / "plans")
    copy.folder.mkdir(mode=0o700)
    for file in stored[0].folder.iterdir():
        (copy.folder / file.name).write_bytes(file.read_bytes())
        (copy.folder / file.name).chmod(0o600)
    return copy


def find(cache: PlanCache, bundle: Bundle, flavour, kind=TensorRtBackend, variant="trt-int8"):
    return kind.find_plans(bundle, variant, flavour, AMPERE, cache)


def test_the_parts_joined_by_their_names_compute_what_the_whole_does():
    import onnxruntime

    whole = merged_network()
    given = {"radiographs": np.random.default_rng(1).normal(size=(1, 2, ROWS, COLUMNS))}
    given = {name: value.astype(np.float32) for name, value in given.items()}
    tensors = dict(given)
    for part in cut(whole, NAMES).values():
        session = onnxruntime.InferenceSession(part.SerializeToString())
        wanted = {value.name: tensors[value.name] for value in session.get_inputs()}
        names = [value.name for value in session.get_outputs()]
        tensors.update(zip(names, session.run(names, wanted), strict=True))
    session = onnxruntime.InferenceSession(whole.SerializeToString())
    for name, expected in zip(OUTPUTS, session.run(list(OUTPUTS), given), strict=True):
        np.testing.assert_allclose(tensors[name], expected, atol=1e-5)


def test_a_network_whose_tail_reads_inside_a_backbone_cannot_be_cut():
    model = merged_network()
    for node in model.graph.node:
        if node.name == "tail.first":
            node.input[0] = "first.pooled"
    with pytest.raises(ValueError, match=r"the part tail cannot be cut out"):
        cut(model, NAMES)
    with pytest.raises(ValueError, match=r"no tensor fifth\.logits"):
        cut(merged_network(), [*NAMES[:3], "fifth"])


def test_every_convolution_of_both_layouts_is_int8_and_stands_in_the_index(stored):
    cache, merged, parts = stored
    assert list(merged["parts"]) == [WHOLE]
    assert list(parts["parts"]) == [*NAMES, "tail"]
    for name in NAMES:
        types = parts["parts"][name]["convolutions"]
        assert types == {f"{name}.conv{i}": "int8" for i in range(CONVOLUTIONS)}
        whole = merged["parts"][WHOLE]["convolutions"]
        assert {c: t for c, t in whole.items() if c.startswith(f"{name}.")} == types
    assert parts["parts"]["tail"]["kept_float"] == ["tail.map"]
    assert len(cache.entries()) == 1 + len(NAMES) + 1


def test_plans_built_ahead_are_found_on_the_device_they_are_for(stored, bundle, flavour):
    cache, merged, parts = stored
    plans = find(cache, bundle, flavour)
    assert plans[WHOLE].sha256 == merged["parts"][WHOLE]["sha256"]
    plans = find(cache, bundle, flavour, TensorRtPartsBackend)
    assert {name: plan.sha256 for name, plan in plans.items()} == {
        name: part["sha256"] for name, part in parts["parts"].items()
    }


def test_a_flipped_byte_is_refused_and_the_whole_network_is_built_anew(
    cache, bundle, flavour, stored
):
    spoil_every_plan(cache)
    with pytest.raises(EngineUnusable) as caught:
        find(cache, bundle, flavour, TensorRtPartsBackend)
    assert caught.value.code is Reason.PLAN_CORRUPT
    keep_options(cache, AHEAD)  # there is no GPU here for which it could be built otherwise
    said: list[str] = []
    plans = TensorRtBackend.find_plans(
        bundle, "trt-int8", flavour, AMPERE, cache, progress=said.append
    )
    assert plans[WHOLE].content[:8] == find(stored[0], bundle, flavour)[WHOLE].content[:8]
    assert "damaged or was exchanged" in said[0]


def spoil_every_plan(cache: PlanCache) -> None:
    for name in cache.entries():
        content = bytearray((cache.folder / name).read_bytes())
        content[len(content) // 2] ^= 0x10
        (cache.folder / name).write_bytes(content)


def test_plans_of_another_model_version_or_gpu_are_refused(cache, flavour, bundle, tmp_path):
    (tmp_path / "other").mkdir()
    other = make_bundle(tmp_path / "other", seed=1)
    find_parts = TensorRtPartsBackend.find_plans
    for arguments, code in (
        ((other, "trt-int8", flavour, AMPERE), Reason.PLAN_FOREIGN),
        ((bundle, "trt-fp16", flavour, AMPERE), Reason.PLAN_FOREIGN),
        ((bundle, "trt-int8", flavour, ("Orin", "8.7")), Reason.PLAN_FOREIGN),
        ((bundle, "trt-int8", replace(flavour, version="1.6.0.1"), AMPERE), Reason.PLAN_STALE),
    ):
        with pytest.raises(EngineUnusable) as caught:
            find_parts(*arguments, cache)
        assert caught.value.code is code


@pytest.mark.parametrize("kind", [TensorRtBackend, TensorRtPartsBackend])
def test_a_world_writable_folder_is_refused_and_nothing_is_built_into_it(
    cache, bundle, flavour, kind
):
    before = {file.name: file.stat().st_mtime_ns for file in cache.folder.iterdir()}
    cache.folder.chmod(0o777)
    with pytest.raises(EngineUnusable) as caught:
        find(cache, bundle, flavour, kind)
    assert caught.value.code is Reason.PLAN_UNTRUSTED
    assert {file.name: file.stat().st_mtime_ns for file in cache.folder.iterdir()} == before


def test_what_is_missing_of_the_parts_names_the_command(bundle, flavour, tmp_path):
    empty = PlanCache(tmp_path / "plans")
    with pytest.raises(EngineUnusable, match=r"export\.build_engines") as caught:
        find(empty, bundle, flavour, TensorRtPartsBackend)
    assert caught.value.code is Reason.PLAN_MISSING


def test_the_command_line_builds_reports_and_keeps_options(bundle, flavour, tmp_path):
    arguments = ["--bundle", str(bundle.path), "--variant", "trt-fp16", "--keep-options"]
    arguments += ["--plans", str(tmp_path / "plans"), "--report", str(tmp_path / "report.json")]
    arguments += ["--compute-capability", "8.9", "--max-aux-streams", "1"]
    ran = CliRunner().invoke(main, arguments)
    assert ran.exit_code == 0, ran.output
    assert "first.conv0" in ran.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["parts"][WHOLE]["convolutions"].values()) == {"half"}
    assert report["options"]["max_aux_streams"] == 1
    listed = report["parts"][WHOLE]["layer_list"]
    assert len(listed) == report["parts"][WHOLE]["layers"]
    assert {"half"} <= {layer["precision"] for layer in listed}
    # The device finds the plan under the options that were kept, not under the builder's own.
    cache = PlanCache(tmp_path / "plans")
    found = TensorRtBackend.find_plans(bundle, "trt-fp16", flavour, ("NVIDIA L4", "8.9"), cache)
    assert found[WHOLE].sha256 == report["parts"][WHOLE]["sha256"]


def test_a_file_in_the_wrong_precision_is_an_error_that_names_layers(flavour, tmp_path):
    bundle = make_bundle(tmp_path, seed=0)
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["variants"]["trt-int8"]["file"] = "trt-fp16.onnx"
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    arguments = ["--bundle", str(bundle.path), "--variant", "trt-int8"]
    arguments += ["--plans", str(tmp_path / "plans"), "--compute-capability", "8.6"]
    ran = CliRunner().invoke(main, arguments)
    assert ran.exit_code == 1
    assert "first.conv0 (half)" in ran.output
    assert not (tmp_path / "plans" / "index.json").exists()
    assert onnx.load(bundle.path / "trt-fp16.onnx").graph.input[0].name == "radiographs"
