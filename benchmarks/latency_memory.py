"""Resident memory of this process, and the GPU's; None where nobody says, never 0."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from hipnet_edge import Predictor

SAMPLED_EVERY_S = 0.005


def resident_mib() -> float | None:
    """Resident memory now, MiB."""
    return _status("VmRSS")


def peak_mib() -> float | None:
    """The most that was ever resident, MiB."""
    return _status("VmHWM")


def _status(field: str) -> float | None:
    """A field of /proc/self/status; where there is none, psutil's answer to what is resident."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(next(int(x.split()[1]) for x in lines if x.startswith(field)) / 1024, 2)
    except (OSError, StopIteration, ValueError):
        pass
    try:
        import psutil
    except ImportError:
        return None
    return round(psutil.Process().memory_info().rss / 2**20, 2) if field == "VmRSS" else None


class Resident:
    """The most that is resident within a `with`, arrays in flight included."""

    def __init__(self) -> None:
        self.largest_mib: float | None = None
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Resident:
        self._sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._sampler.join()

    def _sample(self) -> None:
        while True:
            now = resident_mib()
            if now is not None:
                self.largest_mib = max(now, self.largest_mib or 0.0)
            if self._done.wait(SAMPLED_EVERY_S):
                return


def device_memory(predictor: Predictor) -> dict[str, Any]:
    """Memory of the GPU that this process holds, MiB, or why that is not known."""
    if not predictor.backend.on_gpu:
        return {"value": None, "reason": "it computes on the CPU"}
    command = [
        "nvidia-smi",
        "--query-compute-apps=pid,used_memory",
        "--format=csv,noheader,nounits",
    ]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        rows = dict(line.split(", ", 1) for line in ran.stdout.strip().splitlines())
        return {"value": int(rows[str(os.getpid())])}
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return {"value": None, "reason": "the driver does not say what this process holds"}
