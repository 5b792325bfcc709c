"""A fixed yardstick: ResNet-50 in FP32, in ONNX Runtime, on two views of 384 x 384.

The ensemble's own networks may change from version to version; this one does not. Random weights,
made with the onnx package alone: how long it takes does not depend on them. Batch normalisation is
folded. Source: He et al., CVPR 2016, with the stride in the 3x3 convolution as torchvision has it;
one input channel, as a radiograph has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import Peer, require, versions
from benchmarks.peers_engines import session_of

if TYPE_CHECKING:
    import onnx

NAME = "resnet50-fp32"
SHAPE = (2, 1, 384, 384)
"""What it takes, float32: two views of one channel."""
_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Width, depth and stride of the four stages."""
_CLASSES = 1000


def load(threads: int | None) -> Peer:
    """The yardstick, loaded and warm; `threads` None leaves their number to ONNX Runtime.

    Raises:
        NotHere: a package is not installed.
    """
    require("onnx")
    held: dict[str, Any] = {"session": session_of(resnet50().SerializeToString(), threads)}

    def run(views: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = held["session"].run(None, {"views": views})[0]
        return found

    run(np.zeros(SHAPE, np.float32))
    description = f"ResNet-50 FP32, random weights, input {list(SHAPE)}, one session, defaults"
    return Peer(NAME, description, "fp32", versions("onnxruntime"), run, held.clear)


class _Graph:
    """Nodes and weights as they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def add(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """A node of one output; returns the output's name."""
        from onnx import helper

        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, inputs, [output], name=f"{output}/{operator}", **attributes)
        )
        return output

    def weight(self, *shape: int, gain: float = 2.0) -> str:
        """A random constant of variance `gain` over its fan-in."""
        from onnx import numpy_helper

        deviation = np.sqrt(gain / np.prod(shape[1:])) if len(shape) > 1 else 0.01
        values = self._random.normal(0.0, deviation, shape).astype(np.float32)
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(
        self, given: str, inputs: int, outputs: int, kernel: int, stride: int, gain: float = 2.0
    ) -> str:
        """A convolution with the batch normalisation folded into it."""
        return self.add(
            "Conv",
            [given, self.weight(outputs, inputs, kernel, kernel, gain=gain), self.weight(outputs)],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
        )

    def bottleneck(self, given: str, inputs: int, width: int, stride: int) -> str:
        """1x1, 3x3, 1x1 and the shortcut."""
        x = self.add("Relu", [self.conv(given, inputs, width, 1, 1)])
        x = self.add("Relu", [self.conv(x, width, width, 3, stride)])
        # A small gain, as trained networks have: sixteen sums must not run away.
        x = self.conv(x, width, 4 * width, 1, 1, gain=0.1)
        if inputs != 4 * width:
            given = self.conv(given, inputs, 4 * width, 1, stride)
        return self.add("Relu", [self.add("Add", [x, given])])


def resnet50() -> onnx.ModelProto:
    """ResNet-50 with random weights: `views` float32 `SHAPE` to `classes` [2, 1000]."""
    from onnx import TensorProto, helper

    from export.onnx_graph import IR_VERSION, OPSET

    graph = _Graph()
    x = graph.add("Relu", [graph.conv("views", SHAPE[1], 64, 7, 2)])
    x = graph.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inputs = 64
    for width, depth, stride in _STAGES:
        for block in range(depth):
            x = graph.bottleneck(x, inputs, width, stride if block == 0 else 1)
            inputs = 4 * width
    x = graph.add("Flatten", [graph.add("GlobalAveragePool", [x])])
    x = graph.add("Gemm", [x, graph.weight(_CLASSES, inputs), graph.weight(_CLASSES)], transB=1)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "resnet50",
            [helper.make_tensor_value_info("views", TensorProto.FLOAT, SHAPE)],
            [helper.make_tensor_value_info(x, TensorProto.FLOAT, (SHAPE[0], _CLASSES))],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    model.ir_version = IR_VERSION
    return model
