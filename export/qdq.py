"""Explicit quantisation for TensorRT: pairs of QuantizeLinear and DequantizeLinear in the graph.

TensorRT fuses such pairs into INT8 layers by where they stand, and wants them so: int8 symmetric
(zero point 0) throughout; a pair before the activation that a convolution reads; weights with a
scale for each output channel, which are stored as int8 and need the second of the pair alone;
outputs and biases left alone; of an addition that follows a convolution, a pair on the other
summand only, so that convolution, addition and ReLU become one layer.

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


def scale_for(largest: Any) -> NDArray[np.float32]:
    """The step with which 127 of them reach `largest`, such that half precision holds it exactly.

    So the same file means the same in single and in half precision.
    """
    wanted = np.maximum(np.asarray(largest, np.float64) / LEVELS, SMALLEST_SCALE)
    step = wanted.astype(np.float16)
    # Rounded up: rounded down, the largest value would be clipped.
    step = np.where(step < wanted, np.nextafter(step, np.float16(np.inf)), step)
    return np.asarray(step, np.float32)


def weight_steps(weights: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Weights as whole steps of -127 to 127, in their own type, and each channel's step.

    Args:
        weights: of a convolution.
        axis: of the output channels.
    """
    others = tuple(i for i in range(weights.ndim) if i != axis)
    scale = scale_for(np.abs(weights).max(axis=others))
    return np.round(weights / np.expand_dims(scale, others)).clip(-LEVELS, LEVELS), scale


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
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._place = {name: i for i, node in enumerate(graph.node) for name in node.output}
        self._nodes: list[onnx.NodeProto] = []
        self._made: dict[str, str] = {}

    def run(self, layers: set[str]) -> None:
        graph = self._graph
        fused = {node.output[0] for node in graph.node if node.name in layers}
        for node in graph.node:
            if node.name in layers:
                node.input[0] = self._activation(node.input[0])
                node.input[1] = self._weight(node.input[1], int(node.op_type == "ConvTranspose"))
            elif node.op_type == "Add" and fused.intersection(node.input):
                self._quantise_shortcut(node, fused)
            self._nodes.append(node)
        read = {name for node in self._nodes for name in node.input}
        kept = [tensor for name, tensor in self._constants.items() if name in read]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(kept)

    def _quantise_shortcut(self, node: onnx.NodeProto, fused: set[str]) -> None:
        """A pair on the summand that is not the convolution's own; of two such, on the earlier."""
        last = max(
            (name for name in node.input if name in fused), key=lambda name: self._place[name]
        )
        for i, name in enumerate(node.input):
            if name != last and name in self._ranges:
                node.input[i] = self._activation(name)

    def _activation(self, name: str) -> str:
        """The quantised and dequantised form of an activation; one serves all that read it."""
        if name not in self._made:
            low, high = self._ranges[name]
            step = self._constant(f"{name}/scale", scale_for(max(abs(low), abs(high))))
            zero = self._constant("int8_zero", np.array(0, np.int8))
            quantised, self._made[name] = f"{name}/q", f"{name}/dq"
            self._node("QuantizeLinear", [name, step, zero], quantised)
            self._node("DequantizeLinear", [quantised, step, zero], self._made[name])
        return self._made[name]

    def _weight(self, name: str, axis: int) -> str:
        """The dequantised form of a weight, which is stored in 8 bits."""
        if name not in self._made:
            steps, scale = weight_steps(numpy_helper.to_array(self._constants[name]), axis)
            quantised = self._constant(f"{name}/q", steps.astype(np.int8))
            step = self._constant(f"{name}/scale", scale)
            zero = self._constant(f"{name}/zero", np.zeros(scale.shape, np.int8))
            self._made[name] = f"{name}/dq"
            self._node("DequantizeLinear", [quantised, step, zero], self._made[name], axis=axis)
        return self._made[name]

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self._constants.setdefault(name, numpy_helper.from_array(values, name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._nodes.append(
            helper.make_node(kind, inputs, [output], f"{output}/{kind}", **attributes)
        )
