"""Plans really built by TensorRT-RTX, which needs no GPU for it: precision, options, refusals."""

from __future__ import annotations

import subprocess
import sys

import pytest
from engine_networks import CONVOLUTIONS, NAMES, tensorrt_variant

from hipnet_edge.backends.build_log import convolution_types, read_layers, require_precision
from hipnet_edge.backends.tensorrt_build import BuildOptions, build_plan, options_from
from hipnet_edge.backends.tensorrt_flavour import load_tensorrt, require_driver
from hipnet_edge.errors import EngineUnusable, MissingExtra, Reason, UsageError

AHEAD = BuildOptions(compute_capabilities=("8.6", "8.9"), max_aux_streams=3, workspace_mib=256)


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
def built(flavour):
    return {
        variant: build_plan(tensorrt_variant(variant), variant, flavour, AHEAD)
        for variant in ("trt-int8", "trt-fp16")
    }


@pytest.mark.parametrize(("variant", "precision"), [("trt-int8", "int8"), ("trt-fp16", "half")])
def test_every_convolution_of_the_backbones_runs_in_the_asked_precision(built, variant, precision):
    of_backbones = {
        name: found
        for name, found in built[variant].convolutions.items()
        if not name.startswith("tail.")
    }
    assert len(of_backbones) == CONVOLUTIONS * len(NAMES)
    assert set(of_backbones.values()) == {precision}
    assert built[variant].convolutions["tail.map"] == "half"
    assert built[variant].to_dict()["not_in_log"] == []
    assert built[variant].kept_float == (("tail.map",) if variant == "trt-int8" else ())


def test_the_report_of_a_build_counts_layers_streams_and_reformatting(built):
    report = built["trt-int8"].to_dict()
    assert report["by_precision"]["int8"] >= CONVOLUTIONS * len(NAMES)
    assert 1 <= report["streams"] <= 4
    assert report["signals_and_waits"] >= 0
    assert report["reformat_layers"] >= 0
    assert report["bytes"] == len(built["trt-int8"].plan) > 10_000
    assert report["seconds"] > 0


def test_a_file_that_is_not_quantised_is_no_int8_variant(flavour):
    with pytest.raises(EngineUnusable) as caught:
        build_plan(tensorrt_variant("trt-fp16"), "trt-int8", flavour, AHEAD)
    assert caught.value.code is Reason.WRONG_PRECISION
    assert "first.conv0 (half)" in caught.value.message


def test_a_file_that_is_quantised_is_no_fp16_variant(flavour, built):
    with pytest.raises(EngineUnusable, match="not built in half") as caught:
        require_precision(built["trt-int8"].convolutions, "trt-fp16")
    assert caught.value.code is Reason.WRONG_PRECISION


def test_a_file_that_is_no_network_is_refused_in_our_words(flavour):
    with pytest.raises(EngineUnusable, match="refuses") as caught:
        build_plan(b"not ONNX", "trt-int8", flavour, AHEAD)
    assert caught.value.code is Reason.ENGINE_FAILED


def test_a_gpu_that_the_builder_does_not_know_is_named(flavour):
    with pytest.raises(UsageError, match=r"6\.1.*it builds for .*8\.6"):
        build_plan(
            tensorrt_variant("trt-fp16"),
            "trt-fp16",
            flavour,
            BuildOptions(compute_capabilities=("8.6", "6.1")),
        )


def test_a_build_tells_how_far_it_is(flavour):
    said: list[str] = []
    model = tensorrt_variant("trt-int8", seed=5)
    build_plan(model, "trt-int8", flavour, AHEAD, progress=said.append)
    assert said
    assert all(" s: " in line for line in said)


def test_options_are_kept_as_json_and_others_are_refused():
    import json

    assert options_from(b"") == BuildOptions()
    assert options_from(json.dumps(AHEAD.to_dict()).encode()) == AHEAD
    for text in (b"{", b"[]", b'{"streams": 3}', b'{"hardware": 3}'):
        with pytest.raises(EngineUnusable) as caught:
            options_from(text)
        assert caught.value.code is Reason.PLAN_CORRUPT


