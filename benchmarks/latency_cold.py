"""Cold start: from the start of a process to ready, and to the first result."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency_settings import ROOT, Settings, child_environment

LONGEST_S = 3600
"""A first start on a GPU builds plans, which takes minutes."""


class StartFailed(Exception):
    """A fresh process gave no answer; the last line it wrote."""


def cold_start(settings: Settings, files: tuple[Path, Path], caches: Path) -> dict[str, Any]:
    """Time the first start with an empty cache, and later ones.

    Files are in the operating system's page cache and Python's bytecode is compiled, as on any
    machine that has started the program before.

    Args:
        settings: configuration and how many later starts.
        files: AP and lateral as DICOM files.
        caches: an empty private folder; the later starts find what the first left there.

    Returns:
        The stages in seconds from the start of the process: the first start's, the median of the
        later ones', and all of the latter's first results.
    """
    _start(settings, files, caches, throwaway=True)  # compiles bytecode, fills the page cache
    first = _start(settings, files, caches)
    later = [_start(settings, files, caches) for _ in range(settings.starts)]
    names = [name for name in first if name.endswith("_s")]
    return {
        "files": f"{files[0].parent.name}, {settings.size[0]} x {settings.size[1]}",
        "first_start_with_empty_caches": first,
        "later_starts": {
            "starts": len(later),
            **{name: round(float(np.median([one[name] for one in later])), 4) for name in names},
            "to_first_result_all_s": [one["to_first_result_s"] for one in later],
            "rss_mib": _median_or_none([one["rss_mib"] for one in later]),
        },
    }


def _start(
    settings: Settings, files: tuple[Path, Path], caches: Path, *, throwaway: bool = False
) -> dict[str, Any]:
    """One fresh process; a throwaway one has caches of its own."""
    chosen = {
        name: getattr(settings, name) for name in ("bundle", "backend", "precision", "threads")
    }
    command = [sys.executable, str(ROOT / "benchmarks" / "latency_start.py"), json.dumps(chosen)]
    with tempfile.TemporaryDirectory() as own:
        environment = child_environment(Path(own) if throwaway else caches)
        began = time.monotonic()
        ran = subprocess.run(
            [*command, *map(str, files)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    if ran.returncode:
        raise StartFailed((ran.stderr.strip().splitlines() or ["no message"])[-1])
    found = json.loads(ran.stdout.splitlines()[-1])

    def since_start(stage: str) -> float:
        return round(float(found[stage]) - began, 4)

    return {
        "to_interpreter_s": since_start("began"),
        "to_imported_s": since_start("imported"),
        "to_bundle_loaded_s": since_start("loaded"),
        "to_ready_s": since_start("ready"),
        "to_first_result_s": since_start("answered"),
        "warm_up_ms": round(found["warm_up_ms"], 2),
        "rss_mib": found["rss_mib"] and round(found["rss_mib"], 1),
        "variant": found["variant"],
        "backend": found["backend"],
    }


def _median_or_none(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.median(known)), 1) if known else None
