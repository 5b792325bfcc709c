"""The floor counts what a layer must do, in the types in which it is done."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.peers_yardstick import resnet50
from benchmarks.roofline import Peaks, floor, peaks
from hipnet_edge.bundle import Bundle

GIVEN = Peaks(
    {"fp32": 100.0, "bf16": 200.0, "int8": 400.0}, {}, stream_gbs=1.0, cache_gbs=10.0, threads=1
)
PLANE = 2 * 8 * 16 * 16
"""Values of [2, 8, 16, 16]."""


def network(nodes, weights, shape=(2, 8, 16, 16)):
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


def conv(given, made, weights="w", kernel=3, **more):
    return helper.make_node(
        "Conv", [given, weights], [made], name=f"{made}/Conv", pads=[kernel // 2] * 4, **more
    )


def quantised(name):
    return [
        helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", "s", "z"], [f"{name}_dq"]),
    ]


def kernel(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def test_a_convolution_reads_its_input_and_weights_and_writes_its_output():
    model = network([conv("x", "y")], {"w": kernel(8, 8, 3, 3)})
    (layer,) = floor(model, GIVEN, "fp32").layers
    assert layer.operations == 2 * PLANE * 8 * 9
    assert layer.bytes == 4 * (PLANE + 8 * 8 * 9 + PLANE)
    assert layer.arithmetic_ms == pytest.approx(layer.operations / 100e9 * 1e3)
    assert layer.memory_ms == pytest.approx(layer.bytes / 10e9 * 1e3)
    assert layer.bound_by == "arithmetic"
    assert layer.ms == layer.arithmetic_ms
    half = floor(model, GIVEN, "bf16").layers[0]
    assert (half.bytes, half.arithmetic_ms) == (layer.bytes / 2, layer.arithmetic_ms / 2)


def test_depthwise_convolutions_are_bound_by_memory():
    model = network([conv("x", "y", group=8)], {"w": kernel(8, 1, 3, 3)})
    (layer,) = floor(model, GIVEN, "fp32").layers
    assert layer.operations == 2 * PLANE * 9
    assert layer.bound_by == "memory"
    assert layer.ms == layer.memory_ms


def test_a_residual_sum_costs_the_bytes_it_reads_and_that_once():
    nodes = [
        conv("x", "body"),
        conv("x", "shortcut", "v", kernel=1),
        helper.make_node("Add", ["body", "shortcut"], ["sum"], name="sum"),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    body, shortcut = floor(
        network(nodes, {"w": kernel(8, 8, 3, 3), "v": kernel(8, 8, 1, 1)}), GIVEN, "fp32"
    ).layers
    assert body.bytes == 4 * (2 * PLANE + 8 * 8 * 9 + PLANE)
    assert shortcut.bytes == 4 * (2 * PLANE + 8 * 8)


def test_types_follow_the_quantisation():
    """The first layer is left in floating point and its output rounded; the second is 8 bits."""
    nodes = [
        conv("x", "a"),
        helper.make_node("Relu", ["a"], ["b"]),
        *quantised("b"),
        helper.make_node("DequantizeLinear", ["w8", "s", "z8"], ["w8_dq"]),
        conv("b_dq", "y", "w8_dq"),
    ]
    weights = {
        "w": kernel(8, 8, 3, 3),
        "w8": kernel(8, 8, 3, 3, dtype=np.int8),
        "s": np.float32(0.1),
        "z": np.uint8(0),
        "z8": np.int8(0),
    }
    first, second = floor(network(nodes, weights), GIVEN, "int8").layers
    assert (first.precision, second.precision) == ("bf16", "int8")
    assert first.bytes == 2 * (PLANE + 8 * 8 * 9) + PLANE
    assert second.bytes == PLANE + 8 * 8 * 9 + 2 * PLANE
    assert second.arithmetic_ms == pytest.approx(second.operations / 400e9 * 1e3)
    without = Peaks({"fp32": 100.0, "int8": 400.0}, {}, 1.0, 10.0, 1)
    first, _ = floor(network(nodes, weights), without, "int8").layers
    assert first.precision == "fp32"
    with pytest.raises(ValueError, match="no peak in bf16"):
        floor(network(nodes, weights), without, "bf16")


def test_matrix_products_count_once_for_each_weight():
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], name="y/Gemm", transB=1)]
    model = network(nodes, {"w": kernel(5, 30)}, shape=(3, 30))
    (layer,) = floor(model, GIVEN, "fp32").layers
    assert layer.operations == 2 * 3 * 30 * 5
    assert layer.bytes == 4 * (3 * 30 + 5 * 30 + 3 * 5)


def test_the_reference_bundle_adds_up():
    bundle = Bundle.reference()
    single, int8 = (
        floor(bundle.model(variant), GIVEN, precision)
        for variant, precision in (("fp32", "fp32"), ("cpu-int8", "int8"))
    )
    assert single.operations == int8.operations  # the same network
    assert int8.ms < single.ms / 3
    names = {backbone.name for backbone in bundle.manifest.backbones}
    for found in (single, int8):
        parts = found.backbones()
        assert set(parts) == names | {"tail"}
        assert sum(part.ms for part in parts.values()) == pytest.approx(found.ms)
        assert found.ms <= found.stream_ms
        report = found.to_dict()
        assert report["operations"] == found.operations
        assert len(report["by_layer"]) == report["layers"] == len(found.layers)
    quantised_share = (
        sum(layer.operations for layer in int8.layers if layer.precision == "int8")
        / int8.operations
    )
    assert quantised_share > 0.95


def test_resnet_50_has_the_operations_that_everybody_counts():
    """4.09 GMAC at 224 x 224 with three input channels; here two views of 384 x 384 with one."""
    found = floor(resnet50().SerializeToString(), GIVEN, "fp32")
    stem = 2 * 2 * 64 * 49 * 192 * 192
    expected = 2 * 2 * 4.09e9 * (384 / 224) ** 2 - 2 * stem
    assert found.operations == pytest.approx(expected, rel=0.01)


def test_peaks_are_measured_on_this_machine():
    pytest.importorskip("onnxruntime")
    found = peaks(1)
    assert {"fp32", "int8"} <= set(found.gops)
    assert set(found.gops) == set(found.reached_by)
    assert all(value > 1.0 for value in found.gops.values())
    assert found.cache_gbs > 0.5
    assert found.stream_gbs > 0.5
    assert found.to_dict()["threads"] == 1
