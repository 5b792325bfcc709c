"""The package alone in a fresh process: stages, tail, memory, throughput. No peer is loaded here.

    python -m benchmarks.latency_alone SETTINGS.json FOLDER OUT.json

FOLDER holds a folder for each transfer syntax, with ap.dcm and lateral.dcm.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency_interleave import timed_ms
from benchmarks.latency_memory import Resident, device_memory, peak_mib, resident_mib
from benchmarks.latency_settings import CHEAPEST, Settings, read_json
from benchmarks.latency_statistics import Times, percentile_ratio, summary
from benchmarks.latency_throughput import callers, in_batches, stream
from export.provenance import write
from hipnet_edge import Predictor, Radiograph, Study
from hipnet_edge.vocabulary import VIEWS

STAGES = (
    "read",
    "decode",
    "preprocess",
    "transfer_in",
    "inference",
    "transfer_out",
    "maps",
    "total",
)
"""In the order of the work; `maps` are full-resolution maps, made when asked for, after `total`."""

Pair = tuple[Path, Path]


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Everything that is measured of the package by itself."""
    pairs = {
        name: (folder / name / "ap.dcm", folder / name / "lateral.dcm")
        for name in settings.syntaxes
        if (folder / name).is_dir()
    }
    cheapest = pairs.get(CHEAPEST) or next(iter(pairs.values()))
    with settings.predictor() as predictor:
        resident = {"ready": resident_mib()}
        _predictions(predictor, cheapest, settings.warm_up)
        tail = _predictions(predictor, cheapest, settings.predictions)
        resident["between_predictions"] = resident_mib()
        with Resident() as watched:
            _predictions(predictor, cheapest, max(5, settings.predictions // 20))
        resident["steady"] = watched.largest_mib
        stages, totals = _all_stages(predictor, pairs, settings)
        resident["after_every_syntax"] = resident_mib()
        report: dict[str, Any] = {
            "configuration": configuration(predictor),
            "stages": stages,
            "totals": totals,
            "tail": _tail(tail, settings.seed),
            "throughput": {
                "callers": callers(predictor, cheapest, settings.duration),
                "batch": in_batches(predictor, cheapest, settings.batch, settings.duration),
                "stream": {
                    name: stream(predictor, pairs[name], settings.duration)
                    for name in settings.streams
                    if name in pairs
                },
            },
            "soak": soak(predictor, cheapest, settings.soak),
        }
        resident |= {"at_the_end": resident_mib(), "peak": peak_mib()}
        report["memory"] = {"resident_mib": resident, "device": device_memory(predictor)}
    return report


def configuration(predictor: Predictor) -> dict[str, Any]:
    """The one configuration that answers: what `Predictor.info` says of it."""
    info = predictor.info()
    return {"variant": info["variant"], "backend": info["backend"]}


def _predictions(predictor: Predictor, pair: Pair, count: int) -> Times:
    """Milliseconds of predictions from files, one after the other; float64 [count]."""
    call = partial(predictor.predict, *pair)
    return np.array([timed_ms(call) for _ in range(count)])


def _tail(times: Times, seed: int) -> dict[str, Any]:
    ratio = percentile_ratio(times, 99, 50, seed)
    return {**summary(times), "p99_over_p50": ratio.to_dict()}


def _all_stages(
    predictor: Predictor, pairs: dict[str, Pair], settings: Settings
) -> tuple[dict[str, Any], dict[str, Any]]:
    """By transfer syntax: summaries of each stage, and of the whole on the caller's own clock."""
    stages: dict[str, Any] = {}
    totals: dict[str, Any] = {}
    count = max(2, settings.predictions // 10)
    for name, pair in pairs.items():
        taken: dict[str, list[float]] = {stage: [] for stage in STAGES}
        outside = []
        for turn in range(settings.warm_up + count):
            started = time.perf_counter()
            prediction = predictor.predict(*pair)
            if turn < settings.warm_up:
                continue
            outside.append(1e3 * (time.perf_counter() - started))
            for stage, milliseconds in prediction.timings_ms.items():
                taken.setdefault(stage, []).append(milliseconds)
            taken["maps"].append(timed_ms(partial(_full_maps, prediction)))
        stages[name] = {
            stage: summary(np.array(found)) if found else None for stage, found in taken.items()
        }
        totals[name] = summary(np.array(outside))
    return stages, totals


def _full_maps(prediction: Any) -> None:
    """The leading cause's map at full resolution, for both views."""
    for view in VIEWS:
        prediction.map_for(view, prediction.leading_cause, full_resolution=True)


def soak(predictor: Predictor, pair: Pair, count: int) -> dict[str, Any] | None:
    """Predictions of one study already read, and how the resident memory grows under them.

    Returns:
        Milliseconds, and the memory at 20 places; None where none are asked for. Growth is from
        a tenth of the way, when every pool is filled, to the end.
    """
    if not count:
        return None
    study = Study(*(Radiograph.from_dicom(path) for path in pair))
    call: Callable[[], object] = partial(predictor.predict, study)
    times, seen = np.empty(count), []
    every = max(1, count // 20)
    for index in range(count):
        times[index] = timed_ms(call)
        if (index + 1) % every == 0:
            seen.append(resident_mib())
    settled = seen[len(seen) // 10]
    grown = None if settled is None or seen[-1] is None else round(seen[-1] - settled, 2)
    return {
        "predictions": count,
        "ms": summary(times),
        "rss_mib": seen,
        "growth_mib": grown,
    }


if __name__ == "__main__":
    write(measure(Settings.from_dict(read_json(Path(sys.argv[1]))), Path(sys.argv[2])),
          Path(sys.argv[3]))  # fmt: skip
