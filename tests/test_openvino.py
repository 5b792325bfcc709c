"""OpenVINO gives the reference's answers, keeps threads apart, and trusts its cache only so far."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from small_bundle import declared, small_manifest, small_model, write_bundle

from hipnet_edge import Bundle, EngineUnusable, MissingExtra, Predictor, Reason, UsageError
from hipnet_edge import machine as this_machine
from hipnet_edge.backends import OpenVinoBackend, choose_backend
from hipnet_edge.backends.backend import Signature
from hipnet_edge.backends.openvino_runtime import compile_network, core, import_openvino
from hipnet_edge.backends.plan_cache import PlanCache
from hipnet_edge.machine import bf16_instructions, int8_device
from hipnet_edge.selftest import selftest

try:
    import_openvino()  # not pytest.importorskip: a plain import reports itself to a server
except MissingExtra:
    pytest.skip("openvino is not installed", allow_module_level=True)

SMALL = Signature(rows=32, columns=16, map_rows=4, map_columns=2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> PlanCache:
    monkeypatch.setenv("HIPNET_EDGE_PLANS", str(tmp_path / "plans"))
    return PlanCache()


@pytest.fixture(scope="module")
def reference() -> Bundle:
    return Bundle.reference()


def small(model: bytes | None = None, signature: Signature = SMALL) -> OpenVinoBackend:
    """A network without a bundle, compiled as `open` does it."""
    model = small_model(rows=32, columns=16) if model is None else model
    setup = OpenVinoBackend.setup("fp32", 1)
    compiled = compile_network(model, setup)
    return OpenVinoBackend(compiled, setup, signature, OpenVinoBackend.identify("fp32"))


def with_bf16(tmp_path: Path) -> Bundle:
    """A bundle that offers its reference in BF16 as well: another variant of the same file."""
    model = small_model()
    manifest = small_manifest(model)
    manifest["variants"]["cpu-bf16"] = manifest["variants"]["fp32"]
    manifest["files"] = {"fp32.onnx": declared(model)}
    return Bundle.load(write_bundle(tmp_path / "bundle", model, manifest))


def assert_alike(one, other, tolerance: float) -> None:
    for name in ("probabilities", "member_probabilities", "maps", "novelty"):
        ours, theirs = getattr(one, name), getattr(other, name)
        if theirs is None:
            assert ours is None
            continue
        scale = max(1.0, float(np.abs(theirs).max()))
        assert np.abs(ours - theirs).max() <= tolerance * scale, name


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("int8", 0.08)])
def test_the_reference_network_answers_as_in_onnx_runtime(reference, precision, tolerance):
    ours = choose_backend(reference, "openvino", precision).backend
    theirs = choose_backend(reference, "onnxruntime", precision).backend
    for seed in (0, 5):
        pattern = ours.signature.test_pattern(seed)
        assert_alike(ours.infer(pattern), theirs.infer(pattern), tolerance)


def test_many_threads_get_their_own_answers(reference):
    for threads in (None, 1):
        one = choose_backend(reference, "openvino", "int8", threads).backend
        patterns = [one.signature.test_pattern(seed) for seed in range(3)]
        expected = [one.infer(pattern) for pattern in patterns]
        assert len({outputs.maps.tobytes() for outputs in expected}) == len(patterns)
        wrong: list[int] = []

        def work(i: int, one=one, patterns=patterns, expected=expected, wrong=wrong) -> None:
            for _ in range(3):
                outputs = one.infer(patterns[i])
                if not np.array_equal(outputs.maps, expected[i].maps):
                    wrong.append(i)

        callers = [threading.Thread(target=work, args=(i,)) for i in range(len(patterns))]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(60)
        assert not any(caller.is_alive() for caller in callers)
        assert wrong == []


def test_outputs_belong_to_the_caller_and_the_input_stays_as_it_was():
    one = small()
    pattern = SMALL.test_pattern()
    pattern.flags.writeable = False
    first = one.infer(pattern)
    kept = first.maps.copy()
    one.infer(SMALL.test_pattern(1))
    assert np.array_equal(first.maps, kept)
    assert first.maps.flags.owndata
    assert np.array_equal(pattern, SMALL.test_pattern())


def test_many_studies_at_once_where_the_network_allows_it():
    signature = Signature(32, 16, 4, 2, dynamic_batch=True)
    one = small(small_model(rows=32, columns=16, dynamic_batch=True), signature)
    patterns = np.concatenate([signature.test_pattern(seed) for seed in range(3)])
    together = one.infer(patterns)
    assert together.maps.shape == (3, 2, 5, 4, 2)
    for i in range(3):
        alone = one.infer(patterns[i : i + 1])
        np.testing.assert_allclose(together.probabilities[i], alone.probabilities[0], atol=1e-6)


def test_after_close_it_says_so():
    one = small()
    one.close()
    one.close()
    with pytest.raises(UsageError) as caught:
        one.infer(SMALL.test_pattern())
    assert caught.value.code is Reason.CLOSED


def rename_output(model):
    model.graph.output[0].name = "scores"
    model.graph.node[-1].output[0] = "scores"


def rename_input(model):
    model.graph.input[0].name = "images"
    model.graph.node[0].input[0] = "images"


def unknown_operator(model):
    model.graph.node[1].op_type = "NoSuchOperator"


@pytest.mark.parametrize("change", [rename_output, rename_input, unknown_operator])
def test_a_network_that_breaks_the_contract_is_refused_at_load(change):
    with pytest.raises(EngineUnusable) as caught:
        small(small_model(rows=32, columns=16, change=change))
    assert caught.value.code is Reason.ENGINE_FAILED


def test_a_network_of_another_size_or_batch_is_refused_at_load():
    with pytest.raises(EngineUnusable, match="radiographs"):
        small(small_model(rows=64, columns=16))
    with pytest.raises(EngineUnusable, match="radiographs"):
        small(small_model(rows=32, columns=16, dynamic_batch=True))


def test_no_threads_are_refused(reference):
    with pytest.raises(UsageError):
        choose_backend(reference, "openvino", "int8", threads=0)


def test_the_second_start_takes_the_compiled_network_and_answers_alike(reference, cache):
    outputs = []
    for source in ("compiled", "cache"):
        one = choose_backend(reference, "openvino", "int8").backend
        assert one.settings["network_from"] == source
        outputs.append(one.infer(one.signature.test_pattern()))
        one.close()
    assert_alike(*outputs, tolerance=0.0)
    ((name, entry),) = cache.entries().items()
    assert entry.key.network == reference.network("cpu-int8")
    assert (cache.folder / name).stat().st_mode & 0o777 == 0o600


def spoil_content(cache: PlanCache) -> None:
    (name,) = cache.entries()
    path = cache.folder / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def spoil_index(cache: PlanCache) -> None:
    (cache.folder / "index.json").write_text("{")


def open_to_others(cache: PlanCache) -> None:
    cache.folder.chmod(0o777)


def other_version(cache: PlanCache) -> None:
    """As if another OpenVINO had compiled what lies there."""
    index = json.loads((cache.folder / "index.json").read_text())
    (entry,) = index["plans"].values()
    entry["key"]["version"] = "2024.0.0-1-abc-releases/2024/0"
    (cache.folder / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("spoil", [spoil_content, spoil_index, open_to_others, other_version])
def test_what_is_not_the_compiled_network_is_not_loaded_and_nothing_fails(tmp_path, cache, spoil):
    bundle = Bundle.load(write_bundle(tmp_path / "bundle"))
    choose_backend(bundle, "openvino", "fp32")
    spoil(cache)
    one = choose_backend(bundle, "openvino", "fp32").backend
    assert one.settings["network_from"] == "compiled"
    one.infer(one.signature.test_pattern())


def test_a_compiled_network_that_openvino_refuses_is_compiled_anew(tmp_path, cache):
    bundle = Bundle.load(write_bundle(tmp_path / "bundle"))
    choose_backend(bundle, "openvino", "fp32")
    (entry,) = cache.entries().values()
    cache.store(entry.key, b"not a compiled network", {})  # listed rightly, of no use all the same
    one = choose_backend(bundle, "openvino", "fp32").backend
    assert one.settings["network_from"] == "compiled"


def test_without_a_folder_to_write_it_works(tmp_path, monkeypatch):
    monkeypatch.setenv("HIPNET_EDGE_PLANS", os.devnull)
    bundle = Bundle.load(write_bundle(tmp_path / "bundle"))
    for _ in range(2):
        one = choose_backend(bundle, "openvino", "fp32").backend
        assert one.settings["network_from"] == "compiled"
        one.infer(one.signature.test_pattern())


def test_other_threads_or_settings_are_another_compiled_network(tmp_path, cache):
    bundle = Bundle.load(write_bundle(tmp_path / "bundle"))
    for threads in (1, 2):
        one = choose_backend(bundle, "openvino", "fp32", threads).backend
        assert one.settings["network_from"] == "compiled"
    assert len(cache.entries()) == 2


def test_bf16_is_refused_where_the_processor_has_none(tmp_path, monkeypatch):
    def without(*_):
        flags = dict.fromkeys(this_machine.X86_FLAGS, True)
        return {**flags, "avx512_bf16": False, "amx_bf16": False}

    bundle = with_bf16(tmp_path)
    monkeypatch.setattr(this_machine, "_instructions", without)
    with pytest.raises(EngineUnusable, match="no instructions for BF16") as caught:
        choose_backend(bundle, "openvino", "bf16")
    assert caught.value.code is Reason.ENGINE_UNAVAILABLE
    # What is not INT8 is computed in FP32 there, and a verdict tells the two apart.
    assert OpenVinoBackend.identify("cpu-int8").device == "cpu-vnni"
    assert OpenVinoBackend.setup("cpu-int8", 1).hint == "f32"


@pytest.mark.skipif(bf16_instructions() is None, reason="the processor has no BF16")
def test_bf16_computes_the_references_file_in_bf16(tmp_path):
    choice = choose_backend(with_bf16(tmp_path), "openvino", "bf16")
    pattern = choice.backend.signature.test_pattern()
    rounded = choice.backend.infer(pattern)
    exact = choose_backend(with_bf16(tmp_path), "openvino", "fp32").backend.infer(pattern)
    assert choice.variant == "cpu-bf16"
    assert choice.backend.device == f"cpu-{bf16_instructions()}-bf16"
    assert 0.0 < np.abs(rounded.maps - exact.maps).max() < 0.05
    assert OpenVinoBackend.identify("cpu-int8").device.startswith(int8_device())


def test_the_selftest_holds_int8_in_openvino_to_the_reference(reference):
    with Predictor(reference, backend="openvino", precision="int8") as predictor:
        report = selftest(predictor)
    assert report.passed, report
    assert max(check.largest_difference or 0.0 for check in report.checks) > 1e-3


def test_it_tells_nobody_and_leaves_nothing_in_the_home_folder(tmp_path):
    folder = write_bundle(tmp_path / "bundle")
    script = (
        "import socket, sys\n"
        "def refuse(*given): print('connects', given)\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from hipnet_edge.backends import choose_backend\n"
        "from hipnet_edge import Bundle\n"
        "backend = choose_backend(Bundle.load(sys.argv[1]), 'openvino', 'fp32').backend\n"
        "backend.infer(backend.signature.test_pattern())\n"
        "import openvino\n"
        "assert callable(openvino.convert_model)\n"  # what others use of it is still there
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(home)},
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert list(home.iterdir()) == []


def test_without_a_gpu_of_intels_its_engine_says_so(reference):
    if any(device.startswith("GPU") for device in core().available_devices):
        pytest.skip("OpenVINO finds a GPU here")
    with pytest.raises(EngineUnusable, match="finds no GPU") as caught:
        choose_backend(reference, "openvino-gpu", "fp32")
    assert caught.value.code is Reason.ENGINE_UNAVAILABLE


def test_its_threads_are_no_more_than_asked_for_and_may_go_where_the_process_may(tmp_path):
    script = (
        "import os, sys\n"
        "from hipnet_edge.backends import choose_backend\n"
        "from hipnet_edge import Bundle\n"
        "def tasks(): return set(os.listdir('/proc/self/task'))\n"
        "bundle, before = Bundle.load(sys.argv[1]), tasks()\n"
        "backend = choose_backend(bundle, 'openvino', 'fp32', threads=1).backend\n"
        "for _ in range(3): backend.infer(backend.signature.test_pattern())\n"
        "free = {frozenset(os.sched_getaffinity(int(task))) for task in tasks()}\n"
        "assert free == {frozenset(os.sched_getaffinity(0))}, free\n"
        "streams = backend.settings['concurrent_inferences']\n"
        "print(len(tasks() - before), streams)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(write_bundle(tmp_path / "bundle"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    made, streams = map(int, ran.stdout.split())
    assert made <= 2 * streams + 2
