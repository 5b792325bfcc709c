"""What rounding a convolution's weights adds to its output on average is taken off its bias.

Rounding errors of the weights of one output channel do not cancel: behind a ReLU all inputs are
positive, so the channel's mean moves, and every layer adds to that. Decisions hardly notice;
a distance from the mean of the training's features, such as `novelty`, does. The shift is known
before anything runs: the error of each weight times the mean of what it multiplies.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction,
ICCV 2019, section 4.2, with means that were observed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.qdq import weight_steps

Array = NDArray[Any]


def corrected(
    model: onnx.ModelProto, means: Mapping[str, Array], layers: Collection[str]
) -> onnx.ModelProto:
    """The network with biases that make up for rounded weights.

    Args:
        model: float32.
        means: the mean of each channel [C] of what the convolutions read, over a cohort.
        layers: names of those that will be quantised.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Conv" or node.name not in layers or node.input[0] not in means:
            continue
        weights = numpy_helper.to_array(constants[node.input[1]]).astype(np.float64)
        bias = _shift(weights, means[node.input[0]])
        if len(node.input) == 3:
            bias = bias + numpy_helper.to_array(constants[node.input[2]])
        # A constant of its own: others may share the old one.
        name = f"{node.output[0]}/bias"
        graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), name))
        node.input[2:] = [name]
    return result


def moved_back(model: onnx.ModelProto, output: str, by: float) -> onnx.ModelProto:
    """The network with a constant taken off one of its outputs.

    Args:
        model: any variant in single precision.
        output: the output's name.
        by: how far it lies too high.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    inner, constant, name = (f"tail.{output}/{what}" for what in ("unsettled", "shift", "settled"))
    for node in graph.node:
        node.input[:] = [inner if given == output else given for given in node.input]
        node.output[:] = [inner if made == output else made for made in node.output]
    graph.initializer.append(numpy_helper.from_array(np.array(by, np.float32), constant))
    graph.node.append(helper.make_node("Sub", [inner, constant], [output], name))
    return result


def _shift(weights: Array, means: Array) -> Array:
    """By how much rounding lowers the mean of each output channel [O].

    Args:
        weights: [O, C / groups, rows, columns].
        means: [C]; at the edges, where padding counts, they are taken for the same.
    """
    outputs, inputs = weights.shape[:2]
    groups = len(means) // inputs
    steps, scale = weight_steps(weights, axis=0)
    error = (
        (weights - steps * scale[:, None, None, None])
        .sum(axis=(2, 3))
        .reshape(groups, outputs // groups, inputs)
    )
    return np.asarray((error @ means.reshape(groups, inputs, 1)).reshape(outputs))
