"""Everything that only a GPU can show, in one call: does it run, is it right, how fast is it.

    python -m benchmarks.gpu_check --bundle engines/reference --cohort runs/shifted \
      --out benchmarks/results/gpu_check.json

Which TensorRT runs here; each variant against ONNX Runtime FP32 on the same studies; latency with
transfers, merged and in parts, with 0 to 3 auxiliary streams, with and without a CUDA graph; the
same beside PyTorch and ONNX Runtime's CUDA provider; and how far that is from what the GPU can do
at most. What cannot be had stands in the report with its reason, and the rest goes on. The exit
status is 0 if every engine that ran was right.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.gpu_latency import RUNS, of_backend
from export.build_engines import build_engines
from export.cohort import Cohort
from export.provenance import made_here, write
from hipnet_edge.backends import Backend, Outputs, choose_backend
from hipnet_edge.backends.device import open_device
from hipnet_edge.backends.plan_cache import PlanCache
from hipnet_edge.backends.tensorrt_backend import (
    TensorRtBackend,
    TensorRtPartsBackend,
    keep_options,
)
from hipnet_edge.backends.tensorrt_build import BuildOptions
from hipnet_edge.backends.tensorrt_flavour import load_tensorrt
from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import HipNetError

Report = dict[str, Any]

LARGEST_CHANGE = {"fp32": 1e-3, "fp16": 0.02, "int8": 0.3}
"""Of any probability; beyond it an engine is wrong, not merely less precise. The gate asks more."""


def check(bundle: Bundle, studies: NDArray[np.float32], runs: int) -> Report:
    """The whole check. Raises nothing: what fails stands in the report as a sentence.

    Args:
        bundle: with the variants to try.
        studies: float32 [N, 2, rows, columns], preprocessed.
        runs: inferences that are timed, for each engine.
    """
    report: Report = {
        **made_here("numpy"),
        "bundle": {"name": bundle.manifest.name, "digest": bundle.digest},
        "studies": len(studies),
        "tensorrt": _attempt(_flavour),
        "device_layer": _attempt(_device),
        "engines": {},
    }
    with closing(choose_backend(bundle, "onnxruntime", "fp32").backend) as reference:
        expected = _answers(reference, studies, "reference")
        report["reference"] = of_backend(reference, min(runs, 50))
    with tempfile.TemporaryDirectory() as folder:
        for name, opener in _engines(bundle, Path(folder)):
            report["engines"][name] = _attempt(
                partial(_engine, name, opener, studies, expected, runs)
            )
    report["torch"] = _attempt(lambda: _torch(bundle, runs))
    report["roofline"] = _attempt(lambda: _roofline(bundle, report))
    return report


def all_right(report: Report) -> bool:
    """Whether something ran on the GPU, and everything that ran was right."""
    ran = [engine for engine in report["engines"].values() if "error" not in engine]
    return bool(ran) and all(engine["correct"]["right"] for engine in ran)


def _attempt(work: Callable[[], Report]) -> Report:
    """What `work` reports, or why there is nothing to report."""
    try:
        return work()
    except HipNetError as error:
        return {"error": error.message, "code": error.code.value}
    except Exception as error:  # a GPU's libraries raise what they like; the rest is measured
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def _flavour() -> Report:
    flavour = load_tensorrt()
    return {"flavour": flavour.name, "version": flavour.version}


def _device() -> Report:
    from benchmarks.gpu_device import prove_device

    return prove_device()


def _engines(bundle: Bundle, folder: Path) -> Iterator[tuple[str, Callable[[], Backend]]]:
    """Every engine to try, by name, and what opens it."""
    variants = bundle.manifest.variants
    for precision, variant in TensorRtBackend.variants.items():
        if variant not in variants:
            continue
        for streams in (None, 0, 1, 2, 3):
            for graph in (True, False) if streams is None else (True,):
                options = BuildOptions(max_aux_streams=streams)
                name = f"tensorrt {precision}, aux streams {streams}, graph {graph}"
                yield name, _opener(bundle, variant, folder / f"{streams}", options, graph)
        for graph in (True, False):
            name = f"tensorrt-parts {precision}, graph {graph}"
            yield name, _opener(bundle, variant, folder / "parts", BuildOptions(), graph, True)
    for backend, precision in (
        ("onnxruntime-cuda", "fp32"),
        ("onnxruntime-cuda", "fp16"),
        ("onnxruntime-tensorrt", "fp16"),
        ("onnxruntime-tensorrt", "int8"),
    ):
        opener = partial(_named, bundle, backend, precision)
        yield f"{backend} {precision}", opener


def _named(bundle: Bundle, backend: str, precision: str) -> Backend:
    return choose_backend(bundle, backend, precision).backend


def _opener(
    bundle: Bundle,
    variant: str,
    folder: Path,
    options: BuildOptions,
    graph: bool,
    parts: bool = False,
) -> Callable[[], Backend]:
    """What opens TensorRT with these options, from plans of a folder of the check's own."""

    def opened() -> Backend:
        from hipnet_edge.backends.tensorrt_execution import Execution

        flavour, device = load_tensorrt(), open_device()
        with ExitStack() as if_it_fails:
            if_it_fails.callback(device.close)
            cache = PlanCache(folder)
            keep_options(cache, options)
            if parts and not _layers(cache, variant):
                build_engines(bundle, variant, "parts", options, cache, flavour)
            kind = TensorRtPartsBackend if parts else TensorRtBackend
            here = (device.name, device.compute_capability)
            plans = kind.find_plans(bundle, variant, flavour, here, cache)
            contents = {part: plan.content for part, plan in plans.items()}
            before = device.free_memory()
            execution = Execution(flavour, device, contents, bundle.signature(variant), graph)
            backend = kind(execution, device, flavour, plans)
            used = {"device_mib": before - device.free_memory() >> 20}
            backend.settings = {**backend.settings, **used, "layers": _layers(cache, variant)}
            if_it_fails.pop_all()
        return backend

    return opened


