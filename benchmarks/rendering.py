"""Measure how long a simulated study takes to render, both views.

    python -m benchmarks.rendering --out benchmarks/results/rendering.json

Processor seconds of one process with one thread, so that a busy machine changes little.
"""

from __future__ import annotations

import json
import time
from itertools import product
from pathlib import Path
from statistics import median

import click
import cv2

from export.provenance import made_here, write
from hipnet_edge.simulation import simulate_study
from hipnet_edge.simulation.dimensions import Site
from hipnet_edge.vocabulary import CAUSES

SPACINGS_MM = (0.16, 0.3, 0.5)
SEEDS = (1, 2)


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(out: Path) -> None:
    """Render ten studies of each site at each pixel spacing."""
    cv2.setNumThreads(1)
    simulate_study(CAUSES[0], 0, pixel_spacing_mm=SPACINGS_MM[-1])  # imports and caches
    seconds: dict[str, dict[str, dict[str, float]]] = {}
    for site in Site:
        seconds[site.value] = {}
        for spacing in SPACINGS_MM:
            taken = []
            for cause, seed in product(CAUSES, SEEDS):
                started = time.process_time()
                simulate_study(cause, seed, site=site, pixel_spacing_mm=spacing)
                taken.append(time.process_time() - started)
            seconds[site.value][str(spacing)] = {
                "median": round(median(taken), 3),
                "max": round(max(taken), 3),
            }
    report = {
        "what": "processor seconds a study (two views), one thread, by site and pixel spacing, mm",
        **made_here("opencv-python-headless", "numpy"),
        "studies_each": len(CAUSES) * len(SEEDS),
        "seconds": seconds,
    }
    write(report, out)
    print(json.dumps(seconds, indent=1))


if __name__ == "__main__":
    main()
