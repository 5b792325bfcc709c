"""Toy cohorts: noise with one small mark whose shape is the cause and whose place is the truth."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from export.cohort import Cohort
from export.cohort_studies import area_fraction
from hipnet_edge.preprocessing import InputSpec
from hipnet_edge.vocabulary import CAUSES

MEAN, STD = 0.5, 0.25


def _mark(canvas: np.ndarray, cause: int, x: int, y: int, size: int, value: float) -> None:
    half, width = size // 2, max(size // 8, 1)
    ends = [((-half, 0), (half, 0)), ((0, -half), (0, half)), ((-half, -half), (half, half))]
    if cause < 3:
        (ax, ay), (bx, by) = ends[cause]
        cv2.line(canvas, (x + ax, y + ay), (x + bx, y + by), value, width)
    elif cause == 3:
        cv2.circle(canvas, (x, y), half, value, width)
    else:
        for (ax, ay), (bx, by) in ends[:2]:
            cv2.line(canvas, (x + ax, y + ay), (x + bx, y + by), value, width)


def toy_cohort(
    n: int,
    seed: int,
    rows: int = 128,
    columns: int = 80,
    size: int = 24,
    contrast: float = 0.35,
    sound: int = 0,
) -> Cohort:
    """A cohort in memory; marks show in both views at different places, in sound studies none."""
    random = np.random.default_rng(seed)
    causes = np.arange(n, dtype=np.int64) % 5
    causes[n - sound :] = -1
    radiographs = np.empty((n, 2, rows, columns), np.float32)
    occupancy = np.empty((n, 2, rows // 8, columns // 8), np.float16)
    for i in range(n):
        for view in range(2):
            slow = random.random((6, 4), dtype=np.float32)
            grey = 0.2 + 0.5 * cv2.resize(slow, (columns, rows), interpolation=cv2.INTER_CUBIC)
            grey += 0.03 * random.standard_normal((rows, columns), dtype=np.float32)
            x, y = random.integers(size, columns - size), random.integers(size, rows - size)
            sign = np.zeros((rows, columns), np.float32)
            if causes[i] >= 0:
                _mark(sign, int(causes[i]), int(x), int(y), size, 1.0)
            radiographs[i, view] = (grey - contrast * sign - MEAN) / STD
            occupancy[i, view] = area_fraction(sign > 0)
    index = {
        "n": n,
        "seed": seed,
        "input": InputSpec(rows, columns, mean=MEAN, std=STD).to_dict(),
    }
    table = {
        "cause": np.array([CAUSES[cause].value if cause >= 0 else "" for cause in causes]),
        "sign_mm": np.full(n, size, np.float64),
    }
    return Cohort(radiographs.astype(np.float16), occupancy, causes, table, index)


def save(cohort: Cohort, directory: Path) -> Path:
    """Store a cohort as `export.cohort` does."""
    directory.mkdir(parents=True)
    np.save(directory / "radiographs.npy", np.asarray(cohort.radiographs))
    np.save(directory / "occupancy.npy", cohort.occupancy)
    with (directory / "rows.jsonl").open("w") as rows:
        for i in range(len(cohort)):
            row = {name: str(column[i]) for name, column in cohort.table.items()}
            rows.write(json.dumps([i, {**row, "refused": ""}]) + "\n")
    (directory / "cohort.json").write_text(json.dumps(cohort.index))
    return directory