# What the full TensorRT 10 writes; from its documentation and issue threads, not from a build here.
OF_THE_FULL_TENSORRT = """Layers:
Name: stem + relu, LayerType: CaskConvolution, Inputs: [ { Name: x, Location: Device, \
Dimensions: [1,4,64,48], Format/Datatype: Thirty-two wide channel vectorized row major Int8 \
format }], Outputs: [ { Name: y, Location: Device, Dimensions: [1,8,32,24], Format/Datatype: \
Channel major FP16 format where channel % 8 == 0 }], ParameterType: Convolution, \
Weights: {"Type": "Int8"}, \
TacticName: sm80_xmma, StreamId: 1, Metadata: [ONNX Layer: first.conv0][ONNX Layer: first.relu0]
Name: Reformatting CopyNode for Output Tensor 0, LayerType: Reformat, Inputs: [ { Name: y, \
Location: Device, Dimensions: [1,8,32,24], Format/Datatype: Row major linear FP16 format }], \
Outputs: [ { Name: z, Location: Device, Dimensions: [1,8,32,24], Format/Datatype: Row major linear \
FP32 }], TacticName: , StreamId: 0, Metadata: """


def test_the_log_of_the_full_tensorrt_is_read_too():
    first, second = read_layers(["noise", OF_THE_FULL_TENSORRT])
    assert (first.precision, first.makes, first.stream) == ("int8", ("half",), 1)
    assert first.nodes == ("first.conv0", "first.relu0")
    assert (second.kind, second.precision, second.makes) == ("Reformat", "half", ("float",))


OF_OLDER_LOGS = """Engine Layer Information:
Layer(Reformat): Reformatting CopyNode for Input Tensor 0 to stem, Tactic: 0x00000000000003e8, \
radiographs (Half[1,2,64,64]) -> Reformatted Input Tensor 0 to stem (Int8[1,2:4,64,64])
Layer(CaskConvolution): first.conv0 + first.relu0, Tactic: 0x3f, a (Int8[1,2]), s (Float[8]) -> \
b (Half[1,8:8,32,32])"""


def test_the_short_form_of_older_logs_is_read_too():
    first, second = read_layers([OF_OLDER_LOGS])
    assert (first.kind, first.reads, first.makes) == ("Reformat", ("half",), ("int8",))
    assert (second.precision, second.makes) == ("int8", ("half",))
    found = convolution_types([first, second], ["first.conv0", "first.conv1"])
    assert found == {"first.conv0": "int8", "first.conv1": None}
    require_precision(found, "trt-int8")
    with pytest.raises(EngineUnusable, match=r"^1 of 2 .*first\.conv0 \(int8\)\.$"):
        require_precision(found, "trt-fp16")


def test_without_a_driver_that_is_the_first_thing_said():
    """In a process of its own: where a driver is missing, TensorRT itself answers None or dies."""
    script = (
        "from hipnet_edge.backends.tensorrt_flavour import require_driver\n"
        "from hipnet_edge import EngineUnusable\n"
        "import sys\n"
        "try: require_driver()\n"
        "except EngineUnusable as error: print(error.code.value)\n"
        "else: print('there')\n"
        "assert not any(name.startswith('tensorrt') for name in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() in {"driver_missing", "there"}
    if ran.stdout.strip() == "driver_missing":
        with pytest.raises(EngineUnusable) as caught:
            require_driver()
        assert caught.value.code is Reason.DRIVER_MISSING


def test_no_tensorrt_at_all_names_the_extra(monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra) as caught:
        load_tensorrt()
    assert caught.value.extra == "tensorrt"


def test_a_tensorrt_that_is_broken_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(EngineUnusable, match="does not load") as caught:
        load_tensorrt()
    assert caught.value.code is Reason.ENGINE_UNAVAILABLE


def test_the_environment_can_name_the_flavour(monkeypatch):
    monkeypatch.setenv("HIPNET_EDGE_TENSORRT", "torch")
    with pytest.raises(EngineUnusable, match="tensorrt_rtx"):
        load_tensorrt()
