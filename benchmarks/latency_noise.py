"""Whether the machine was quiet enough to compare, from work that should always take as long.

Between the rounds a fixed loop is timed; before and after, the kernel's counters say how much of
the processors went to other processes and to other guests of the host (steal).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency_statistics import summary

LARGEST_SPREAD = 1.15
"""The loop's 90th percentile over its median, at most."""
LARGEST_OTHER_LOAD = 0.08
"""The part of all processors that other processes may have had."""
LARGEST_STEAL = 0.02
"""The part that the host may have given to others."""

_ADDITIONS = 60_000


def calibration_ms() -> float:
    """Milliseconds of a fixed loop: always the same work, in the interpreter, in no cache's way."""
    total, started = 0, time.perf_counter()
    for number in range(_ADDITIONS):
        total += number & 7
    return 1e3 * (time.perf_counter() - started)


@dataclass(frozen=True)
class _Counters:
    """Processor seconds since boot, by whom; None where the kernel does not say."""

    total: float
    busy: float
    steal: float
    own: float

    @classmethod
    def now(cls) -> _Counters | None:
        try:
            line = Path("/proc/stat").read_text().splitlines()[0].split()
            ticks = os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return None
        user, nice, system, idle, wait, irq, soft, steal = (int(n) / ticks for n in line[1:9])
        used = os.times()
        return cls(
            total=user + nice + system + idle + wait + irq + soft + steal,
            busy=user + nice + system + irq + soft,
            steal=steal,
            own=used.user + used.system + used.children_user + used.children_system,
        )


@dataclass
class Watch:
    """Looks at the machine from its making until `report`."""

    _loops: list[float] = field(default_factory=list)
    _before: _Counters | None = field(default_factory=_Counters.now)

    def look(self) -> None:
        """Time the fixed loop once."""
        self._loops.append(calibration_ms())

    def report(self) -> dict[str, Any]:
        """Quiet or not and why, with the figures that say so. Child processes must have ended."""
        if len(self._loops) < 2:
            self.look()
            self.look()
        loops = np.array(self._loops)
        spread = float(np.percentile(loops, 90) / np.median(loops))
        other, steal = self._load()
        reasons = [
            sentence
            for too_much, sentence in (
                (
                    spread > LARGEST_SPREAD,
                    f"a fixed loop's 90th percentile was {spread:.2f} times its median "
                    f"(at most {LARGEST_SPREAD})",
                ),
                (
                    other is not None and other > LARGEST_OTHER_LOAD,
                    f"other processes had {other or 0:.0%} of the processors "
                    f"(at most {LARGEST_OTHER_LOAD:.0%})",
                ),
                (
                    steal is not None and steal > LARGEST_STEAL,
                    f"the host gave {steal or 0:.0%} of the processors to others "
                    f"(at most {LARGEST_STEAL:.0%})",
                ),
            )
            if too_much
        ]
        return {
            "quiet": not reasons,
            "reason": "; ".join(reasons) or None,
            "calibration_ms": summary(loops),
            "calibration_p90_over_p50": round(spread, 4),
            "other_load": _fact(other),
            "steal": _fact(steal),
        }

    def _load(self) -> tuple[float | None, float | None]:
        """The parts of all processors that others had on this machine, and on its host."""
        before, now = self._before, _Counters.now()
        if before is None or now is None or now.total <= before.total:
            return None, None
        whole = now.total - before.total
        other = (now.busy - before.busy) - (now.own - before.own)
        return round(max(0.0, other / whole), 4), round((now.steal - before.steal) / whole, 4)


def _fact(part: float | None) -> dict[str, Any]:
    return {"value": part} | ({} if part is not None else {"reason": "/proc/stat does not say"})
