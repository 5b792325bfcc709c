"""What this machine can do at most: arithmetic and memory, measured in a few seconds.

The arithmetic peak is the best that any installed engine reaches on convolutions and matrix
products that are large, dense and in the caches: what the hardware could do beyond that, nobody
here can write down. The fastest of all repetitions counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hipnet_edge.backends.openvino_runtime import import_openvino

if TYPE_CHECKING:
    import onnx

ENGINES = ("onnxruntime", "openvino")
_CHAIN = 4
"""Layers in a row: quantising what goes in and comes out must not weigh."""
_SHAPES = {"convolution 3x3": (256, 3, 32), "convolution 1x1": (512, 1, 32)}
"""Channels, kernel and side of the square planes; two views."""
_ROUNDS, _SECONDS, _REST = 3, 0.08, 0.02
"""How often and for how long each candidate is repeated, in turn with the others, so that what
disturbs the machine for a moment hits all; and how long to rest for spinning threads to stop."""
_CACHED, _STREAMED = 1 << 19, 1 << 26
"""Bytes a thread copies: a layer's share, in L2 or L3; and what no cache holds."""


@dataclass(frozen=True)
class Peaks:
    """What this machine reached in this run.

    Attributes:
        gops: arithmetic by precision ("fp32", "int8" and, where the processor has it, "bf16"), 10^9
            operations a second; a multiply-add is two. "int8" is u8 x s8.
        reached_by: engine and kind of layer that reached it, by precision.
        stream_gbs: 10^9 bytes a second, read and written, beyond the last-level cache.
        cache_gbs: the same within a working set of a layer's size.
        threads: how many threads reached them.
    """

    gops: dict[str, float]
    reached_by: dict[str, str]
    stream_gbs: float
    cache_gbs: float
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def peaks(threads: int) -> Peaks:
    """Measure this machine's peaks with so many threads; takes about four seconds.

    Raises:
        RuntimeError: neither engine is installed.
    """
    gops: dict[str, float] = {}
    reached_by: dict[str, str] = {}
    candidates = list(_candidates(threads))
    if not candidates:
        raise RuntimeError(f"peaks need one of {', '.join(ENGINES)}")
    for _ in range(_ROUNDS):
        for one in candidates:
            time.sleep(_REST)
            reached = one.operations / _fastest(one.run) / 1e9
            if reached > gops.get(one.precision, 0.0):
                gops[one.precision] = reached
                reached_by[one.precision] = f"{one.engine}, {one.layer}"
    return Peaks(
        gops, reached_by, _bandwidth(_STREAMED, threads), _bandwidth(_CACHED, threads), threads
    )


class _Candidate(NamedTuple):
    """A chain of layers in an engine that takes it."""

    precision: str
    engine: str
    layer: str
    operations: int
    run: Callable[[], object]


def _candidates(threads: int) -> Iterator[_Candidate]:
    loaders = {"onnxruntime": _onnxruntime, "openvino": _openvino}
    for layer, (channels, kernel, side) in _SHAPES.items():
        operations = _CHAIN * 2 * 2 * side**2 * channels**2 * kernel**2
        for precision in ("fp32", "bf16", "int8"):
            model = _chain(channels, kernel, side, int8=precision == "int8").SerializeToString()
            given = np.ones((2, channels, side, side), np.float32)
            for engine in ENGINES:
                if find_spec(engine) is None:
                    continue
                run = loaders[engine](model, given, precision, threads)
                if run is not None:
                    yield _Candidate(precision, engine, layer, operations, run)


def _onnxruntime(
    model: bytes, given: Any, precision: str, threads: int
) -> Callable[[], object] | None:
    """A run in ONNX Runtime, which does not compute in BF16 on processors."""
    import onnxruntime

    if precision == "bf16":
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"given": given})


def _openvino(
    model: bytes, given: Any, precision: str, threads: int
) -> Callable[[], object] | None:
    """A run in OpenVINO; None where the processor has no BF16."""
    core = import_openvino().Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    hint = "bf16" if precision == "bf16" else "f32"
    config = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(core.read_model(model), "CPU", config)
    request = compiled.create_infer_request()
    request.set_input_tensor(import_openvino().Tensor(given))
    return lambda: request.infer()


def _chain(channels: int, kernel: int, side: int, *, int8: bool) -> onnx.ModelProto:
    """Convolutions in a row, then the mean: Q/DQ pairs, u8 x s8, around each if `int8`."""
    from onnx import TensorProto, helper, numpy_helper

    from export.onnx_graph import IR_VERSION, OPSET

    random = np.random.default_rng(0)
    shape = (channels, channels, kernel, kernel)
    weights = random.integers(-127, 128, shape).astype(np.int8)
    constants: dict[str, Any] = {}
    if int8:
        constants = {"scale": np.float32(0.02), "zero": np.uint8(0), "signed_zero": np.int8(0)}
    nodes, x = [], "given"
    for index in range(_CHAIN):
        w = f"weights_{index}"
        constants[w] = weights if int8 else weights.astype(np.float32) / (127 * channels)
        if int8:
            for operator, ending in (("QuantizeLinear", "q"), ("DequantizeLinear", "dq")):
                nodes.append(
                    helper.make_node(operator, [x, "scale", "zero"], [f"{index}_{ending}"])
                )
                x = f"{index}_{ending}"
            dequantised = [w, "scale", "signed_zero"]
            nodes.append(helper.make_node("DequantizeLinear", dequantised, [f"{w}_dq"]))
            w = f"{w}_dq"
        conv = helper.make_node("Conv", [x, w], [f"{index}_conv"], pads=[kernel // 2] * 4)
        nodes += [conv, helper.make_node("Relu", [f"{index}_conv"], [f"{index}_relu"])]
        x = f"{index}_relu"
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["mean"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, (2, channels, side, side))],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, (2, channels, 1, 1))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    return model


def _fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of many runs, the first of which only warms up."""
    run()
    end = time.perf_counter() + _SECONDS
    fastest = float("inf")
    while time.perf_counter() < end:
        started = time.perf_counter()
        run()
        fastest = min(fastest, time.perf_counter() - started)
    return fastest


def _bandwidth(size: int, threads: int) -> float:
    """10^9 bytes a second that `threads` copies of `size` bytes at once read and write."""
    pairs = [(np.ones(size // 2, np.uint8), np.ones(size // 2, np.uint8)) for _ in range(threads)]
    repeats = max(1, (1 << 26) // size)

    def copy(pair: tuple[Any, Any]) -> None:
        for _ in range(repeats):
            np.copyto(*pair)  # lets go of the interpreter's lock

    with ThreadPoolExecutor(threads) as pool:
        return size * repeats * threads / _fastest(lambda: list(pool.map(copy, pairs))) / 1e9
