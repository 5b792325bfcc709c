"""In which precision each layer of a plan runs, read from the log of its build.

The builder, told to be verbose and detailed, ends with a line for each layer: its type, the types
of what it reads and makes, its stream, and the ONNX nodes it came from. TensorRT-RTX 1.7 writes
`Datatype: Int8`, the full TensorRT `Format/Datatype: Int8` or a sentence with the type in it; its
older logs have a short form, `Layer(CaskConvolution): a + b, Tactic: 0x1, x (Int8[..]) -> y (..)`.
Of these only the first was seen here; the others are as NVIDIA and its users show them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hipnet_edge.errors import EngineUnusable, Reason

_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: \[", re.MULTILINE)
_SHORT = re.compile(
    r"^Layer\((?P<kind>[^)]*)\): (?P<name>.*?), Tactic: .*?, (?P<reads>[^>]*) -> (?P<makes>.*)$"
)
_SHORT_TENSOR = re.compile(r"\((?P<type>\w+)\[")
_TENSOR = re.compile(
    r"\{ Name: .*?Dimensions: \[(?P<shape>[\d,]*)\].*?Datatype: (?P<type>[^,}]*)", re.DOTALL
)
_STREAM = re.compile(r"StreamId: (\d+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_TYPES = (
    ("int8", ("int8",)),
    ("fp8", ("fp8", "e4m3")),
    ("half", ("half", "fp16", "float16")),
    ("bfloat16", ("bf16", "bfloat16")),
    ("float", ("float", "fp32")),
)
"""Our word for each type, and what the logs call it; the first that is found counts."""

PRECISION_OF_VARIANT = {"trt-int8": "int8", "trt-fp16": "half"}
"""In which type a variant's convolutions must run."""


@dataclass(frozen=True)
class Layer:
    """One layer of a built plan."""

    name: str
    kind: str
    """What TensorRT calls it, such as "CaskConvolution", "correlation", "kgen"."""
    reads: tuple[str, ...]
    """The types of its inputs."""
    weights: tuple[str, ...]
    """The types of its constants that can be kernels: not of the scales and biases."""
    makes: tuple[str, ...]
    stream: int
    nodes: tuple[str, ...]
    """The ONNX nodes that it came from."""

    @property
    def precision(self) -> str:
        """The type it computes in: that of its kernels, else of its first input."""
        return next(iter((*self.weights, *self.reads)), "none")


def read_layers(log: Iterable[str]) -> tuple[Layer, ...]:
    """Every layer that a build's log lists, in order.

    Args:
        log: the messages of the build, verbose, with detailed profiling.
    """
    layers: list[Layer] = []
    for message in log:
        for line in message.splitlines():
            if (long := _LAYER.match(line)) is not None:
                layers += [_layer(long, line[long.end() :])]
            elif (short := _SHORT.match(line)) is not None:
                layers += [_short_layer(short)]
    return tuple(layers)


def convolution_types(
    layers: Sequence[Layer], convolutions: Iterable[str]
) -> dict[str, str | None]:
    """The type in which each ONNX convolution runs; None where no layer names it.

    Args:
        layers: from `read_layers`.
        convolutions: the names of the ONNX nodes.
    """
    by_node: dict[str, list[Layer]] = {}
    for layer in layers:
        for node in layer.nodes:
            by_node.setdefault(node, []).append(layer)
    return {name: _precision(by_node.get(name, [])) for name in convolutions}


def require_precision(
    types: Mapping[str, str | None], variant: str, exempt: Iterable[str] = ()
) -> None:
    """Refuse a plan whose convolutions do not run in the variant's precision.

    Args:
        types: from `convolution_types`. What the log does not name is not known to be wrong: the
            builder of the full TensorRT may fuse it into a layer that lists no nodes.
        variant: "trt-int8" or "trt-fp16".
        exempt: convolutions that the file itself keeps in a higher precision.

    Raises:
        EngineUnusable: WRONG_PRECISION, with the names of the layers.
    """
    wanted, spared = PRECISION_OF_VARIANT[variant], set(exempt)
    wrong = [
        f"{name} ({found})"
        for name, found in types.items()
        if found not in (wanted, None) and name not in spared
    ]
    if wrong:
        more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise EngineUnusable(
            f"{len(wrong)} of {len(types)} convolutions of {variant} were not built in {wanted}: "
            f"{', '.join(wrong[:8])}{more}.",
            Reason.WRONG_PRECISION,
        )


def summary(layers: Sequence[Layer]) -> dict[str, object]:
    """What a report says of a plan's layers: types, streams, reformatting, waiting."""
    kinds = Counter(layer.kind for layer in layers)
    return {
        "layers": len(layers),
        "by_precision": dict(Counter(layer.precision for layer in layers if layer.reads)),
        "streams": len({layer.stream for layer in layers}),
        "signals_and_waits": kinds["signal"] + kinds["wait"],
        "reformat_layers": sum("reformat" in f"{x.kind} {x.name}".lower() for x in layers),
    }


def _layer(found: re.Match[str], rest: str) -> Layer:
    inputs, _, rest = rest.partition("Outputs: [")
    reads, _, constants = inputs.partition("Constants: [")
    stream = _STREAM.search(rest)
    return Layer(
        name=found["name"],
        kind=found["kind"],
        reads=tuple(kind for kind, _ in _tensors(reads)),
        weights=tuple(kind for kind, kernel in _tensors(constants) if kernel),
        makes=tuple(kind for kind, _ in _tensors(rest.partition("TacticName:")[0])),
        stream=0 if stream is None else int(stream.group(1)),
        nodes=tuple(_NODE.findall(rest)),
    )


def _short_layer(found: re.Match[str]) -> Layer:
    def types(text: str) -> tuple[str, ...]:
        return tuple(_type(tensor["type"]) for tensor in _SHORT_TENSOR.finditer(text))

    return Layer(
        name=found["name"],
        kind=found["kind"],
        reads=types(found["reads"]),
        weights=(),
        makes=types(found["makes"]),
        stream=0,
        nodes=tuple(found["name"].split(" + ")),
    )


def _tensors(text: str) -> list[tuple[str, bool]]:
    """The type of each tensor, and whether its shape is that of a kernel.

    A kernel has several outputs, inputs or positions; scales and biases, which fused layers
    have beside it, spread along one axis alone.
    """
    found = []
    for tensor in _TENSOR.finditer(text):
        sizes = [int(size) for size in tensor["shape"].split(",") if size]
        kernel = len(sizes) >= 3 and sum(size > 1 for size in sizes) >= 2
        found.append((_type(tensor["type"]), kernel))
    return found


def _type(said: str) -> str:
    words = said.lower()
    for ours, theirs in _TYPES:
        if any(word in words for word in theirs):
            return ours
    return words.strip() or "unknown"


def _precision(layers: Sequence[Layer]) -> str | None:
    """Several layers may name a node; the one that convolves is it, not its scale and ReLU."""
    convolving = [x for x in layers if "conv" in x.kind.lower() or x.kind == "correlation"]
    fused = [layer for layer in layers if layer.weights]
    chosen = next(iter((*convolving, *fused)), None)
    return None if chosen is None else chosen.precision
