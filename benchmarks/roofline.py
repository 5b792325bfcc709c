"""The least time that this machine could need for a network: its floor.

For each layer the larger of arithmetic time and memory time, at peaks measured on this machine in
the same run; their sum is what no engine that computes layer by layer can beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Peaks:
    """What this machine reached in this run.

    Attributes:
        gops: arithmetic by precision ("fp32", "bf16", "int8"), 10^9 operations a second; a
            multiply-add is two.
        engines: which engine reached it, by precision.
        stream_gbs: 10^9 bytes a second beyond the last-level cache.
        cache_gbs: 10^9 bytes a second within a working set of a layer's size.
        threads: how many threads reached them.
    """

    gops: dict[str, float]
    engines: dict[str, str]
    stream_gbs: float
    cache_gbs: float
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        raise NotImplementedError


@dataclass(frozen=True)
class LayerFloor:
    """One layer's floor.

    Attributes:
        name: of its node.
        backbone: the backbone it belongs to, or "tail".
        operations: multiply-adds times two.
        bytes: read and written, at the types in which it computes.
        arithmetic_ms: operations at the peak.
        memory_ms: bytes at the bandwidth within the caches.
    """

    name: str
    backbone: str
    operations: int
    bytes: int
    arithmetic_ms: float
    memory_ms: float

    @property
    def ms(self) -> float:
        """The larger of both times."""
        return max(self.arithmetic_ms, self.memory_ms)

    @property
    def bound_by(self) -> str:
        """One of "arithmetic" and "memory"."""
        return "memory" if self.memory_ms > self.arithmetic_ms else "arithmetic"


@dataclass(frozen=True)
class Floor:
    """A network's floor, and each backbone's.

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

    def backbones(self) -> dict[str, dict[str, float]]:
        """Sums by backbone: operations, bytes, arithmetic_ms, memory_ms, ms."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object, layers included."""
        raise NotImplementedError


def peaks(threads: int) -> Peaks:
    """Measure this machine's peaks; takes a few seconds."""
    raise NotImplementedError


def floor(model: bytes, peaks: Peaks, precision: str = "int8") -> Floor:
    """The floor of an ONNX network that an engine computes in `precision`."""
    raise NotImplementedError
