"""A cohort of studies as arrays: simulated, preprocessed once by the runtime's own code, cached.

    python -m export.cohort --n 2500 --seed 100 --out runs/train --workers 2

Study i of a cohort has cause i mod 5 and the simulation seed `seed * 100000 + i`, so cohorts of
different seeds share no study. Each goes the way of a patient's: rendered at detector size,
written as DICOM, read, checked as a pair and preprocessed by
`hipnet_edge.preprocessing.preprocess_study`; what a network trains on is bit-equal to what it
sees later. A run that was stopped continues where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import hipnet_edge
from hipnet_edge.vocabulary import CAUSES, VIEWS

SEEDS_PER_COHORT = 100_000
CELL = 8
"""Network pixels per side of an occupancy cell: the stride of the disease-probability maps."""
_INDEX = "cohort.json"
_SOURCES = (
    "collimation.py",
    "dicom_reader.py",
    "geometry.py",
    "grey_levels.py",
    "implant.py",
    "preprocessing.py",
    "radiograph.py",
    "study.py",
    "simulation/*.py",
)
"""What decides the arrays' content; their digest keeps two versions out of one cohort."""


@dataclass(frozen=True)
class Cohort:
    """N studies as a network sees them, and their truth; arrays may be memory maps.

    Attributes:
        radiographs: float32 [N, 2, H, W], as `preprocess_study` gives them.
        occupancy: float16 [N, 2, H/8, W/8], the part of each cell's area that is diseased.
        causes: int64 [N], index into `CAUSES`.
        sign_mm: float32 [N], size of the leading sign.
        index: what `cohort.json` says: seed, pixel spacing, input specification, digest of code.
    """

    radiographs: NDArray[np.float32]
    occupancy: NDArray[np.float16]
    causes: NDArray[np.int64]
    sign_mm: NDArray[np.float32]
    index: dict[str, Any]

    def __len__(self) -> int:
        return len(self.causes)

    @classmethod
    def load(cls, directory: Path) -> Cohort:
        """Open a finished cohort; the radiographs stay on disk until they are read.

        Raises:
            FileNotFoundError: there is no cohort here.
            ValueError: the cohort is unfinished.
        """
        index = json.loads((directory / _INDEX).read_text())
        missing = int((~np.load(directory / "done.npy")).sum())
        if missing:
            raise ValueError(f"{directory}: {missing} studies are missing; run export.cohort again")
        return cls(
            radiographs=np.load(directory / "radiographs.npy", mmap_mode="r"),
            occupancy=np.load(directory / "occupancy.npy", mmap_mode="r"),
            causes=np.load(directory / "causes.npy"),
            sign_mm=np.load(directory / "sign_mm.npy"),
            index=index,
        )


class MadeStudy(NamedTuple):
    """One study for a cohort."""

    radiographs: NDArray[np.float32]
    """[2, H, W]"""
    occupancy: NDArray[np.float16]
    """[2, H/8, W/8]"""
    sign_mm: float


