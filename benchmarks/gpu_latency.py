"""How long one study takes in an engine, end to end, and what it holds of the machine's memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hipnet_edge.backends import Backend

WARM_UP, RUNS = 20, 300


def latency(work: Callable[[], object], runs: int = RUNS, warm_up: int = WARM_UP) -> dict[str, Any]:
    """Percentiles of the milliseconds that `work` takes, one call after the other.

    Args:
        work: ends when its answer is in the host's memory.
        runs: how many are timed.
        warm_up: how many are not, before them.
    """
    for _ in range(warm_up):
        work()
    took = np.empty(runs)
    for index in range(runs):
        started = time.perf_counter()
        work()
        took[index] = 1e3 * (time.perf_counter() - started)
    p50, p95, p99 = np.percentile(took, [50, 95, 99])
    return {
        "runs": runs,
        "p50_ms": round(float(p50), 4),
        "p95_ms": round(float(p95), 4),
        "p99_ms": round(float(p99), 4),
        "largest_ms": round(float(took.max()), 4),
    }


def of_backend(backend: Backend, runs: int = RUNS) -> dict[str, Any]:
    """Latency of `infer`, with transfers and checks: what a `Predictor` waits for."""
    pattern = backend.signature.test_pattern()
    return {
        **latency(lambda: backend.infer(pattern), runs),
        "resident_mib": resident_mib(),
        "version": backend.version,
        "device": backend.device,
        "settings": dict(backend.settings),
    }


def resident_mib() -> int | None:
    """Host memory of this process; None where the operating system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * 4096 >> 20
