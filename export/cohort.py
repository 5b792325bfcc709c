"""A cohort of studies as arrays: made or read, preprocessed once by the runtime's own code, cached.

    python -m export.cohort --site development --n 2500 --seed 100 --out runs/train --workers 2
    python -m export.cohort --table my/cohort.csv --out runs/mine

Simulated studies are made in memory; who is in a cohort is what
`hipnet_edge.simulation.cohort.plan` says, and a study is the same whether it is made here or
written by `hipnet-edge simulate` and read as a table. A table is also how your own studies come
in: columns ap, lateral, cause; side and masks where known. A run that was stopped continues
where it was. Studies that preprocessing refuses are counted, named in the table, and left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import hipnet_edge
from export.cohort_studies import (
    CELL,
    FileSource,
    Picture,
    Row,
    SimulatedSource,
    Source,
    cropped,
    whole_film,
)
from hipnet_edge.errors import InputRefused
from hipnet_edge.preprocessing import InputSpec, preprocess_study
from hipnet_edge.vocabulary import CAUSES, VIEWS

SOUND = -1
"""In place of a cause's index: the prosthesis has not failed."""
NUMBERS = (
    "severity",
    "sign_mm",
    "crp",
    "esr",
    "pixel_spacing_mm",
    "ap_mm_per_pixel",
    "lateral_mm_per_pixel",
    "ap_mm_per_pixel_whole",
    "lateral_mm_per_pixel_whole",
)
"""Columns that are numbers (NaN where empty); all others are words."""
WHOLE = "_whole"
"""Ends the names of the arrays and columns of whole films."""
_INDEX = "cohort.json"
_ROWS = "rows.jsonl"
_SOURCES = (
    "collimation.py",
    "dicom_reader.py",
    "geometry.py",
    "grey_levels.py",
    "image_files.py",
    "implant.py",
    "pixel_data.py",
    "pixels.py",
    "preprocessing.py",
    "radiograph.py",
    "study.py",
    "survey.py",
    "simulation/*.py",
)
"""What decides the arrays' content; their digest keeps two versions out of one cohort."""


class Rows:
    """Chosen rows of an array [M, ...] that stays on disk: read when they are asked for."""

    def __init__(self, array: NDArray[Any], chosen: NDArray[np.int64]) -> None:
        self._array, self._chosen = array, chosen
        self.shape = (len(chosen), *array.shape[1:])
        self.dtype = array.dtype

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        first, *rest = key if isinstance(key, tuple) else (key,)
        part: NDArray[Any] = self._array[self._chosen[first]]
        if not rest:
            return part
        before = [] if isinstance(first, (int, np.integer)) else [slice(None)]
        return np.asarray(part[tuple(before + rest)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self._array[self._chosen], dtype=dtype)

    def chosen(self, indices: NDArray[Any]) -> Rows:
        """Some of these rows."""
        return Rows(self._array, self._chosen[indices])


@dataclass(frozen=True)
class Cohort:
    """N studies as a network sees them, and their truth.

    Attributes:
        radiographs: float16 [N, 2, H, W], as `preprocess_study` gives them, on disk.
        occupancy: float16 [N, 2, H/8, W/8], the part of each cell's area that is diseased; NaN
            where nobody knows.
        causes: int64 [N], index into `CAUSES`; -1 for a sound prosthesis.
        table: what else is known of each study, [N] by column: float64 for `NUMBERS`, else str.
        index: what `cohort.json` says: what it was made of, input specification, digest of code;
            with `refused`, how many studies were left out, by reason.
    """

    radiographs: NDArray[np.float16] | Rows
    occupancy: NDArray[np.float16]
    causes: NDArray[np.int64]
    table: dict[str, NDArray[Any]]
    index: dict[str, Any]

    def __len__(self) -> int:
        return len(self.causes)

    def subset(self, indices: NDArray[Any]) -> Cohort:
        """Some studies (indices or a bool mask), in that order; radiographs stay on disk."""
        chosen = np.arange(len(self))[indices]
        rows = self.radiographs
        if not isinstance(rows, Rows):
            rows = Rows(rows, np.arange(len(self)))
        return Cohort(
            radiographs=rows.chosen(chosen),
            occupancy=self.occupancy[chosen],
            causes=self.causes[chosen],
            table={name: column[chosen] for name, column in self.table.items()},
            index=self.index,
        )

    @classmethod
    def load(cls, directory: Path, whole: bool = False) -> Cohort:
        """Open a finished cohort, and say on stderr how many studies were refused.

        Args:
            directory: where it was made.
            whole: whole films instead of the box around the prosthesis, if it was made with them.

        Raises:
            FileNotFoundError: there is no such cohort here.
            ValueError: the cohort is unfinished.
        """
        index = json.loads((directory / _INDEX).read_text())
        rows = _read_rows(directory)
        if missing := index["n"] - len(rows):
            raise ValueError(f"{directory}: {missing} studies are missing; run export.cohort again")
        refused = Counter(row["refused"] for row in rows.values() if row["refused"])
        if refused:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in refused.items())
            print(f"{directory}: {refused.total()} studies refused ({reasons})", file=sys.stderr)
        kept = np.array([i for i in sorted(rows) if not rows[i]["refused"]], np.int64)
        table = _columns([rows[int(i)] for i in kept])
        names = [cause.value for cause in CAUSES]
        words = table["cause"]
        suffix = WHOLE if whole else ""
        if whole:
            sizes = [f"{view.value}_mm_per_pixel" for view in VIEWS]
            table.update({name: table[name + suffix] for name in sizes})
        radiographs = np.load(directory / f"radiographs{suffix}.npy", mmap_mode="r")
        occupancy = np.load(directory / f"occupancy{suffix}.npy", mmap_mode="r")
        return cls(
            radiographs=Rows(radiographs, kept) if refused else radiographs,
            occupancy=occupancy[kept],
            causes=np.array([names.index(word) if word else SOUND for word in words], np.int64),
            table=table,
            index={**index, "refused": dict(refused)},
        )


