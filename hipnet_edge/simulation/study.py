"""A simulated study: an AP and a lateral radiograph of one scene, with truth masks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..vocabulary import VIEWS, Cause, Laterality, View
from .dimensions import Draws, Site
from .radiography import STORED_BITS, expose, radiograph
from .scene import FILM_STREAM, compose

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset


@dataclass(frozen=True)
class SimulatedView:
    """One simulated radiograph.

    Attributes:
        view: AP or lateral.
        cause, seed: the study it belongs to.
        stored: uint16 [rows, columns], 14 bits, MONOCHROME2 (bone bright).
        mask: bool [rows, columns], the diseased region.
        laterality: LEFT, RIGHT, or BOTH for a bilateral pelvis.
        pixel_spacing_mm: detector pixel size.
        projection: "ap", "ap pelvis", "cross-table" or "frog-leg".
        monochrome1: how the DICOM object stores it.
    """

    view: View
    cause: Cause | None
    seed: int
    stored: NDArray[np.uint16]
    mask: NDArray[np.bool_]
    laterality: Laterality
    pixel_spacing_mm: float
    projection: str
    monochrome1: bool

    bits_stored = STORED_BITS

    def to_dataset(self) -> FileDataset:
        """The view as a complete DX object."""
        from .dicom_writer import to_dataset

        return to_dataset(self)


@dataclass(frozen=True)
class SimulatedStudy:
    """An AP and a lateral of one simulated patient.

    Attributes:
        cause: the simulated cause of failure; None for a sound prosthesis.
        laterality: the side of the hip in question, LEFT or RIGHT.
        sign_mm: size of the cause's leading sign, mm (see `signs.py`).
        other_hip_replaced: the bilateral AP shows a prosthesis on the other side too.
    """

    cause: Cause | None
    seed: int
    laterality: Laterality
    sign_mm: float
    ap: SimulatedView
    lateral: SimulatedView
    other_hip_replaced: bool

    @property
    def views(self) -> dict[View, SimulatedView]:
        """Both views by name."""
        return {View.AP: self.ap, View.LATERAL: self.lateral}


def simulate_study(
    cause: Cause | None,
    seed: int,
    *,
    site: Site = Site.DEVELOPMENT,
    also: Cause | None = None,
    pixel_spacing_mm: float = 0.16,
) -> SimulatedStudy:
    """Simulates one study; the same arguments give the same pixels.

    The scene, the sign and the film have random streams of their own, so one seed with two causes
    is the same patient and the same exposure with another disease.

    Args:
        cause: the cause of failure, or None for a sound prosthesis.
        seed: any non-negative integer.
        site: where it is taken; the same seed at two sites is two patients.
        also: a second cause at once.
        pixel_spacing_mm: detector pixel size; 0.16 mm gives about 2500 x 2000 pixels.
    """
    scene = compose(cause, seed, site, also)
    side = Draws(site, seed, FILM_STREAM, len(VIEWS))
    right = side.chance("right")
    laterality = Laterality.RIGHT if right else Laterality.LEFT
    taken: dict[View, SimulatedView] = {}
    for index, view in enumerate(VIEWS):
        draws = Draws(site, seed, FILM_STREAM, index)
        exposure = expose(scene, view, draws, pixel_spacing_mm)
        stored, mask = radiograph(scene, exposure, draws, "R" if right else "L")
        if right:
            stored, mask = np.fliplr(stored).copy(), np.fliplr(mask).copy()
        bilateral = view is View.AP and scene.bilateral
        projection = "ap pelvis" if bilateral else "ap"
        if view is View.LATERAL:
            projection = "frog-leg" if exposure.frog_leg else "cross-table"
        taken[view] = SimulatedView(
            view=view,
            cause=cause,
            seed=seed,
            stored=stored,
            mask=mask,
            laterality=Laterality.BOTH if bilateral else laterality,
            pixel_spacing_mm=pixel_spacing_mm,
            projection=projection,
            monochrome1=side.chance("monochrome1"),
        )
    return SimulatedStudy(
        cause=cause,
        seed=seed,
        laterality=laterality,
        sign_mm=scene.sign.size_mm,
        ap=taken[View.AP],
        lateral=taken[View.LATERAL],
        other_hip_replaced=scene.bilateral and scene.other_hip_replaced,
    )


def write_study(study: SimulatedStudy, directory: str | Path) -> dict[str, Path]:
    """Writes both views as DICOM, their truth masks as PNG, and what is true as JSON.

    Returns:
        The paths by name: ap, lateral, ap_mask, lateral_mask, truth.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, view in (("ap", study.ap), ("lateral", study.lateral)):
        paths[name] = folder / f"{name}.dcm"
        view.to_dataset().save_as(paths[name], enforce_file_format=True)
        paths[f"{name}_mask"] = folder / f"{name}_mask.png"
        ok, png = cv2.imencode(".png", view.mask.astype(np.uint8) * 255)
        if not ok:
            raise OSError(f"could not encode the mask of the {name} view")
        paths[f"{name}_mask"].write_bytes(png.tobytes())
    paths["truth"] = folder / "truth.json"
    paths["truth"].write_text(json.dumps(truth(study), indent=2) + "\n")
    return paths


def truth(study: SimulatedStudy) -> dict[str, Any]:
    """What is true of a study, as a JSON object."""
    return {
        "simulated": True,
        "cause": study.cause.value if study.cause else None,
        "seed": study.seed,
        "laterality": study.laterality.value,
        "sign_mm": round(study.sign_mm, 3),
        "other_hip_replaced": study.other_hip_replaced,
        "projections": {"ap": study.ap.projection, "lateral": study.lateral.projection},
        "pixel_spacing_mm": study.ap.pixel_spacing_mm,
    }
