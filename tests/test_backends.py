"""The backends: what they compute, what they refuse, and how one is chosen."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from small_bundle import small_model, write_bundle

from hipnet_edge import Bundle, EngineUnusable, Reason, UsageError
from hipnet_edge.backends import BACKENDS, OnnxRuntimeBackend, available_cores, choose_backend
from hipnet_edge.backends.backend import Signature
from hipnet_edge.backends.cores import core_quota

SIGNATURE = Signature(rows=512, columns=320, map_rows=64, map_columns=40)
SMALL = Signature(rows=32, columns=16, map_rows=4, map_columns=2)


def backend(model: bytes | None = None, signature: Signature = SMALL) -> OnnxRuntimeBackend:
    if model is None:
        model = small_model(rows=signature.rows, columns=signature.columns)
    return OnnxRuntimeBackend(model, signature, threads=1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.load(write_bundle(tmp_path_factory.mktemp("bundle")))


def test_outputs_are_those_of_the_onnx_reference():
    import onnx

    model = small_model(rows=32, columns=16)
    radiographs = SMALL.test_pattern(seed=3)
    names = list(SMALL.output_shapes())
    expected = ReferenceEvaluator(onnx.load_from_string(model)).run(
        names, {"radiographs": radiographs}
    )
    outputs = backend(model).infer(radiographs)
    for name, value in zip(names, expected, strict=True):
        np.testing.assert_allclose(getattr(outputs, name), value, atol=2e-6)


def test_outputs_depend_on_both_views_and_belong_to_the_caller():
    one = backend()
    radiographs = SMALL.test_pattern()
    first = one.infer(radiographs)
    kept = first.maps.copy()
    for view in (0, 1):
        changed = radiographs.copy()
        changed[0, view] += 0.1
        assert np.abs(one.infer(changed).probabilities - first.probabilities).max() > 1e-4
    assert np.array_equal(first.maps, kept)
    assert first.maps.flags.owndata


def test_many_studies_at_once_where_the_network_allows_it():
    signature = Signature(32, 16, 4, 2, dynamic_batch=True)
    model = small_model(rows=32, columns=16, dynamic_batch=True)
    one = backend(model, signature)
    radiographs = np.concatenate([signature.test_pattern(seed) for seed in range(3)])
    together = one.infer(radiographs)
    assert together.maps.shape == (3, 2, 5, 4, 2)
    for index in range(3):
        alone = one.infer(radiographs[index : index + 1])
        np.testing.assert_allclose(together.probabilities[index], alone.probabilities[0], atol=1e-6)


@pytest.mark.parametrize(
    "radiographs",
    [
        np.zeros((2, 2, 32, 16), np.float32),
        np.zeros((0, 2, 32, 16), np.float32),
        np.zeros((1, 2, 16, 32), np.float32),
        np.zeros((1, 2, 32, 16), np.float64),
        np.zeros((), np.float32),
        np.full((1, 2, 32, 16), np.nan, np.float32),
    ],
    ids=["batch", "none", "turned", "double", "scalar", "nan"],
)
def test_an_input_that_is_none_is_refused(radiographs):
    with pytest.raises(UsageError):
        backend().infer(radiographs)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_network_that_gives_no_numbers_gives_no_probability(poison):
    def change(model):
        for tensor in model.graph.initializer:
            if tensor.name == "mix":
                weights = np.frombuffer(tensor.raw_data, np.float32).copy()
                weights[7] = poison
                tensor.raw_data = weights.tobytes()

    with pytest.raises(EngineUnusable) as caught:
        backend(small_model(rows=32, columns=16, change=change)).infer(SMALL.test_pattern())
    assert caught.value.code is Reason.NON_FINITE_OUTPUT


def test_numbers_that_are_no_probabilities_are_refused():
    def change(model):
        for node in model.graph.node:
            if node.op_type == "Softmax":
                node.op_type = "Sigmoid"
                del node.attribute[:]

    with pytest.raises(EngineUnusable, match="no probabilities"):
        backend(small_model(rows=32, columns=16, change=change)).infer(SMALL.test_pattern())


def rename_output(model):
    model.graph.output[0].name = "scores"
    model.graph.node[-1].output[0] = "scores"


def rename_input(model):
    model.graph.input[0].name = "images"
    model.graph.node[0].input[0] = "images"


def second_input(model):
    model.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, [1]))


@pytest.mark.parametrize("change", [rename_output, rename_input, second_input])
def test_a_network_that_breaks_the_contract_is_refused_at_load(change):
    with pytest.raises(EngineUnusable):
        backend(small_model(rows=32, columns=16, change=change))


def test_a_network_of_another_size_or_batch_is_refused_at_load():
    with pytest.raises(EngineUnusable, match="radiographs"):
        backend(small_model(rows=64, columns=16))
    with pytest.raises(EngineUnusable, match="radiographs"):
        backend(small_model(rows=32, columns=16, dynamic_batch=True))


def test_a_broken_network_is_refused_in_our_words():
    def change(model):
        model.graph.node[1].op_type = "NoSuchOperator"

    with pytest.raises(EngineUnusable) as caught:
        backend(small_model(rows=32, columns=16, change=change))
    assert caught.value.code is Reason.ENGINE_FAILED
    assert caught.value.__cause__ is not None


def test_after_close_nothing_runs_but_what_is_running_ends_well():
    one = OnnxRuntimeBackend(small_model(), SIGNATURE, threads=1)
    radiographs = SIGNATURE.test_pattern()
    expected = one.infer(radiographs).probabilities
    ended: list[bool] = []
    started = threading.Event()

    def work() -> None:
        try:
            while True:
                ended.append(np.array_equal(one.infer(radiographs).probabilities, expected))
                started.set()
        except UsageError as error:
            ended.append(error.code is Reason.CLOSED)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait(10)
    one.close()
    one.close()
    for thread in threads:
        thread.join(10)
    assert all(ended)
    assert len(ended) > 4
    assert not any(thread.is_alive() for thread in threads)


def test_the_engine_writes_nothing_to_the_terminal(tmp_path):
    def change(model):  # an initializer nobody uses is what ONNX Runtime likes to warn about
        model.graph.initializer.append(helper.make_tensor("unused", TensorProto.FLOAT, [1], [1.0]))

    folder = write_bundle(tmp_path / "bundle", small_model(change=change))
    script = (
        "import sys\n"
        "from hipnet_edge.backends import choose_backend\n"
        "from hipnet_edge import Bundle\n"
        "backend = choose_backend(Bundle.load(sys.argv[1]), threads=1).backend\n"
        "backend.infer(backend.signature.test_pattern())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_choice_is_explained(bundle):
    automatic = choose_backend(bundle, threads=1)
    assert automatic.backend.name == "onnxruntime"
    assert automatic.variant == "fp32"
    assert "onnxruntime" in automatic.reason
    assert "fp32" in automatic.reason
    named = choose_backend(bundle, "onnxruntime", "fp32", threads=1)
    assert "as asked" in named.reason
    assert named.backend.settings["threads"] == 1
    assert named.backend.settings["spinning"] is False
    assert list(BACKENDS) == [
        "tensorrt",
        "tensorrt-parts",
        "onnxruntime-tensorrt",
        "onnxruntime-cuda",
        "openvino-gpu",
        "openvino",
        "onnxruntime",
    ]


@pytest.mark.parametrize(("name", "precision"), [("tensorflow", "auto"), ("auto", "int3")])
def test_an_unknown_choice_names_the_known_ones(bundle, name, precision):
    with pytest.raises(EngineUnusable) as caught:
        choose_backend(bundle, name, precision)
    assert caught.value.code is Reason.ENGINE_UNAVAILABLE
    assert ("onnxruntime" if name != "auto" else "fp32") in caught.value.message


def test_no_threads_are_refused(bundle):
    with pytest.raises(UsageError):
        choose_backend(bundle, threads=0)


def test_threads_follow_the_affinity_of_the_process():
    first = min(os.sched_getaffinity(0))
    script = (
        f"import os; os.sched_setaffinity(0, [{first}])\n"
        "from hipnet_edge.backends import available_cores; print(available_cores())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "1"
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "own", "quota"),
    [
        ({"cpu.max": "150000 100000"}, "0::/", 1.5),
        ({"cpu.max": "max 100000"}, "0::/", None),
        ({"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b", 1.0),
        ({"a/cpu.max": "400000 100000", "a/b/cpu.max": "50000 100000"}, "0::/a/b", 0.5),
        ({"cpu.max": "200000 100000"}, "0::/the/hosts/own/path", 2.0),
        (
            {"cpu/c/cpu.cfs_quota_us": "50000", "cpu/c/cpu.cfs_period_us": "100000"},
            "3:cpu,cpuacct:/c\n0::/",
            0.5,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "3:cpu:/", None),
        ({}, "0::/", None),
    ],
)
def test_the_quota_of_a_container_is_found(tmp_path, files, own, quota):
    for name, content in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    (tmp_path / "own").write_text(own + "\n")
    assert core_quota(tmp_path / "cgroup", tmp_path / "own") == quota


def test_the_test_pattern_never_changes():
    pattern = SIGNATURE.test_pattern()
    assert pattern.shape == (1, 2, 512, 320)
    assert pattern.dtype == np.float32
    assert -2 <= pattern.min() < -1 < 1 < pattern.max() <= 2
    assert hashlib.sha256(pattern.astype("<f4").tobytes()).hexdigest() == (
        "dc55496b4acbcf40551080a9af91bdbb4be34432315094bc4f2900539eacb0db"
    )
    assert not np.array_equal(pattern, SIGNATURE.test_pattern(seed=1))
