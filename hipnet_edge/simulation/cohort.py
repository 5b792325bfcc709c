"""Cohorts of simulated studies: which patients there are, and all of them as files with a table.

A cohort has a site and a seed. Study i has the simulation seed `seed * 100000 + i` and a cause
drawn from a stream of its own by how often the site sees it, so a longer cohort begins with the
shorter one, and neither the number of processes nor the format changes who is in it. `cohort.csv`
names the files of each study and all that is true of it; paths are relative to it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..dicom.identifiers import derived_uid
from ..errors import UsageError
from ..vocabulary import CAUSES, VIEWS, Cause, Laterality, View
from .dimensions import PREVALENCE, SOUND, Site
from .study import SimulatedStudy, SimulatedView, erased, simulate_study, write_png

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

SEEDS_PER_COHORT = 100_000
COLUMNS = (
    "ap",
    "lateral",
    "cause",
    "patient_id",
    "site",
    "severity",
    "sign_mm",
    "crp",
    "esr",
    "side",
    "ap_mask",
    "lateral_mask",
    "also",
    "stem",
    "cup",
    "cemented",
    "projection",
    "bilateral",
    "other_hip_replaced",
    "monochrome1",
    "digitised",
    "pixel_spacing_mm",
    "seed",
    "twin_of",
)
"""Of `cohort.csv`, in this order; docs/simulation.md says what each holds."""
TABLE_NAME = "cohort.csv"
_SETTINGS_NAME = "cohort.json"
_TRUTH_NAME = "truth.json"
_PLAN_STREAM = 0x434F484F  # far from the seeds of studies
_BITS = 16

Row = dict[str, str]
"""One study of a cohort's table."""


@dataclass(frozen=True)
class PlannedStudy:
    """Who is in a cohort: enough to simulate one study.

    Attributes:
        patient_id: such as SIM-D-000005-0017: site, seed of the cohort, place in it.
        site: where it is taken.
        seed: of the study.
        cause: None for a sound prosthesis.
        also: a second cause at once.
    """

    patient_id: str
    site: Site
    seed: int
    cause: Cause | None
    also: Cause | None = None

    def simulate(self, pixel_spacing_mm: float) -> SimulatedStudy:
        """Make the study."""
        return simulate_study(
            self.cause,
            self.seed,
            site=self.site,
            also=self.also,
            pixel_spacing_mm=pixel_spacing_mm,
        )


def plan(
    site: Site,
    n: int,
    seed: int,
    *,
    causes: Sequence[Cause | None] = (),
    sound: float | None = None,
    two_causes: float = 0.0,
) -> list[PlannedStudy]:
    """Who is in a cohort.

    Args:
        site: where all of them are taken.
        n: number of studies, below `SEEDS_PER_COHORT`.
        seed: of the cohort; two cohorts of one site and different seeds share nobody.
        causes: taken in turn; drawn by the site's prevalence if empty. None is a sound prosthesis.
        sound: part with a sound prosthesis; None: the site's, or 0 where causes are given.
        two_causes: part of the failed ones that have a second cause at once.

    Raises:
        UsageError: more studies than a cohort can have.
    """
    if not 0 < n <= SEEDS_PER_COHORT:
        raise UsageError(f"A cohort has 1 to {SEEDS_PER_COHORT} studies.")
    if sound is None:
        sound = 0.0 if causes else SOUND.at(site)
    limits = list(accumulate(PREVALENCE[cause].at(site) for cause in CAUSES))
    stream = np.random.default_rng((_PLAN_STREAM, list(Site).index(site), seed))
    studies = []
    for i, (is_sound, which, second) in enumerate(stream.random((n, 3))):
        cause: Cause | None = CAUSES[int(np.searchsorted(limits[:-1], which * limits[-1]))]
        if causes:
            cause = causes[i % len(causes)]
        if is_sound < sound:
            cause = None
        also = None
        if cause is not None and second < two_causes:
            others = [other for other in CAUSES if other is not cause]
            also = others[int(second / two_causes * len(others))]
        patient_id = f"SIM-{site.value[0].upper()}-{seed:06d}-{i:04d}"
        studies.append(PlannedStudy(patient_id, site, seed * SEEDS_PER_COHORT + i, cause, also))
    return studies