def _columns(rows: list[Row]) -> dict[str, NDArray[Any]]:
    """Rows as columns: every name that any row has."""
    names = dict.fromkeys(name for row in rows for name in row)
    words = {name: [row.get(name, "") for row in rows] for name in names if name != "refused"}
    return {
        name: np.array([float(w) if w else np.nan for w in column], np.float64)
        if name in NUMBERS
        else np.array(column, np.str_)
        for name, column in words.items()
    }


def _read_rows(directory: Path) -> dict[int, Row]:
    """The rows of finished studies by place; a line that a stopped run left half is not one."""
    text = (directory / _ROWS).read_text(encoding="utf-8")
    whole_lines = text[: text.rfind("\n") + 1]
    return {int(i): row for i, row in map(json.loads, whole_lines.splitlines())}


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
    for suffix in index["films"]:
        for name, shape in (
            ("radiographs", (rows, columns)),
            ("occupancy", (rows // CELL, columns // CELL)),
        ):
            # A sparse file: nothing is written until a study is.
            np.lib.format.open_memmap(
                directory / f"{name}{suffix}.npy", "w+", np.float16, (n, len(VIEWS), *shape)
            )
    (directory / _ROWS).touch()
    (directory / _INDEX).write_text(json.dumps(index, indent=1) + "\n")


def build(
    directory: Path,
    source: Source,
    made_of: dict[str, Any],
    workers: int = 1,
    films: tuple[str, ...] = ("",),
) -> Cohort:
    """Make a cohort, or finish one that was begun with the same settings and code.

    Args:
        directory: for the arrays; made if missing.
        source: where the studies come from.
        made_of: what of that the index shall say.
        workers: processes.
        films: which pictures of each film are kept, by the suffix of their arrays: "" is the box
            around the prosthesis, `WHOLE` the whole film.

    Raises:
        ValueError: the directory holds a cohort of other settings or made by other code.
    """
    index = {
        "n": len(source),
        **made_of,
        "films": list(films),
        "input": InputSpec().to_dict(),
        "source_sha256": _source_digest(),
    }
    if not (directory / _INDEX).exists():
        _create(directory, index)
    elif (found := json.loads((directory / _INDEX).read_text())) != index:
        different = ", ".join(key for key in index if found.get(key) != index[key])
        raise ValueError(f"{directory} holds another cohort (different: {different}); remove it")
    done = _read_rows(directory)
    todo = [i for i in range(len(source)) if i not in done]
    os.truncate(directory / _ROWS, (directory / _ROWS).read_bytes().rfind(b"\n") + 1)
    with (
        (directory / _ROWS).open("a", encoding="utf-8") as rows,
        tqdm(total=len(source), initial=len(done), desc="studies", mininterval=5) as bar,
    ):
        for i, row in _made(directory, source, films, todo, workers):
            rows.write(json.dumps([i, row]) + "\n")
            rows.flush()
            bar.update()
    return Cohort.load(directory)


def _made(
    directory: Path, source: Source, films: tuple[str, ...], todo: list[int], workers: int
) -> Iterator[tuple[int, Row]]:
    """Make studies; the workers write the arrays, only rows of the table come back."""
    if workers <= 1:
        _start_worker(directory, source, films)
        yield from map(_make, todo)
        return
    # Not forked: OpenCV's threads would hang.
    fresh = get_context("spawn")
    with ProcessPoolExecutor(workers, fresh, _start_worker, (directory, source, films)) as pool:
        yield from pool.map(_make, todo)


class _Worker(NamedTuple):
    """What a process keeps between studies."""

    source: Source
    spec: InputSpec
    arrays: dict[str, tuple[NDArray[np.float16], NDArray[np.float16]]]
    """Radiographs and occupancy by suffix."""


_worker: _Worker


def _start_worker(directory: Path, source: Source, films: tuple[str, ...]) -> None:
    import cv2

    global _worker
    # One core a process: the pool is the parallelism.
    cv2.setNumThreads(1)
    arrays = {
        suffix: (
            np.load(directory / f"radiographs{suffix}.npy", mmap_mode="r+"),
            np.load(directory / f"occupancy{suffix}.npy", mmap_mode="r+"),
        )
        for suffix in films
    }
    _worker = _Worker(source, InputSpec(), arrays)


def _make(i: int) -> tuple[int, Row]:
    """Make study i and put it in its place; gives its row of the table."""
    source, spec, arrays = _worker
    try:
        pictures, row = make_study(source, i, spec, tuple(arrays))
    except InputRefused as refusal:
        return i, {**source.known(i), "refused": refusal.code.value}
    for suffix, picture in pictures.items():
        radiographs, occupancy = arrays[suffix]
        radiographs[i], occupancy[i] = picture.radiographs, picture.occupancy
    return i, row


def make_study(
    source: Source, i: int, spec: InputSpec, films: tuple[str, ...] = ("",)
) -> tuple[dict[str, Picture], Row]:
    """Read and preprocess a study: its pictures by suffix, and its row of the table.

    Raises:
        InputRefused: preprocessing refuses it.
    """
    study, masks, known = source.read(i)
    prepared = preprocess_study(study, spec)
    sound = not known["cause"]
    pictures = {
        suffix: whole_film(study, masks, prepared, sound, spec)
        if suffix == WHOLE
        else cropped(study, masks, prepared, sound)
        for suffix in films
    }
    sizes = {
        f"{view.value}_mm_per_pixel{suffix}": "" if size is None else f"{size:.5f}"
        for suffix, picture in pictures.items()
        for view, size in zip(VIEWS, picture.mm_per_pixel, strict=True)
    }
    flags = ";".join(flag.value for flag in prepared.flags)
    return pictures, {**known, "flags": flags, **sizes, "refused": ""}


def _simulated(
    site: str, n: int, seed: int, sound: float | None, causes: str, two_causes: float, mm: float
) -> tuple[SimulatedSource, dict[str, Any]]:
    """A simulated cohort and what the index says of it."""
    from hipnet_edge.simulation.cohort import causes_from, plan
    from hipnet_edge.simulation.dimensions import Site

    planned = plan(
        Site(site), n, seed, causes=causes_from(causes), sound=sound, two_causes=two_causes
    )
    made_of = {
        "site": site,
        "seed": seed,
        "sound": sound,
        "causes": causes,
        "two_causes": two_causes,
        "pixel_spacing_mm": mm,
    }
    return SimulatedSource(planned, mm), made_of


@click.command(help=__doc__)
@click.option("--table", type=click.Path(path_type=Path, exists=True), help="A CSV of your files.")
@click.option("--site", type=click.Choice(["development", "shifted"]), help="Simulate, as there.")
@click.option("--n", type=click.IntRange(1, 100_000), help="Simulated studies.")
@click.option("--seed", type=click.IntRange(0), help="Never shared by two simulated cohorts.")
@click.option("--sound", type=click.FloatRange(0, 1), help="Part of sound ones; else the site's.")
@click.option("--causes", default="", metavar="A,B", help="In turn, instead of as often as there.")
@click.option("--two-causes", type=click.FloatRange(0, 1), default=0.0, show_default=True)
@click.option("--pixel-spacing-mm", type=float, default=0.16, show_default=True, help="Detector's.")
@click.option("--whole", is_flag=True, help="Keep whole films beside the box around the implant.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Outside git.")
@click.option("--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True)
def main(
    table: Path | None,
    site: str | None,
    n: int | None,
    seed: int | None,
    sound: float | None,
    causes: str,
    two_causes: float,
    pixel_spacing_mm: float,
    whole: bool,
    out: Path,
    workers: int,
) -> None:
    """Make a cohort."""
    source: Source
    try:
        if table is not None and site is None:
            source = FileSource.open(table)
            made_of = {"table_sha256": hashlib.sha256(table.read_bytes()).hexdigest()}
        elif table is None and site is not None and n is not None and seed is not None:
            source, made_of = _simulated(site, n, seed, sound, causes, two_causes, pixel_spacing_mm)
        else:
            raise click.UsageError("Name either --table, or --site, --n and --seed.")
        cohort = build(out, source, made_of, workers, ("", WHOLE) if whole else ("",))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    print(f"{len(cohort)} studies in {out}")


if __name__ == "__main__":
    main()
