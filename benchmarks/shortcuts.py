r"""Judge the shortcut in reading JPEG 2000 as a network is judged: on thousands of studies.

    python -m benchmarks.shortcuts --n 2000 --work runs/shortcuts --out shortcuts.json --record

Each study is simulated, encoded, and read twice: every pixel, and no more than the network needs
(`hipnet_edge.pixels`). The reference is the FP32 network asked of the first; asked of the second
are the same network, and each `--engine` as a device would run it. The gate's limits are those of
the bundle. Studies are encoded as HTJ2K, which takes a tenth of the time: its transform is that of
JPEG 2000 and its reduced images are the same bit for bit, which is seen again on every fiftieth
study. `--record` keeps the verdict in the bundle's manifest.
"""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID
from tqdm import tqdm

from export.bundle import write_gate
from export.cohort_studies import area_fraction
from export.gate_figures import Answers, compare, exact_interval, exceeded, flipped
from export.provenance import made_here, today, write
from hipnet_edge.backends import Backend, choose_backend
from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import InputRefused
from hipnet_edge.geometry import Geometry
from hipnet_edge.pixels import LEAST_OVERSAMPLING, SHORTCUT, ReducedPixels
from hipnet_edge.preprocessing import InputSpec, StudyInput, preprocess_study
from hipnet_edge.radiograph import Radiograph
from hipnet_edge.simulation.cohort import PlannedStudy, plan
from hipnet_edge.simulation.dimensions import Site
from hipnet_edge.study import Study
from hipnet_edge.verdict import Gate, ShortcutVerdict
from hipnet_edge.vocabulary import CAUSES, VIEWS

SPACINGS_MM = (0.12, 0.14, 0.17, 0.2)
"""Detectors' pixel spacings, in turn: films of 4,000 to 2,000 rows."""
_SEED = 1709
_BOTH_CODECS_EVERY = 50
_SYNTAX = {"htj2k": "1.2.840.10008.1.2.4.201", "j2k": "1.2.840.10008.1.2.4.90"}

Array = NDArray[Any]


@dataclass(frozen=True)
class Pair:
    """One study, read exactly and by the shortcut.

    Attributes:
        cause: index into `CAUSES`, -1 for a sound prosthesis.
        occupancy: float16 [2, h, w], diseased part of each cell of the exact reading.
        inputs: the network's input, exactly and by the shortcut, float16 [2, 2, rows, columns].
        geometries: of each view, exactly and by the shortcut.
        reduced: how many of its views can be read by the shortcut.
        whole: how many of these were decoded whole after all, as their survey was not steady.
        same_in_both_codecs: whether JPEG 2000 gave the same input; None where it was not asked.
    """

    cause: int
    occupancy: Array
    inputs: Array
    geometries: tuple[tuple[Geometry, ...], tuple[Geometry, ...]]
    reduced: int
    whole: int
    same_in_both_codecs: bool | None


def read_twice(planned: PlannedStudy, spacing_mm: float, both_codecs: bool) -> Pair | str:
    """A study read both ways; the reason code where the exact reading refuses it."""
    made = planned.simulate(spacing_mm)
    datasets = [made.views[view].to_dataset() for view in VIEWS]
    spec = InputSpec()

    def read(files: list[Any], exact: bool) -> tuple[Study, StudyInput]:
        ap, lateral = (Radiograph.from_dicom(file, exact=exact) for file in files)
        study = Study(ap, lateral, laterality=made.laterality)
        return study, preprocess_study(study, spec)

    try:
        _, exact = read(datasets, exact=True)
    except InputRefused as refusal:
        return refusal.code.value
    study, shortcut = read([encoded(dataset, "htj2k") for dataset in datasets], exact=False)
    same = None
    if both_codecs:
        _, other = read([encoded(dataset, "j2k") for dataset in datasets], exact=False)
        same = bool(np.array_equal(other.radiographs, shortcut.radiographs))
    names = [cause.value for cause in CAUSES]
    geometries = tuple(
        tuple(prepared.views[view].geometry for view in VIEWS) for prepared in (exact, shortcut)
    )
    masks = [
        area_fraction(geometry.image_to_network(made.views[view].mask))
        for view, geometry in zip(VIEWS, geometries[0], strict=True)
    ]
    reduced = [r.pixels for r in study.views.values() if isinstance(r.pixels, ReducedPixels)]
    return Pair(
        names.index(planned.cause.value) if planned.cause else -1,
        np.stack(masks),
        np.stack([exact.radiographs, shortcut.radiographs]).astype(np.float16),
        (geometries[0], geometries[1]),
        len(reduced),
        sum(pixels.decoded_whole for pixels in reduced),
        same,
    )