def area_fraction(mask: NDArray[Any]) -> NDArray[np.float16]:
    """A truth mask [H, W] on the network's pixels as the diseased part of each cell [H/8, W/8]."""
    rows, columns = mask.shape
    cells = mask.reshape(rows // CELL, CELL, columns // CELL, CELL).astype(np.float32)
    fraction: NDArray[np.float16] = cells.mean(axis=(1, 3)).astype(np.float16)
    return fraction


def make_study(cause: int, seed: int, pixel_spacing_mm: float, spec: dict[str, Any]) -> MadeStudy:
    """Simulate one study and preprocess it."""
    # Imported here: each process of the pool loads them once, the trainer never does.
    from hipnet_edge.preprocessing import InputSpec, preprocess_study
    from hipnet_edge.radiograph import Radiograph
    from hipnet_edge.simulation import simulate_study
    from hipnet_edge.study import Study

    simulated = simulate_study(CAUSES[cause], seed, pixel_spacing_mm=pixel_spacing_mm)
    ap, lateral = (Radiograph.from_dicom(simulated.views[view].to_dataset()) for view in VIEWS)
    study = Study(ap, lateral, laterality=simulated.laterality)
    prepared = preprocess_study(study, InputSpec.from_dict(spec))
    occupancy = [
        area_fraction(prepared.views[view].geometry.image_to_network(simulated.views[view].mask))
        for view in VIEWS
    ]
    return MadeStudy(prepared.radiographs, np.stack(occupancy), simulated.sign_mm)


def _start_worker() -> None:
    """One core a process: the pool is the parallelism."""
    import cv2

    cv2.setNumThreads(1)


def _source_digest() -> str:
    root = Path(hipnet_edge.__file__).parent
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(root.glob(pattern)):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _create(directory: Path, index: dict[str, Any]) -> None:
    """Make the empty arrays; the index comes last and says that they are whole."""
    directory.mkdir(parents=True, exist_ok=True)
    n, rows, columns = index["n"], index["input"]["rows"], index["input"]["columns"]

    def empty(name: str, dtype: type, *shape: int) -> None:
        # open_memmap makes a sparse file: nothing is written until a study is.
        np.lib.format.open_memmap(directory / name, mode="w+", dtype=dtype, shape=shape)

    empty("radiographs.npy", np.float32, n, len(VIEWS), rows, columns)
    empty("occupancy.npy", np.float16, n, len(VIEWS), rows // CELL, columns // CELL)
    empty("sign_mm.npy", np.float32, n)
    empty("done.npy", np.bool_, n)
    np.save(directory / "causes.npy", np.arange(n, dtype=np.int64) % len(CAUSES))
    (directory / _INDEX).write_text(json.dumps(index, indent=1) + "\n")


def build(directory: Path, n: int, seed: int, pixel_spacing_mm: float, workers: int) -> Cohort:
    """Make a cohort, or finish one that was begun with the same settings and code.

    Raises:
        ValueError: the directory holds a cohort of other settings or made by other code.
    """
    from hipnet_edge.preprocessing import InputSpec

    index = {
        "n": n,
        "seed": seed,
        "pixel_spacing_mm": pixel_spacing_mm,
        "input": InputSpec().to_dict(),
        "source_sha256": _source_digest(),
    }
    if not (directory / _INDEX).exists():
        _create(directory, index)
    elif (found := json.loads((directory / _INDEX).read_text())) != index:
        different = ", ".join(key for key in index if found.get(key) != index[key])
        raise ValueError(f"{directory} holds another cohort (different: {different}); remove it")
    radiographs, occupancy, sign_mm, done = (
        np.load(directory / f"{name}.npy", mmap_mode="r+")
        for name in ("radiographs", "occupancy", "sign_mm", "done")
    )
    todo = [int(i) for i in np.flatnonzero(~done)]
    bar = tqdm(total=n, initial=n - len(todo), desc="studies", unit="study", mininterval=5)
    for i, made in _in_parallel(todo, index, workers):
        radiographs[i], occupancy[i], sign_mm[i] = made
        done[i] = True
        bar.update()
    bar.close()
    for array in (radiographs, occupancy, sign_mm, done):
        array.flush()
    return Cohort.load(directory)


def _in_parallel(
    todo: list[int], index: dict[str, Any], workers: int
) -> Iterator[tuple[int, MadeStudy]]:
    """Make the named studies in any order."""

    def arguments(i: int) -> tuple[int, int, float, dict[str, Any]]:
        seed = index["seed"] * SEEDS_PER_COHORT + i
        return i % len(CAUSES), seed, index["pixel_spacing_mm"], index["input"]

    if workers <= 1:
        _start_worker()
        for i in todo:
            yield i, make_study(*arguments(i))
        return
    with ProcessPoolExecutor(workers, initializer=_start_worker) as pool:
        # A few at a time: finished studies weigh megabytes and wait to be stored.
        for start in range(0, len(todo), 16 * workers):
            part = todo[start : start + 16 * workers]
            jobs = {pool.submit(make_study, *arguments(i)): i for i in part}
            for job in as_completed(jobs):
                yield jobs.pop(job), job.result()


@click.command(help=__doc__)
@click.option("--n", type=click.IntRange(1, SEEDS_PER_COHORT), required=True, help="Studies.")
@click.option("--seed", type=click.IntRange(0), required=True, help="Never shared by two cohorts.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Outside git.")
@click.option("--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True)
@click.option(
    "--pixel-spacing-mm", type=float, default=0.16, show_default=True, help="Of the detector."
)
def main(n: int, seed: int, out: Path, workers: int, pixel_spacing_mm: float) -> None:
    """Make a cohort."""
    try:
        cohort = build(out, n, seed, pixel_spacing_mm, workers)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    print(f"{len(cohort)} studies in {out}")


if __name__ == "__main__":
    main()
