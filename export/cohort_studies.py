"""One study of a cohort as a network sees it: from the simulator, or from files and a table.

Either way the radiographs go the way of a patient's: read as DICOM (or as an image file), checked
as a pair, and preprocessed by `hipnet_edge.preprocessing.preprocess_study`; what a network trains
on is what it sees later.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from hipnet_edge.evaluation import maps
from hipnet_edge.geometry import Geometry
from hipnet_edge.image_files import IMAGE_SUFFIXES
from hipnet_edge.preprocessing import (
    InputSpec,
    StudyInput,
    fit_box,
    network_pixels,
)
from hipnet_edge.radiograph import Radiograph
from hipnet_edge.simulation import cohort as simulated_cohorts
from hipnet_edge.study import Study
from hipnet_edge.survey import survey_of
from hipnet_edge.vocabulary import CAUSES, VIEWS, View

CELL = 8
"""Network pixels per side of an occupancy cell: the stride of the disease-probability maps."""
NEEDED_COLUMNS = ("ap", "lateral", "cause")

Row = dict[str, str]
Masks = Mapping[View, "NDArray[np.bool_] | None"]
"""What is diseased in each view, [rows, columns]; None where nobody knows."""


class Source(Protocol):
    """Where the studies of a cohort come from."""

    def __len__(self) -> int: ...

    def known(self, i: int) -> Row:
        """What is known of a study before it is read."""
        ...

    def read(self, i: int) -> tuple[Study, Masks, Row]:
        """A study, its truth masks and all that is known of it.

        Raises:
            InputRefused: the radiographs cannot be read.
        """
        ...


@dataclass(frozen=True)
class SimulatedSource:
    """Studies made in memory, bit for bit as if they had been written as DICOM and read again."""

    planned: list[simulated_cohorts.PlannedStudy]
    pixel_spacing_mm: float

    def __len__(self) -> int:
        return len(self.planned)

    def known(self, i: int) -> Row:
        """Who it is."""
        planned = self.planned[i]
        return {
            "cause": planned.cause.value if planned.cause else "",
            "patient_id": planned.patient_id,
        }

    def read(self, i: int) -> tuple[Study, Masks, Row]:
        """Simulate a study."""
        made = self.planned[i].simulate(self.pixel_spacing_mm)
        ap, lateral = (Radiograph.from_dicom(made.views[view].to_dataset()) for view in VIEWS)
        study = Study(ap, lateral, laterality=made.laterality)
        masks = {view: made.views[view].mask for view in VIEWS}
        return study, masks, simulated_cohorts.facts(made, self.planned[i].patient_id)


@dataclass(frozen=True)
class FileSource:
    """Studies that a table names: your own, or what `hipnet-edge simulate` wrote."""

    folder: Path
    rows: list[Row]

    @classmethod
    def open(cls, table: Path) -> FileSource:
        """Read a table with columns ap, lateral and cause (empty: a sound prosthesis).

        Further columns are kept; `side` names the hip, `ap_mask` and `lateral_mask` what is
        diseased, `pixel_spacing_mm` is for image files. Paths are relative to the table.

        Raises:
            ValueError: a column is missing, or a cause unknown.
        """
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = set(NEEDED_COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise ValueError(f"{table} has no column {', '.join(sorted(missing))}")
            rows = [{key: value or "" for key, value in row.items() if key} for row in reader]
        causes = {cause.value for cause in CAUSES} | {""}
        for number, row in enumerate(rows, start=2):
            if row["cause"] not in causes:
                raise ValueError(f"{table}, line {number}: unknown cause {row['cause']!r}")
        return cls(table.parent, rows)

    def __len__(self) -> int:
        return len(self.rows)

    def known(self, i: int) -> Row:
        """The table's row."""
        return self.rows[i]

    def read(self, i: int) -> tuple[Study, Masks, Row]:
        """Read a study's files."""
        row = self.rows[i]
        ap, lateral = (self._radiograph(row, view) for view in VIEWS)
        masks = {view: self._mask(row, view) for view in VIEWS}
        return Study(ap, lateral, laterality=row.get("side") or None), masks, row

    def _radiograph(self, row: Row, view: View) -> Radiograph:
        path = self.folder / row[view.value]
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            return Radiograph.from_dicom(path)
        spacing = row.get("pixel_spacing_mm")
        # A table of hips says what the header of an image file cannot.
        return Radiograph.from_image(
            path, view=view, anatomy="hip", pixel_spacing_mm=float(spacing) if spacing else None
        )

    def _mask(self, row: Row, view: View) -> NDArray[np.bool_] | None:
        name = row.get(f"{view.value}_mask")
        if not name:
            return None
        mask = cv2.imread(str(self.folder / name), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise ValueError(f"{self.folder / name} is no mask that can be read")
        return np.asarray(mask > 0)


@dataclass(frozen=True)
class Picture:
    """A study cut and scaled in one way.

    Attributes:
        radiographs: float32 [2, H, W], normalised.
        occupancy: float16 [2, H/8, W/8], the diseased part of each cell; NaN where unknown.
        mm_per_pixel: size of a network pixel on each detector; None without pixel spacing.
    """

    radiographs: NDArray[np.float32]
    occupancy: NDArray[np.float16]
    mm_per_pixel: tuple[float | None, ...]


def cropped(study: Study, masks: Masks, prepared: StudyInput, sound: bool) -> Picture:
    """A study as the runtime sees it: the box around the prosthesis."""
    geometries = {view: prepared.views[view].geometry for view in VIEWS}
    return _picture(study, masks, prepared.radiographs, geometries, sound)


def whole_film(
    study: Study, masks: Masks, prepared: StudyInput, sound: bool, spec: InputSpec
) -> Picture:
    """The whole film within its collimation in the same input, as if no prosthesis were found."""
    geometries, pixels = {}, []
    for view in VIEWS:
        radiograph, seen = study.views[view], prepared.views[view].geometry
        field = survey_of(radiograph).field
        box = fit_box(field, field, seen.network_shape)
        geometries[view] = Geometry(seen.image_shape, box, seen.mirrored, seen.network_shape)
        pixels.append(network_pixels(radiograph, field, geometries[view], spec))
    return _picture(study, masks, np.stack(pixels), geometries, sound)


def _picture(
    study: Study,
    masks: Masks,
    radiographs: NDArray[np.float32],
    geometries: Mapping[View, Geometry],
    sound: bool,
) -> Picture:
    occupancy, sizes = [], []
    for view in VIEWS:
        geometry, mask = geometries[view], masks[view]
        cells = (geometry.network_shape[0] // CELL, geometry.network_shape[1] // CELL)
        if mask is not None:
            occupancy.append(area_fraction(geometry.image_to_network(mask)))
        else:
            # Nothing is diseased about a sound prosthesis; of any other, nobody drew it.
            occupancy.append(np.full(cells, 0.0 if sound else np.nan, np.float16))
        spacing = study.views[view].pixel_spacing
        scale = geometry.box.height / geometry.network_shape[0]
        sizes.append(scale * spacing.row_mm if spacing else None)
    return Picture(radiographs, np.stack(occupancy), tuple(sizes))


def area_fraction(mask: NDArray[Any]) -> NDArray[np.float16]:
    """A truth mask [H, W] on the network's pixels as the diseased part of each cell [H/8, W/8]."""
    return maps.area_fraction(mask, CELL)
