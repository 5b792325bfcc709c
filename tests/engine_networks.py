"""A small merged network with four backbones, in the variants that TensorRT builds; knows no hips.

Names and layout are those of a bundle's files: what belongs to backbone `a` is called `a.…`, the
rest `tail.…`; a backbone ends in `a.logits` and `a.features`. Its backbones have a residual branch,
which is where a quantiser goes wrong first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NAMES = ("first", "second", "third", "fourth")
ROWS, COLUMNS, STRIDE, CHANNELS = 64, 64, 8, 16
CONVOLUTIONS = 5
"""In each backbone."""
OUTPUTS = ("probabilities", "member_probabilities", "maps", "novelty")


def _value(name: str, *shape: int, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def merged_network(seed: int = 0) -> onnx.ModelProto:
    """The float32 network: radiographs [1, 2, 64, 64] to the four outputs of the contract."""
    random = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {
        "tail.views": np.array([2, 1, ROWS, COLUMNS], np.int64),
        "tail.features_shape": np.array([1, 2, CHANNELS, 8, 8], np.int64),
        "tail.joined": np.array([2, 4 * CHANNELS, 8, 8], np.int64),
        "tail.map_shape": np.array([1, 2, 5, 8, 8], np.int64),
        "tail.vector": np.array([1, 2 * CHANNELS], np.int64),
        "tail.member": np.array([1, 1, 5], np.int64),
        "tail.one": np.array([1], np.int64),
        "tail.all": np.array([1, 2], np.int64),
    }

    def add(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def convolution(name: str, source: str, given: int, made: int, size: int, stride: int) -> str:
        scale = np.sqrt(2.0 / (given * size * size))
        weights = random.normal(0, scale, (made, given, size, size)).astype(np.float32)
        constants[f"{name}.weight"] = weights
        constants[f"{name}.bias"] = random.normal(0, 0.05, made).astype(np.float32)
        pads, strides = [size // 2] * 4, [stride] * 2
        parameters = [source, f"{name}.weight", f"{name}.bias"]
        return add("Conv", parameters, name, pads=pads, strides=strides, kernel_shape=[size] * 2)

    for name in NAMES:
        x = add("Reshape", ["radiographs", "tail.views"], f"{name}.view")
        for step, (given, made) in enumerate(((1, 8), (8, 8), (8, CHANNELS))):
            x = convolution(f"{name}.conv{step}", x, given, made, 3, 2)
            x = add("Relu", [x], f"{name}.relu{step}")
        inner = convolution(f"{name}.conv3", x, CHANNELS, CHANNELS, 3, 1)
        inner = add("Relu", [inner], f"{name}.relu3")
        inner = convolution(f"{name}.conv4", inner, CHANNELS, CHANNELS, 3, 1)
        x = add("Relu", [add("Add", [inner, x], f"{name}.sum")], f"{name}.relu4")
        add("Reshape", [x, "tail.features_shape"], f"{name}.features")
        pooled = add("GlobalAveragePool", [x], f"{name}.pooled")
        vector = add("Reshape", [pooled, "tail.vector"], f"{name}.vector")
        constants[f"{name}.classes"] = random.normal(0, 0.5, (2 * CHANNELS, 5)).astype(np.float32)
        add("MatMul", [vector, f"{name}.classes"], f"{name}.logits")
    _tail(add, convolution)
    graph = helper.make_graph(
        nodes,
        "hipnet",
        [_value("radiographs", 1, 2, ROWS, COLUMNS)],
        [
            _value("probabilities", 1, 5),
            _value("member_probabilities", 1, 4, 5),
            _value("maps", 1, 2, 5, 8, 8),
            _value("novelty", 1),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def _tail(add: Callable[..., str], convolution: Callable[..., str]) -> None:
    """Map head, fusion and novelty, all called `tail.…`."""
    joined = add("Concat", [f"{name}.features" for name in NAMES], "tail.concat", axis=2)
    joined = add("Reshape", [joined, "tail.joined"], "tail.features")
    heat = convolution("tail.map", joined, 4 * CHANNELS, 5, 1, 1)
    add("Reshape", [add("Sigmoid", [heat], "tail.glow"), "tail.map_shape"], "maps")
    members = [add("Reshape", [f"{name}.logits", "tail.member"], f"tail.{name}") for name in NAMES]
    logits = add("Concat", members, "tail.logits", axis=1)
    add("Softmax", [logits], "member_probabilities", axis=-1)
    add("ReduceMean", ["member_probabilities", "tail.one"], "probabilities", keepdims=0)
    add("ReduceMax", [logits, "tail.all"], "tail.peak", keepdims=0)
    add("Abs", ["tail.peak"], "novelty")


def tensorrt_variant(variant: str, seed: int = 0) -> bytes:
    """The network as "trt-int8" or "trt-fp16": float16 inside, float32 outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = merged_network(seed)
    if variant == "trt-int8":
        model = _quantised(model)
    half = convert_float_to_float16(model, keep_io_types=list(OUTPUTS))
    onnx.checker.check_model(half, full_check=True)
    return bytes(half.SerializeToString())


def _quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Explicit Q/DQ as TensorRT reads it: s8 symmetric, per channel, no bias, tail left alone."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
        onnx.save(model, given)
        quantize_static(
            given,
            made,
            _Noise(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Add"],
            nodes_to_exclude=[n.name for n in model.graph.node if n.name.startswith("tail.")],
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "AddQDQPairToWeight": True,
                "DedicatedQDQPair": False,
                "OpTypesToExcludeOutputQuantization": ["Conv", "Add"],
            },
        )
        return onnx.load(made)


class _Noise:
    """What the quantiser calibrates on."""

    def __init__(self) -> None:
        self._left = 4

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input, or None at the end."""
        if self._left == 0:
            return None
        self._left -= 1
        random = np.random.default_rng(self._left)
        return {"radiographs": random.normal(size=(1, 2, ROWS, COLUMNS)).astype(np.float32)}
