"""Try the settings of the engines on a CPU: threads, spinning, arena, binding, types, streams.

    python -m benchmarks.engine_sweep --out benchmarks/results/engine_sweep.json

Every way to run the reference bundle's network is loaded, then all of them take turns in a new
order each round, so that a busy moment meets all. Wall time says how long a caller waits, processor
time what that costs everybody else on the machine; where there are several callers both are given
for one inference.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.provenance import made_here, write
from hipnet_edge.backends import available_cores
from hipnet_edge.backends.onnxruntime_backend import import_onnxruntime
from hipnet_edge.backends.openvino_runtime import core
from hipnet_edge.bundle import Bundle
from hipnet_edge.machine import bf16_instructions

Pattern = NDArray[np.float32]
PAUSE_S = 0.02
"""Between two ways: threads of the one before that still spin must not meet the next."""


@dataclass(frozen=True)
class Way:
    """One engine with its settings on one of the bundle's variants."""

    engine: str
    variant: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    callers: int = 1
    """How many inferences run at once."""

    def label(self) -> str:
        """The way in one line."""
        told = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        callers = f", {self.callers} callers" if self.callers > 1 else ""
        return f"{self.engine} {self.variant}: {told or 'defaults'}{callers}"


def ways(cores: int) -> Iterator[Way]:
    """Every way that is tried."""
    usual = {"threads": cores, "spinning": False}
    for variant in ("cpu-int8", "fp32"):
        yield Way("onnxruntime", variant)
        for threads in sorted({1, cores}):
            for spinning in (False, True):
                yield Way("onnxruntime", variant, {"threads": threads, "spinning": spinning})
        yield Way("onnxruntime", variant, {**usual, "arena": False})
        yield Way("onnxruntime", variant, {**usual, "binding": True})
    yield Way("onnxruntime", "cpu-int8", {"threads": 1, "spinning": False}, callers=cores)
    hints = ("f32", "bf16") if bf16_instructions() else ("f32",)
    for variant in ("cpu-int8", "fp32"):
        yield Way("openvino", variant)
        for hint in hints:
            for threads in sorted({1, cores}):
                yield Way("openvino", variant, {"hint": hint, "threads": threads})
    ours = {"hint": hints[-1], "threads": cores}
    for change in ({"pinning": True}, {"copied": True}, {"denormals_optimization": True}):
        yield Way("openvino", "cpu-int8", {**ours, **change})
    yield Way("openvino", "cpu-int8", {"hint": hints[-1], "threads": 1, "streams": cores}, cores)


def load(way: Way, bundle: Bundle, pattern: Pattern) -> Callable[[], None]:
    """The way as a call that runs every caller's inference once."""
    make = _onnxruntime if way.engine == "onnxruntime" else _openvino
    calls = make(way, bundle.model(way.variant), pattern)
    if way.callers == 1:
        return calls[0]
    pool = ThreadPoolExecutor(way.callers)

    def together() -> None:
        for call in [pool.submit(call) for call in calls]:
            call.result()

    return together


def _onnxruntime(way: Way, model: bytes, pattern: Pattern) -> list[Callable[[], None]]:
    runtime, settings = import_onnxruntime(), way.settings
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    if "threads" in settings:
        options.intra_op_num_threads = settings["threads"]
        options.inter_op_num_threads = 1
        spinning = str(int(settings["spinning"]))
        options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.enable_cpu_mem_arena = settings.get("arena", True)
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if not settings.get("binding"):
        return [lambda: session.run(None, {"radiographs": pattern})] * way.callers
    bound = session.io_binding()
    bound.bind_cpu_input("radiographs", pattern)
    for output in session.get_outputs():
        room = runtime.OrtValue.ortvalue_from_numpy(np.empty(output.shape, np.float32))
        bound.bind_ortvalue_output(output.name, room)
    return [lambda: session.run_with_iobinding(bound)]


def _openvino(way: Way, model: bytes, pattern: Pattern) -> list[Callable[[], None]]:
    settings, engine = way.settings, core()
    asked: dict[str, object] = {}
    if settings:
        streams = settings.get("streams", 1)
        asked = {
            "INFERENCE_PRECISION_HINT": settings["hint"],
            "INFERENCE_NUM_THREADS": settings["threads"] * streams,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": settings.get("pinning", False),
            "CPU_DENORMALS_OPTIMIZATION": settings.get("denormals_optimization", False),
        }
    compiled = engine.compile_model(engine.read_model(model), "CPU", asked)
    shared = bool(settings) and not settings.get("copied")

    def caller() -> Callable[[], None]:
        request = compiled.create_infer_request()
        return lambda: request.infer(pattern, share_inputs=shared, share_outputs=shared)

    return [caller() for _ in range(way.callers)]


def measure(calls: list[Callable[[], None]], rounds: int) -> tuple[list[list[float]], ...]:
    """Wall and processor seconds of every call in every round."""
    wall: list[list[float]] = [[] for _ in calls]
    processor: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    order, draw = list(range(len(calls))), random.Random(0)
    for _ in tqdm(range(rounds), desc="rounds"):
        draw.shuffle(order)
        for i in order:
            time.sleep(PAUSE_S)
            calls[i]()  # what other ways have put into the caches is no fault of this one
            begun, spent = time.perf_counter(), time.process_time()
            calls[i]()
            processor[i].append(time.process_time() - spent)
            wall[i].append(time.perf_counter() - begun)
    return wall, processor


def summary(way: Way, wall: list[float], processor: list[float]) -> dict[str, Any]:
    """What is reported of one way; milliseconds an inference."""
    each = 1e3 / way.callers
    quantiles = np.quantile(wall, (0.1, 0.5, 0.9)) * each
    return {
        "engine": way.engine,
        "variant": way.variant,
        "settings": dict(way.settings),
        "callers": way.callers,
        **dict(zip(("p10_ms", "p50_ms", "p90_ms"), quantiles.round(3).tolist(), strict=True)),
        "processor_ms": round(float(np.median(processor)) * each, 3),
    }


@click.command(help=__doc__)
@click.option("--bundle", type=click.Path(path_type=Path), help="Default: the reference bundle.")
@click.option("--rounds", type=click.IntRange(1), default=60, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Report as JSON.")
def main(bundle: Path | None, rounds: int, out: Path) -> None:
    """Try every way and write down what it took."""
    model = Bundle.load(bundle) if bundle else Bundle.reference()
    tried, pattern = list(ways(available_cores())), model.signature("fp32").test_pattern()
    calls = [load(way, model, pattern) for way in tried]
    found = [summary(*one) for one in zip(tried, *measure(calls, rounds), strict=True)]
    write(
        {
            "what": "milliseconds an inference of both views by engine and settings, in turns",
            **made_here("onnxruntime", "openvino", "numpy"),
            "bundle": {"name": model.manifest.name, "digest": model.digest},
            "rounds": rounds,
            "ways": found,
        },
        out,
    )
    for way, one in sorted(zip(tried, found, strict=True), key=lambda pair: pair[1]["p50_ms"]):
        print(f"{one['p50_ms']:8.2f} ms  {one['processor_ms']:8.2f} ms cpu  {way.label()}")


if __name__ == "__main__":
    main()