def encoded(dataset: Dataset, codec: str) -> bytes:
    """A complete DICOM object with its pixels as lossless HTJ2K or JPEG 2000."""
    pixels = dataset.pixel_array
    stream = (
        imagecodecs.htj2k_encode(pixels, reversible=True)
        if codec == "htj2k"
        else imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, codecformat="j2k")
    )
    whole = deepcopy(dataset)  # what two datasets share would change in both
    whole.file_meta.TransferSyntaxUID = UID(_SYNTAX[codec])
    whole.PixelData = encapsulate([bytes(stream)])
    whole["PixelData"].VR = "OB"
    whole["PixelData"].is_undefined_length = True
    file = io.BytesIO()
    whole.save_as(file, enforce_file_format=True)
    return file.getvalue()


def answers(backend: Backend, pairs: list[Pair], which: int, what: str) -> Answers:
    """A backend's answers to one of the two readings, maps laid where the exact reading has them.

    A box that moved by a few pixels shows the same disease in another cell of its map; what must
    agree is where in the radiograph it is shown.
    """
    probabilities, maps, novelty = [], [], []
    for pair in tqdm(pairs, desc=what, unit="study", mininterval=5):
        outputs = backend.infer(pair.inputs[which][np.newaxis].astype(np.float32))
        probabilities.append(outputs.probabilities[0])
        exact, own = pair.geometries[0], pair.geometries[which]
        maps.append(
            np.stack([_laid(m, a, b) for m, a, b in zip(outputs.maps[0], exact, own, strict=True)])
        )
        novelty.append(np.nan if outputs.novelty is None else outputs.novelty[0])
    found = np.array(novelty, np.float32)
    return Answers(
        np.stack(probabilities), np.stack(maps), None if np.isnan(found).any() else found
    )


def _laid(maps: Array, exact: Geometry, own: Geometry) -> Array:
    """The maps [5, h, w] of one view on the cells that the exact reading's box has."""
    if own == exact:
        return maps
    cell = exact.network_shape[0] / maps.shape[1]
    y, x = np.mgrid[: maps.shape[1], : maps.shape[2]]
    centres = (np.stack([x, y], axis=-1) + 0.5) * cell - 0.5
    there = (own.to_network(exact.to_image(centres)) + 0.5) / cell - 0.5
    x, y = (np.ascontiguousarray(there[..., i], np.float32) for i in (0, 1))
    border = cv2.BORDER_REPLICATE
    return np.stack([cv2.remap(m, x, y, cv2.INTER_LINEAR, borderMode=border) for m in maps])


def input_change(pairs: list[Pair]) -> dict[str, float]:
    """How far the network's input is from the exact one's, in its own standard deviations."""
    means = []
    for pair in pairs:
        exact, shortcut = pair.inputs.astype(np.float32)
        means.extend(np.abs(exact - shortcut).mean(axis=(1, 2)))
    moved = [
        abs(a.box.top - b.box.top) + abs(a.box.left - b.box.left) + abs(a.box.height - b.box.height)
        for pair in pairs
        for a, b in zip(*pair.geometries, strict=True)
    ]
    return {
        "mean": float(np.mean(means)),
        "p50": float(np.median(means)),
        "p99": float(np.quantile(means, 0.99)),
        "max": float(np.max(means)),
        "boxes_moved": float(np.mean(np.array(moved) > 0)),
        "box_moved_px_p99": float(np.quantile(moved, 0.99)),
    }


def _work(task: tuple[PlannedStudy, float, bool]) -> Pair | str:
    cv2.setNumThreads(1)
    return read_twice(*task)