def _layers(cache: PlanCache, variant: str) -> Report:
    """What the builds said: layers are an upper limit of the kernels that one study launches."""
    wanted = ("layers", "streams", "signals_and_waits", "reformat_layers", "by_precision")
    return {
        entry.key.part: {name: entry.build[name] for name in wanted}
        for entry in cache.entries().values()
        if entry.key.variant == variant
    }


def _engine(
    name: str,
    opener: Callable[[], Backend],
    studies: NDArray[np.float32],
    expected: list[Outputs],
    runs: int,
) -> Report:
    with closing(opener()) as backend:
        correct = _compare(_answers(backend, studies, name), expected, name)
        return {"correct": correct, **of_backend(backend, runs)}


def _answers(backend: Backend, studies: NDArray[np.float32], name: str) -> list[Outputs]:
    return [backend.infer(studies[i : i + 1]) for i in tqdm(range(len(studies)), desc=name)]


def _compare(found: list[Outputs], expected: list[Outputs], name: str) -> Report:
    """How far an engine's answers lie from the reference's."""
    ours, theirs = (
        np.concatenate([answer.probabilities for answer in answers])
        for answers in (found, expected)
    )
    change = np.abs(ours - theirs)
    maps = [
        float(np.abs(one.maps - other.maps).max())
        for one, other in zip(found, expected, strict=True)
    ]
    precision = next(p for p in LARGEST_CHANGE if p in name)
    return {
        "largest_probability_change": float(change.max()),
        "p99_probability_change": float(np.percentile(change, 99)),
        "decision_flips": int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum()),
        "largest_map_change": max(maps),
        "right": bool(change.max() <= LARGEST_CHANGE[precision]),
    }


def _torch(bundle: Bundle, runs: int) -> Report:
    from benchmarks.gpu_torch import rivals

    return rivals(bundle.manifest.input, runs)


def _roofline(bundle: Bundle, report: Report) -> Report:
    """The shortest time that operations and weights alone need, beside the fastest measured."""
    from benchmarks.gpu_torch import ceilings
    from export.onnx_graph import multiply_accumulates, parameter_count

    limits = ceilings()
    model = onnx.load_from_string(bundle.model("fp32"))
    operations, weights = 2 * multiply_accumulates(model), 2 * parameter_count(model)
    seconds = max(
        operations / limits["fp16_operations_per_second"], weights / limits["bytes_per_second"]
    )
    measured = {
        name: engine["p50_ms"]
        for name, engine in report["engines"].items()
        if name.startswith("tensorrt fp16") and "p50_ms" in engine
    }
    fastest = min(measured.values(), default=None)
    return {
        **limits,
        "operations_per_study": operations,
        "bytes_of_weights_fp16": weights,
        "shortest_ms": 1e3 * seconds,
        "fastest_fp16_ms": fastest,
        "fraction_reached": None if fastest is None else 1e3 * seconds / fastest,
    }


def _studies(bundle: Bundle, cohort: Path | None, count: int) -> NDArray[np.float32]:
    """Studies of a cohort, or the network's own test patterns where none is given."""
    if cohort is not None:
        return np.asarray(Cohort.load(cohort).radiographs[:count], np.float32)
    signature = replace(bundle.signature("fp32"), input_type="float32")
    return np.concatenate([signature.test_pattern(seed) for seed in range(count)])


@click.command(help=__doc__)
@click.option("--bundle", type=click.Path(path_type=Path), help="The reference bundle if none.")
@click.option("--cohort", type=click.Path(path_type=Path), help="Test patterns if none.")
@click.option("--studies", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--runs", type=click.IntRange(min=1), default=RUNS, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The report.")
def main(bundle: Path | None, cohort: Path | None, studies: int, runs: int, out: Path) -> None:
    """Check a GPU."""
    loaded = Bundle.reference() if bundle is None else Bundle.load(bundle)
    report = check(loaded, _studies(loaded, cohort, studies), runs)
    write(report, out)
    for name, engine in report["engines"].items():
        print(f"{name:<48} {engine.get('error') or engine['p50_ms']}")
    sys.exit(0 if all_right(report) else 1)


if __name__ == "__main__":
    main()