def causes_from(words: str) -> tuple[Cause | None, ...]:
    """Causes from their names with commas between; "none" is a sound prosthesis.

    Raises:
        UsageError: a name is unknown.
    """
    known: dict[str, Cause | None] = {**{cause.value: cause for cause in CAUSES}, "none": None}
    try:
        return tuple(known[word.strip()] for word in words.split(",") if word.strip())
    except KeyError as error:
        raise UsageError(f"Causes are {', '.join(known)}; not {error.args[0]}.") from error


def facts(study: SimulatedStudy, patient_id: str, twin_of: str = "") -> Row:
    """What is true of a study: its row of the table, less the names of its files."""
    lateral = study.lateral
    return {
        "cause": study.cause.value if study.cause else "",
        "patient_id": patient_id,
        "site": study.site.value,
        "severity": f"{study.severity:.4f}",
        "sign_mm": f"{study.sign_mm:.3f}",
        "crp": f"{study.crp_mg_l:.1f}",
        "esr": f"{study.esr_mm_h:.1f}",
        "side": study.laterality.value,
        "also": study.also.value if study.also else "",
        "stem": study.stem,
        "cup": study.cup,
        "cemented": _yes_or_no(study.cemented),
        "projection": lateral.projection,
        "bilateral": _yes_or_no(study.ap.laterality is Laterality.BOTH),
        "other_hip_replaced": _yes_or_no(study.other_hip_replaced),
        "monochrome1": _yes_or_no(lateral.monochrome1),
        "digitised": _yes_or_no(study.digitised),
        "pixel_spacing_mm": f"{lateral.pixel_spacing_mm:g}",
        "seed": str(study.seed),
        "twin_of": twin_of,
    }


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


@dataclass(frozen=True)
class CohortSettings:
    """What decides every byte of a cohort on disk.

    Attributes:
        site, n, seed, causes: as in `plan`.
        image_format: "dicom", or "png": 16-bit grey as displayed, without any header.
        twin: each failed study is followed by its twin, the same one with the disease erased.
        pixel_spacing_mm: of the detector.
    """

    site: Site
    n: int
    seed: int
    causes: tuple[Cause | None, ...] = ()
    image_format: str = "dicom"
    twin: bool = False
    pixel_spacing_mm: float = 0.16

    def to_dict(self) -> dict[str, Any]:
        """The settings as `cohort.json` holds them."""
        from .. import __version__

        return {
            "simulated": True,
            "site": self.site.value,
            "n": self.n,
            "seed": self.seed,
            "causes": [cause.value if cause else "none" for cause in self.causes],
            "format": self.image_format,
            "twin": self.twin,
            "pixel_spacing_mm": self.pixel_spacing_mm,
            "hipnet_edge": __version__,
        }


