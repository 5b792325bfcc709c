"""The least time that this machine could need for a network: its floor.

For each convolution and matrix product the larger of arithmetic time and memory time, at peaks
measured on this machine in the same run (Williams et al., Roofline, CACM 2009). Their sum is what
no engine that works layer by layer can beat. Everything is counted in the engine's favour, so that
the floor stays one: what can be fused into a layer (ReLU, residual sums, quantisation) costs
nothing but the bytes it reads; pooling, concatenation and reshaping cost nothing at all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from benchmarks.roofline_peaks import Peaks, peaks

if TYPE_CHECKING:
    import onnx

__all__ = ["Floor", "LayerFloor", "Peaks", "floor", "peaks"]

_FLOAT_BYTES = {"fp32": 4, "bf16": 2}
_PASSES_THROUGH = ("Relu", "Clip", "QuantizeLinear", "DequantizeLinear", "Cast")
"""What every engine fuses into the layer before."""
_RESHAPES = ("Reshape", "Transpose", "Cast", "Identity", "Squeeze", "Unsqueeze", "Flatten")


@dataclass(frozen=True)
class LayerFloor:
    """One layer's floor.

    Attributes:
        name: of its node.
        backbone: the backbone it belongs to, or "tail".
        precision: "int8", "bf16" or "fp32".
        operations: multiply-adds times two.
        bytes: read and written, at the types in which it computes.
        arithmetic_ms: operations at the peak.
        memory_ms: bytes at the bandwidth within the caches.
        stream_ms: bytes at the bandwidth beyond them.
    """

    name: str
    backbone: str
    precision: str
    operations: int
    bytes: int
    arithmetic_ms: float
    memory_ms: float
    stream_ms: float

    @property
    def ms(self) -> float:
        """The larger of arithmetic and memory time."""
        return max(self.arithmetic_ms, self.memory_ms)

    @property
    def bound_by(self) -> str:
        """Which of both is larger: "arithmetic" or "memory"."""
        return "memory" if self.memory_ms > self.arithmetic_ms else "arithmetic"

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "ms": self.ms, "bound_by": self.bound_by}


@dataclass(frozen=True)
class Floor:
    """A network's floor, and each backbone's.

    The floor rests on the bandwidth within the caches: a layer of two views reads and writes 0.1 to
    3 MB, and the weights of the whole network stay in the last level from study to study. Where
    they do not, `stream_ms` is nearer to the truth.

    Attributes:
        precision: "fp32", "bf16" or "int8".
        layers: in the order of the graph.
    """

    precision: str
    layers: tuple[LayerFloor, ...]

    @property
    def ms(self) -> float:
        """The sum over all layers."""
        return sum(layer.ms for layer in self.layers)

    @property
    def stream_ms(self) -> float:
        """The same if all bytes came from beyond the caches and went there: no lower bound."""
        return sum(max(layer.arithmetic_ms, layer.stream_ms) for layer in self.layers)

    @property
    def operations(self) -> int:
        """Of all layers."""
        return sum(layer.operations for layer in self.layers)

    @property
    def bytes(self) -> int:
        """Of all layers."""
        return sum(layer.bytes for layer in self.layers)

    def backbones(self) -> dict[str, Floor]:
        """The floor of each backbone and of the tail."""
        names = dict.fromkeys(layer.backbone for layer in self.layers)
        return {
            name: Floor(
                self.precision, tuple(layer for layer in self.layers if layer.backbone == name)
            )
            for name in names
        }

    def sums(self) -> dict[str, Any]:
        """What it adds up to, as a JSON object."""
        return {
            "layers": len(self.layers),
            "operations": self.operations,
            "bytes": self.bytes,
            "arithmetic_ms": sum(layer.arithmetic_ms for layer in self.layers),
            "memory_ms": sum(layer.memory_ms for layer in self.layers),
            "ms": self.ms,
            "stream_ms": self.stream_ms,
            "memory_bound_layers": sum(layer.bound_by == "memory" for layer in self.layers),
        }

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object, backbones and layers included."""
        return {
            "precision": self.precision,
            **self.sums(),
            "backbones": {name: part.sums() for name, part in self.backbones().items()},
            "by_layer": [layer.to_dict() for layer in self.layers],
        }


