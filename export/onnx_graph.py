"""Work on ONNX graphs: from PyTorch to a lean graph, and many graphs joined to one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference, version_converter

if TYPE_CHECKING:
    from torch import nn

OPSET = 20
"""The newest that TensorRT 10.3 reads; ONNX Runtime reads it since 1.17."""
IR_VERSION = 10
"""ONNX Runtime 1.23, the last for Python 3.10, and TensorRT 10 read no newer container."""

_WORTH_A_CAST = 1024
"""Smaller weights are not worth a node."""


def from_torch(
    module: nn.Module,
    example: tuple[Any, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_batch: bool = False,
) -> onnx.ModelProto:
    """The lean ONNX form of a deployed module.

    Args:
        module: from `export.network.deploy`.
        example: its arguments, tensors or lists of tensors, for one study; two if dynamic.
        inputs: a name for each tensor of the example.
        outputs: a name for each tensor of the result.
        dynamic_batch: let the first axis of every input be of any size.
    """
    import torch  # what only works on graphs runs without it

    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    shapes = tuple(
        [batch] * len(argument) if isinstance(argument, list) else batch for argument in example
    )
    program = torch.onnx.export(
        module,
        example,
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=shapes if dynamic_batch else None,
        external_data=False,
        verbose=False,
    )
    assert program is not None  # only without dynamo
    model: onnx.ModelProto = program.model_proto
    model.ir_version = IR_VERSION
    _name_nodes(model.graph)
    strip(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name every node after the module it comes from: `trunk.1.0/Conv`."""
    seen: Counter[str] = Counter()
    for node in graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}
        path = re.findall(r"'([^']*)'", scopes.get("pkg.torch.onnx.name_scopes", ""))
        # The last entry is the operator itself, the one before it its module.
        module = next((name for name in reversed(path[:-1]) if name), "network")
        name = f"{module}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"


def strip(model: onnx.ModelProto) -> None:
    """Remove what exporters note down, such as stack traces with this machine's paths."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        item.doc_string = ""
        del item.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    graph.name = "hipnet"
    model.producer_name, model.producer_version = "hipnet_edge export", ""


def rename(graph: onnx.GraphProto, new_name: Callable[[str], str]) -> None:
    """Give every tensor and node of a graph, subgraphs included, another name.

    A node without a name gets that of what it makes.
    """
    for node in graph.node:
        node.name = new_name(node.name or f"{node.output[0]}/{node.op_type}")
        node.input[:] = [new_name(name) if name else "" for name in node.input]
        node.output[:] = [new_name(name) if name else "" for name in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                rename(inner, new_name)
    for item in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.name = new_name(item.name)


def store_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with its large weights stored in half precision: a file of half the size.

    What is computed, and in which precision, stays: a cast stands between each of these weights
    and what reads it, which engines do once when they load. The weights are rounded to 11 bits.
    Weights too large or too small for that stay as they are.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, casts = result.graph, []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _WORTH_A_CAST or not _fits_half(values):
            continue
        name, stored = tensor.name, f"{tensor.name}/stored"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        to = onnx.TensorProto.FLOAT
        casts.append(helper.make_node("Cast", [stored], [name], f"{stored}/Cast", to=to))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(result, full_check=True)
    return result


def _fits_half(values: NDArray[np.float32]) -> bool:
    """Whether half precision holds every value, and the largest with all its digits."""
    half, largest = np.finfo(np.float16), np.abs(values).max()
    return bool(np.isfinite(largest) and 1e3 * half.smallest_normal < largest <= half.max)


def parameter_count(model: onnx.ModelProto) -> int:
    """Floating-point numbers in the initializers."""
    return sum(
        int(np.prod(tensor.dims))
        for tensor in model.graph.initializer
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    )


def multiply_accumulates(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of convolutions for one study; all else costs next to nothing."""
    shapes = {
        value.name: [max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim]
        for value in shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    }
    shapes.update({tensor.name: list(tensor.dims) for tensor in model.graph.initializer})
    return sum(
        int(np.prod(shapes[node.output[0]])) * int(np.prod(shapes[node.input[1]][1:]))
        for node in model.graph.node
        if node.op_type == "Conv"
    )


def join(
    parts: Mapping[str, onnx.ModelProto], tail: onnx.ModelProto, entry: str
) -> onnx.ModelProto:
    """One graph of several that read the same input and of a tail that reads their outputs.

    Args:
        parts: by name; what part `a` calls `x` is called `a.x` in the joined graph.
        tail: its inputs are named like the parts' outputs there; its outputs are the graph's.
        entry: the one input that all parts share; it keeps its name.
    """
    graph = onnx.GraphProto(name="hipnet")
    outputs = {value.name for value in tail.graph.output}
    named = {**parts, "tail": tail}
    given = {value.name for value in tail.graph.input}
    for name, original in named.items():
        part = onnx.ModelProto()
        part.CopyFrom(_at_our_opset(original))
        keep = {entry} if name != "tail" else given | outputs

        def new_name(old: str, keep: set[str] = keep, name: str = name) -> str:
            return old if old in keep else f"{name}.{old}"

        rename(part.graph, new_name)
        graph.node.extend(part.graph.node)
        graph.initializer.extend(part.graph.initializer)
        if name != "tail" and not graph.input:
            graph.input.append(part.graph.input[0])
    graph.output.extend(tail.graph.output)
    _share_initializers(graph)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    strip(model)
    model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def _at_our_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in the opset of the joined graph.

    Raises:
        ValueError: it uses operators or functions outside the standard.
    """
    versions = {opset.domain: opset.version for opset in model.opset_import}
    used = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if used or model.functions:
        raise ValueError(f"a backbone uses more than the standard operators: {sorted(used)}")
    version = versions.get("", versions.get("ai.onnx", 0))
    return model if version == OPSET else version_converter.convert_version(model, OPSET)


def _share_initializers(graph: onnx.GraphProto) -> None:
    """Keep one of each set of equal constants."""
    first: dict[tuple[Any, ...], str] = {}
    same: dict[str, str] = {}
    kept = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        key = (tensor.data_type, values.shape, values.tobytes())
        same[tensor.name] = first.setdefault(key, tensor.name)
        if same[tensor.name] == tensor.name:
            kept.append(tensor)
    shared = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(shared)
    _reconnect(graph, same)


def _reconnect(graph: onnx.GraphProto, same: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _reconnect(inner, same)
