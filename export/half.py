"""Half precision where it is safe, single precision where it is not, written into the graph.

TensorRT's strongly typed networks take every type from the file, so the file must say it. Planes
of features are half: they are most of the work, and of order 1 to 1000. What follows them (the
decision of each backbone, softmax, novelty with its squared distances, the sigmoid of the maps)
is a few thousand numbers in which half precision could overflow or lose a probability's digits:
it stays single. Inputs become half, outputs stay single.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_SINGLE, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_LARGEST = float(np.finfo(np.float16).max)
_ALWAYS_SINGLE = {"Resize": (1, 2)}
"""Inputs (by operator and place) that the standard wants in single precision whatever else is."""


def half_nodes(model: onnx.ModelProto, backbones: Sequence[str]) -> set[str]:
    """The names of the nodes that may be half.

    In a backbone all that touch planes of features (four axes or more); in the tail all that a
    convolution still depends on, and the convolutions.

    Args:
        model: float32, quantised or not, every node named.
        backbones: names of the backbones; what they make is called `<name>.…`.
    """
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    rank = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    rank.update({tensor.name: len(tensor.dims) for tensor in inferred.initializer})
    prefixes = tuple(f"{name}." for name in backbones)
    leads_on: set[str] = set()
    chosen = set()
    for node in reversed(model.graph.node):
        spatial = max((rank.get(name, 0) for name in (*node.input, *node.output)), default=0) >= 4
        convolves = node.op_type in ("Conv", "ConvTranspose")
        before_convolution = convolves or bool(leads_on.intersection(node.output))
        if before_convolution:
            leads_on.update(node.input)
        own = node.output[0].startswith(prefixes)
        if (own and spatial) or (not own and before_convolution):
            chosen.add(node.name)
    return chosen


def to_half(model: onnx.ModelProto, half: set[str]) -> onnx.ModelProto:
    """The same network with some nodes in half precision, and casts where the precision changes.

    Args:
        model: float32, every node named, without branches or loops.
        half: names of the nodes that become half.

    Raises:
        ValueError: a weight does not fit into half precision, or the network has branches.
    """
    return _Conversion(model).run(half)


class _Conversion:
    """One network on its way to mixed precision."""

    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, data_prop=True).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self._floats = {v.name for v in values if v.type.tensor_type.elem_type == _SINGLE}
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._floats |= {name for name, t in self._weights.items() if t.data_type == _SINGLE}
        self._is_half: dict[str, bool] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._kept: dict[str, onnx.TensorProto] = {}
        self._cast: set[str] = set()
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)

    def run(self, half: set[str]) -> onnx.ModelProto:
        graph = self._model.graph
        for value in graph.input:
            if value.name in self._floats:
                value.type.tensor_type.elem_type = _HALF
                self._is_half[value.name] = True
        for node in graph.node:
            if any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
                raise ValueError(f"{node.name} branches or loops; such networks are not converted")
            self._convert(node, node.name in half)
        for value in graph.output:
            if self._is_half.get(value.name):
                self._give_single(value.name)
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._kept.values())
        typed = onnx.shape_inference.infer_shapes(
            self._model, check_type=True, strict_mode=True, data_prop=True
        )
        onnx.checker.check_model(typed, full_check=True)
        return typed

    def _convert(self, node: onnx.NodeProto, half: bool) -> None:
        single = _ALWAYS_SINGLE.get(node.op_type, ())
        for place, name in enumerate(node.input):
            if name in self._weights:
                node.input[place] = self._weight(name, half and place not in single)
            elif name in self._floats:
                node.input[place] = self._as(name, half and place not in single)
        for attribute in node.attribute:
            if half and node.op_type == "Cast" and attribute.i == _SINGLE:
                attribute.i = _HALF
            elif half and attribute.type == attribute.TENSOR and attribute.t.data_type == _SINGLE:
                attribute.t.CopyFrom(_halved(attribute.t, attribute.t.name))
        self._is_half.update({name: half for name in node.output if name in self._floats})
        self._nodes.append(node)

    def _weight(self, name: str, half: bool) -> str:
        """A weight's name in the wanted precision; a copy of each is kept that is asked for."""
        tensor = self._weights[name]
        if half and tensor.data_type == _SINGLE:
            tensor = _halved(tensor, f"{name}/half")
        kept = str(tensor.name)
        self._kept.setdefault(kept, tensor)
        return kept

    def _as(self, name: str, half: bool) -> str:
        """An activation's name in the wanted precision; one cast serves all that ask."""
        if self._is_half[name] == half:
            return name
        cast = f"{name}/{'half' if half else 'single'}"
        if cast not in self._cast:
            self._cast.add(cast)
            kind = _HALF if half else _SINGLE
            self._nodes.append(helper.make_node("Cast", [name], [cast], f"{cast}/Cast", to=kind))
        return cast

    def _give_single(self, name: str) -> None:
        """Let an output be single: what made it makes it under another name, a cast follows."""
        inner = f"{name}/half"
        for node in self._nodes:
            node.input[:] = [inner if given == name else given for given in node.input]
            node.output[:] = [inner if made == name else made for made in node.output]
        self._nodes.append(helper.make_node("Cast", [inner], [name], f"{name}/Cast", to=_SINGLE))


def _halved(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    if values.size and np.abs(values).max() > _LARGEST:
        raise ValueError(f"{tensor.name} holds {np.abs(values).max():g}, too large for half")
    return numpy_helper.from_array(values.astype(np.float16), name)