def read_all(n: int, work: Path, workers: int) -> list[Pair | str]:
    """Studies read both ways, in order; a folder keeps them, so that a stopped run goes on."""
    work.mkdir(parents=True, exist_ok=True)
    tasks = [
        (planned, SPACINGS_MM[i % len(SPACINGS_MM)], i % _BOTH_CODECS_EVERY == 0)
        for i, planned in enumerate(plan(Site.SHIFTED, n, _SEED, sound=0.15))
    ]
    blocks = [tasks[start : start + 100] for start in range(0, n, 100)]
    done: list[Pair | str] = []
    fresh = get_context("spawn")
    with ProcessPoolExecutor(workers, fresh) as pool, tqdm(total=n, unit="study") as bar:
        for index, block in enumerate(blocks):
            kept = work / f"{index:04d}.npy"
            if not kept.exists():
                made = np.empty(len(block), object)
                made[:] = list(pool.map(_work, block))
                np.save(kept, made, allow_pickle=True)
            done.extend(np.load(kept, allow_pickle=True))
            bar.update(len(block))
    return done


def judge(bundle: Bundle, pairs: list[Pair], engines: list[tuple[str, str]]) -> dict[str, Any]:
    """The gate's figures of the shortcut alone and with each engine."""
    gate, decision = bundle.manifest.gate or Gate(), bundle.manifest.decision
    causes = np.array([pair.cause for pair in pairs])
    occupancy = np.stack([pair.occupancy for pair in pairs])
    asked = [("onnxruntime", "fp32"), *engines]
    reference: Answers | None = None
    judged = {}
    for name, precision in asked:
        choice = choose_backend(bundle, name, precision)
        backend, what = choice.backend, f"{name} {choice.variant}"
        if reference is None:
            reference = answers(backend, pairs, 0, "reference")
        candidate = answers(backend, pairs, 1, what)
        backend.close()
        figures = compare(reference, candidate, causes, occupancy, decision)
        failed = exceeded(figures, gate.limits)
        flips = int(flipped(reference, candidate).sum())
        judged[what] = {
            "passed": not failed,
            "failed": failed,
            "figures": figures,
            "decision_flips": {"studies": flips, "ci95": exact_interval(flips, len(pairs))},
            "engine": {"version": backend.version, "device": backend.device},
        }
    return judged


@click.command(help=__doc__)
@click.option("--bundle", type=click.Path(path_type=Path), help="Default: the reference bundle.")
@click.option("--n", type=click.IntRange(10), default=2000, show_default=True, help="Studies.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Keeps what was read.")
@click.option("--engine", "engines", multiple=True, metavar="BACKEND:PRECISION")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Report as JSON.")
@click.option("--record", is_flag=True, help="Keep the verdict in the bundle's manifest.")
def main(
    bundle: Path | None,
    n: int,
    work: Path,
    engines: tuple[str, ...],
    workers: int,
    out: Path,
    record: bool,
) -> None:
    """Judge the shortcut."""
    model = Bundle.load(bundle) if bundle else Bundle.reference()
    read = read_all(n, work, workers)
    pairs = [pair for pair in read if isinstance(pair, Pair)]
    named = [(name, precision) for name, _, precision in (e.partition(":") for e in engines)]
    judged = judge(model, pairs, named)
    both = [pair.same_in_both_codecs for pair in pairs if pair.same_in_both_codecs is not None]
    passed = all(entry["passed"] for entry in judged.values()) and all(both)
    report = {
        "shortcut": SHORTCUT,
        "passed": passed,
        "studies": len(pairs),
        "refused": dict(Counter(code for code in read if isinstance(code, str))),
        "views": {
            "all": len(VIEWS) * len(pairs),
            "can_be_read_by_the_shortcut": sum(pair.reduced for pair in pairs),
            "decoded_whole_after_all": sum(pair.whole for pair in pairs),
        },
        "least_oversampling": LEAST_OVERSAMPLING,
        "same_in_jpeg_2000": {"studies": len(both), "same": sum(both)},
        "input_change": input_change(pairs),
        "limits": (model.manifest.gate or Gate()).limits.to_dict(),
        "judged": judged,
        "cohort": {
            "site": Site.SHIFTED.value,
            "n": n,
            "seed": _SEED,
            "sound": 0.15,
            "pixel_spacings_mm": SPACINGS_MM,
        },
        "bundle": {"name": model.manifest.name, "digest": model.digest},
        **made_here("imagecodecs", "opencv-python-headless", "numpy"),
    }
    write(report, out)
    if record:
        verdict = ShortcutVerdict(SHORTCUT, passed, len(pairs), today())
        write_gate(model.path, (model.manifest.gate or Gate()).with_shortcut(verdict))
    print(json.dumps({key: report[key] for key in ("passed", "input_change", "judged")}, indent=1))
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
