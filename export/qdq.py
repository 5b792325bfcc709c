"""Explicit quantisation for TensorRT: pairs of QuantizeLinear and DequantizeLinear in the graph.

TensorRT fuses such pairs into INT8 layers by where they stand, and wants them so: int8 symmetric
(zero point 0) throughout; a pair before each input of a convolution; weights with a scale for each
output channel; outputs and biases left alone; of an addition that follows a convolution, a pair on
the other summand only, so that convolution, addition and ReLU become one layer.

Source: NVIDIA, Working with quantized types (TensorRT documentation), explicit quantization.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.ranges import Ranges

CONVOLUTIONS = ("Conv", "ConvTranspose")
LEVELS = 127
SMALLEST_SCALE = 2.0**-18
"""A scale below this would be 0 in half precision; weights so small say nothing."""
_ZERO = "int8_zero"


def scale_for(largest: Any) -> NDArray[np.float32]:
    """The step with which 127 of them reach `largest`, such that half precision holds it exactly.

    So the same file means the same in single and in half precision.
    """
    wanted = np.maximum(np.asarray(largest, np.float64) / LEVELS, SMALLEST_SCALE)
    step = wanted.astype(np.float16)
    # Rounded up: rounded down, the largest value would be clipped.
    step = np.where(step < wanted, np.nextafter(step, np.float16(np.inf)), step)
    return np.asarray(step, np.float32)


def convolutions(model: onnx.ModelProto) -> list[str]:
    """The names of the convolutions whose weights are constants: what can be quantised."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in CONVOLUTIONS and node.input[1] in constants
    ]


def insert(model: onnx.ModelProto, ranges: Ranges, layers: Collection[str]) -> onnx.ModelProto:
    """The network with quantised convolutions.

    Args:
        model: float32.
        ranges: of the activations.
        layers: names of the convolutions to quantise; all others stay as they are.
    """
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    _Insertion(quantised.graph, ranges).run(set(layers))
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


class _Insertion:
    """One graph on its way to explicit quantisation."""

    def __init__(self, graph: onnx.GraphProto, ranges: Ranges) -> None:
        self._graph = graph
        self._ranges = ranges
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._place = {name: i for i, node in enumerate(graph.node) for name in node.output}
        self._nodes: list[onnx.NodeProto] = []
        self._pairs: dict[tuple[str, int | None], str] = {}

    def run(self, layers: set[str]) -> None:
        graph = self._graph
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), _ZERO))
        fused = {node.output[0] for node in graph.node if node.name in layers}
        for node in graph.node:
            if node.name in layers:
                node.input[0] = self._activation(node.input[0])
                node.input[1] = self._weight(node.input[1], int(node.op_type == "ConvTranspose"))
            elif node.op_type == "Add" and fused.intersection(node.input):
                self._quantise_shortcut(node, fused)
            self._nodes.append(node)
        del graph.node[:]
        graph.node.extend(self._nodes)

    def _quantise_shortcut(self, node: onnx.NodeProto, fused: set[str]) -> None:
        """A pair on the summand that is not the convolution's own; of two such, on the earlier."""
        last = max(
            (name for name in node.input if name in fused), key=lambda name: self._place[name]
        )
        for i, name in enumerate(node.input):
            if name != last and name in self._ranges:
                node.input[i] = self._activation(name)

    def _activation(self, name: str) -> str:
        low, high = self._ranges[name]
        return self._pair(name, scale_for(max(abs(low), abs(high))), None)

    def _weight(self, name: str, axis: int) -> str:
        values = numpy_helper.to_array(self._weights[name])
        others = tuple(i for i in range(values.ndim) if i != axis)
        return self._pair(name, scale_for(np.abs(values).max(axis=others)), axis)

    def _pair(self, name: str, scale: NDArray[np.float32], axis: int | None) -> str:
        """The dequantised form of a tensor; one pair serves all that read it."""
        if (name, axis) in self._pairs:
            return self._pairs[name, axis]
        quantised, dequantised, step = (f"{name}/{part}" for part in ("q", "dq", "scale"))
        zero = _ZERO
        along: dict[str, Any] = {} if axis is None else {"axis": axis}
        if axis is not None:
            zero = f"{name}/zero"
            zeros = np.zeros(scale.shape, np.int8)
            self._graph.initializer.append(numpy_helper.from_array(zeros, zero))
        self._graph.initializer.append(numpy_helper.from_array(scale, step))
        self._nodes += [
            helper.make_node(
                "QuantizeLinear", [name, step, zero], [quantised], f"{quantised}/Q", **along
            ),
            helper.make_node(
                "DequantizeLinear",
                [quantised, step, zero],
                [dequantised],
                f"{dequantised}/DQ",
                **along,
            ),
        ]
        self._pairs[name, axis] = dequantised
        return dequantised