def write_cohort(
    directory: Path,
    settings: CohortSettings,
    workers: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Write a cohort's radiographs, truth masks and table, or finish one that was begun.

    Each study has a folder with the two views, their masks and `truth.json`, its row of the table.

    Args:
        directory: for the cohort; made if missing.
        settings: what to make.
        workers: processes; the files are the same whatever their number.
        progress: called after each of the n studies.

    Returns:
        the rows of `cohort.csv`.

    Raises:
        UsageError: the directory holds something else.
        OSError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _claim(directory, settings)
    planned = plan(settings.site, settings.n, settings.seed, causes=settings.causes)
    rows: list[Row] = []
    for made in _in_order(partial(_write_planned, directory, settings), planned, workers):
        rows += made
        progress()
    with (directory / TABLE_NAME).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return rows


def _claim(directory: Path, settings: CohortSettings) -> None:
    """Mark the directory as this cohort's; nothing that lies there is ever mixed with it."""
    mark = directory / _SETTINGS_NAME
    text = json.dumps(settings.to_dict(), indent=1) + "\n"
    if mark.exists():
        if mark.read_text(encoding="utf-8") != text:
            raise UsageError(f"{directory} holds another cohort; name another folder.")
    elif any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty; name another folder.")
    mark.write_text(text, encoding="utf-8")


def _in_order(
    make: Callable[[PlannedStudy], list[Row]], planned: Sequence[PlannedStudy], workers: int
) -> Iterator[list[Row]]:
    if workers <= 1:
        yield from map(make, planned)
        return
    # One core a process: the pool is the parallelism. Not forked: OpenCV's threads would hang.
    fresh = get_context("spawn")
    with ProcessPoolExecutor(workers, fresh, cv2.setNumThreads, (1,)) as pool:
        yield from pool.map(make, planned)


def _write_planned(directory: Path, settings: CohortSettings, planned: PlannedStudy) -> list[Row]:
    """Write one study, and its twin if wanted, unless an earlier run finished it."""
    wanted = [(planned.patient_id, "")]
    if settings.twin and planned.cause is not None:
        wanted.append((f"{planned.patient_id}-twin", planned.patient_id))
    truths = [directory / patient_id / _TRUTH_NAME for patient_id, _ in wanted]
    if not all(truth.exists() for truth in truths):
        study = planned.simulate(settings.pixel_spacing_mm)
        studies = [study]
        if len(wanted) == 2:
            healthy = PlannedStudy(planned.patient_id, planned.site, planned.seed, None)
            studies.append(erased(study, healthy.simulate(settings.pixel_spacing_mm)))
        for made, (patient_id, twin_of) in zip(studies, wanted, strict=True):
            _write_study(directory, settings.image_format, made, facts(made, patient_id, twin_of))
    rows: list[Row] = [json.loads(truth.read_text(encoding="utf-8")) for truth in truths]
    return rows


def _write_study(directory: Path, image_format: str, study: SimulatedStudy, known: Row) -> None:
    folder = directory / known["patient_id"]
    folder.mkdir(exist_ok=True)
    names = {}
    for view in VIEWS:
        simulated, name = study.views[view], view.value
        names[name] = f"{name}.png" if image_format == "png" else f"{name}.dcm"
        names[f"{name}_mask"] = f"{name}_mask.png"
        dataset = _identified(simulated, view, known["patient_id"])
        if image_format == "png":
            write_png(folder / names[name], _displayed(dataset))
        else:
            dataset.save_as(folder / names[name], enforce_file_format=True)
        write_png(folder / names[f"{name}_mask"], simulated.mask.astype(np.uint8) * 255)
    files = {name: f"{known['patient_id']}/{file}" for name, file in names.items()}
    row = {column: {**known, **files}[column] for column in COLUMNS}
    # Last, and whole or not at all: a folder with a truth is a finished study.
    part = folder / (_TRUTH_NAME + ".part")
    part.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / _TRUTH_NAME)


def _identified(simulated: SimulatedView, view: View, patient_id: str) -> FileDataset:
    """The DX object of a view, with identifiers that only this study of this cohort has."""
    dataset = simulated.to_dataset()
    identity = (patient_id, simulated.cause, simulated.pixel_spacing_mm)
    dataset.PatientID = patient_id
    dataset.PatientName = f"Simulated^{patient_id}"
    dataset.StudyInstanceUID = derived_uid("cohort study", *identity)
    dataset.SeriesInstanceUID = derived_uid("cohort series", view.value, *identity)
    dataset.SOPInstanceUID = derived_uid("cohort image", view.value, *identity)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _displayed(dataset: FileDataset) -> NDArray[np.uint16]:
    """Grey as a viewer would show the object, bone bright: uint16 [rows, columns]."""
    from ..radiograph import Radiograph

    grey = Radiograph.from_dicom(dataset).grey_levels()
    return np.asarray(np.round(grey * (2**_BITS - 1)), np.uint16)