def floor(model: bytes, peaks: Peaks, precision: str = "int8") -> Floor:
    """The floor of an ONNX network.

    Args:
        model: the network; every shape must follow from the file.
        peaks: what this machine reached.
        precision: in which it computes: "fp32", "bf16", or "int8" for a network with Q/DQ pairs.
            What such a network leaves in floating point is counted at the faster of BF16 and FP32.

    Raises:
        ValueError: this machine has no such peak, or a shape in the network is not known.
    """
    if precision not in peaks.gops:
        raise ValueError(f"this machine has no peak in {precision}")
    return Floor(precision, tuple(_Walk(model, peaks, precision).layers()))


class _Walk:
    """An ONNX graph, layer by layer."""

    def __init__(self, model: bytes, peaks: Peaks, precision: str) -> None:
        import onnx

        loaded = onnx.load_from_string(model)
        graph = onnx.shape_inference.infer_shapes(loaded, data_prop=True).graph
        self._nodes = list(graph.node)
        self._peaks = peaks
        self._int8 = precision == "int8"
        floats = {name: peaks.gops.get(name, 0.0) for name in _FLOAT_BYTES}
        self._float = max(floats, key=floats.__getitem__) if self._int8 else precision
        self._made = {output: node for node in self._nodes for output in node.output}
        self._uses: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes:
            for given in node.input:
                self._uses.setdefault(given, []).append(node)
        values = (*graph.value_info, *graph.input, *graph.output)
        self._shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in values
        }
        self._shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        self._constants = {tensor.name for tensor in graph.initializer}
        self._backbones = {
            name.removesuffix(".logits") for name in self._made if name.endswith(".logits")
        }
        self._summed: set[str] = set()

    def layers(self) -> list[LayerFloor]:
        """All convolutions and matrix products."""
        return [
            self._layer(node) for node in self._nodes if node.op_type in ("Conv", "Gemm", "MatMul")
        ]

    def _layer(self, node: onnx.NodeProto) -> LayerFloor:
        data, weights, output = node.input[0], node.input[1], node.output[0]
        int8 = self._int8 and self._is_int8(data) and self._is_int8(weights)
        kind = "int8" if int8 else self._float
        sides = self._size(output)
        if node.op_type == "Conv":
            terms = prod(self._shape(weights)[1:])
        else:
            transposed = any(one.name == "transA" and one.i for one in node.attribute)
            terms = self._shape(data)[0 if transposed else -1]
        operations = 2 * sides * terms
        moved = sum(self._bytes(name) for name in (data, weights)) + self._epilogue(output)
        return LayerFloor(
            name=node.name,
            backbone=self._backbone(node.name),
            precision=kind,
            operations=operations,
            bytes=moved,
            arithmetic_ms=operations / self._peaks.gops[kind] / 1e6,
            memory_ms=moved / self._peaks.cache_gbs / 1e6,
            stream_ms=moved / self._peaks.stream_gbs / 1e6,
        )

    def _epilogue(self, tensor: str) -> int:
        """Bytes that a layer writes, and those its fused residual sums read."""
        read = 0
        while len(users := self._uses.get(tensor, [])) == 1:
            (user,) = users
            if user.op_type == "Add" and user.name not in self._summed:
                # Fused into the first of the layers before it, and what is added is read there.
                self._summed.add(user.name)
                read += sum(self._bytes(name) for name in user.input if name != tensor)
            elif user.op_type not in _PASSES_THROUGH:
                break
            tensor = user.output[0]
        return read + self._bytes(tensor)

    def _bytes(self, tensor: str) -> int:
        width = 1 if self._int8 and self._is_int8(tensor) else _FLOAT_BYTES[self._float]
        return self._size(tensor) * width

    def _is_int8(self, tensor: str) -> bool:
        """Whether a tensor lies in memory as 8 bits: it comes from them, or is rounded to them."""
        node = self._made.get(tensor)
        while node is not None and node.op_type in _RESHAPES:
            node = self._made.get(node.input[0])
        if node is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return True
        return any(user.op_type == "QuantizeLinear" for user in self._uses.get(tensor, []))

    def _shape(self, tensor: str) -> list[int]:
        shape = self._shapes.get(tensor)
        if shape is None or 0 in shape:
            raise ValueError(f"the network does not say which shape {tensor} has")
        return shape

    def _size(self, tensor: str) -> int:
        return prod(self._shape(tensor))

    def _backbone(self, name: str) -> str:
        prefix = name.partition(".")[0]
        return prefix if prefix in self._backbones else "tail"
