"""The forms in which a merged network ships beside the reference, each one ONNX file.

One file of INT8 cannot serve two engines: ONNX Runtime's kernels for x86 want unsigned activations
with a zero point, TensorRT takes nothing but signed ones without. So there are two, made from the
same ranges, and one that is half precision alone.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx

from export import parts, qdq
from export.half import half_nodes, to_half
from export.ranges import Ranges

CPU_INT8, TRT_INT8, TRT_FP16 = "cpu-int8", "trt-int8", "trt-fp16"

_JOINS = ("Add", "Concat")
_CLIPS = ("Relu", "Clip")
_CARRY_ON = (*_CLIPS, "MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")
"""What ONNX Runtime's quantiser passes 8 bits through, if they come in as 8 bits."""


def prepare(model: onnx.ModelProto, backbones: Sequence[str]) -> onnx.ModelProto:
    """The network as quantisers want it: constants folded, shapes known, every node named.

    What ONNX Runtime's `quant_pre_process` does, but for one thing: equal nodes of two backbones
    are not made one, so that each backbone keeps its own and can be cut out.

    Raises:
        ValueError: the network was not merged by the names of its backbones.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "prepared.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(path)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["CommonSubexpressionElimination"],
        )
        prepared = onnx.load(path)
    _tidy(prepared, model)
    prepared = onnx.shape_inference.infer_shapes(prepared, strict_mode=True, data_prop=True)
    parts.cut(prepared, backbones)
    return prepared


def _tidy(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Leave nothing of the tool in a file: domains nobody uses, its name, unnamed nodes."""
    used = {node.domain for node in model.graph.node}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    del model.metadata_props[:]
    model.ir_version = original.ir_version
    model.producer_name, model.producer_version = original.producer_name, ""
    model.graph.name = original.graph.name
    for node in model.graph.node:
        node.doc_string = ""
        node.name = node.name or f"{node.output[0]}/{node.op_type}"


def planes(model: onnx.ModelProto) -> set[str]:
    """The float32 activations with four axes or more."""
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    return {
        value.name
        for value in values
        if len(value.type.tensor_type.shape.dim) >= 4
        and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }


def cpu_layers(model: onnx.ModelProto) -> list[str]:
    """What is quantised for the CPU: convolutions, and what joins their planes.

    Not those whose result no other of them reads, such as the last one of a map: a kernel for 8
    bits gives 8 bits, and a decision or a probability would have no finer steps than that. Not
    those either that read the radiographs themselves: they are a small part of the work, and 8
    bits are fewer than a radiograph has.
    """
    spatial = planes(model)
    candidates = set(qdq.convolutions(model)) - _readers_of_input(model)
    candidates |= {
        node.name
        for node in model.graph.node
        if node.op_type in _JOINS and node.output[0] in spatial
    }
    read: set[str] = set()
    chosen = []
    for node in reversed(model.graph.node):
        if node.name in candidates:
            if node.output[0] in read:
                chosen.append(node.name)
            read.update(node.input)
        elif node.op_type in _CARRY_ON and node.output[0] in read:
            read.add(node.input[0])
    return chosen[::-1]


def _readers_of_input(model: onnx.ModelProto) -> set[str]:
    """The names of the convolutions that read the network's input, whatever its shape by then."""
    same = {value.name for value in model.graph.input}
    readers = set()
    for node in model.graph.node:
        if node.input and node.input[0] in same:
            if node.op_type in qdq.CONVOLUTIONS:
                readers.add(node.name)
            elif node.op_type in _CARRY_ON and node.op_type not in _CLIPS:
                same.update(node.output)
    return readers


def tensors_to_observe(model: onnx.ModelProto) -> list[str]:
    """The activations whose range a quantiser may ask for.

    Those that a quantised layer reads or gives; of a layer that an activation function follows,
    what comes out of that.
    """
    asked = {*cpu_layers(model), *qdq.convolutions(model)}
    follows = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type in _CLIPS}
    read: Counter[str] = Counter(name for node in model.graph.node for name in node.input)
    names: list[str] = []
    for node in model.graph.node:
        if node.name in asked:
            names += node.input
            (given,) = node.output
            if given in follows:
                names.append(follows[given])
            if given not in follows or read[given] > 1:
                names.append(given)
    known = planes(model)
    return [name for name in dict.fromkeys(names) if name in known]


def cpu_int8(model: onnx.ModelProto, ranges: Ranges, layers: Collection[str]) -> onnx.ModelProto:
    """For ONNX Runtime on a CPU: u8 activations with a zero point, s8 weights by channel.

    Args:
        model: from `prepare`.
        ranges: of `tensors_to_observe`.
        layers: names of the nodes to quantise, out of `cpu_layers`.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    for node in model.graph.node:
        # What an activation function cuts off is in no range; the quantiser removes the function.
        if node.op_type in _CLIPS and node.output[0] in data:
            data.setdefault(node.input[0], data[node.output[0]])
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    carried = [node.name for node in model.graph.node if node.op_type in _CARRY_ON]
    quantizer = QDQQuantizer(
        copied,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[*layers, *carried],
        nodes_to_exclude=[],
        op_types_to_quantize=[*qdq.CONVOLUTIONS, *_JOINS, *_CARRY_ON],
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantised: onnx.ModelProto = quantizer.model.model
    _tidy(quantised, model)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def for_tensorrt(model: onnx.ModelProto, backbones: Sequence[str]) -> onnx.ModelProto:
    """For TensorRT: half precision where it is safe.

    Args:
        model: from `prepare`, with or without the pairs of `export.qdq.insert`.
        backbones: their names.
    """
    return to_half(model, half_nodes(model, backbones))
