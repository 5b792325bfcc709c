"""A simulated study: an AP and a lateral radiograph of one scene, with truth masks."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..vocabulary import VIEWS, Cause, Laterality, View
from .detectors import Detector, ScannedFilm
from .dimensions import Draws, Site
from .radiography import STORED_BITS, expose, radiograph
from .scene import FILM_STREAM, compose

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

ERASED_MM = 8.0
"""How far around the truth mask `erased` may change pixels; it blends over the outer part."""
_BLEND_MM = 6.0


@dataclass(frozen=True)
class SimulatedView:
    """One simulated radiograph.

    Attributes:
        view: AP or lateral.
        cause, seed, site, also: the study it belongs to.
        stored: uint16 [rows, columns], 14 bits, MONOCHROME2 (bone bright).
        mask: bool [rows, columns], the diseased region.
        laterality: LEFT, RIGHT, or BOTH for a bilateral pelvis.
        pixel_spacing_mm: detector pixel size.
        projection: "ap", "ap pelvis", "cross-table" or "frog-leg".
        monochrome1: how the DICOM object stores it.
        twin: the disease was erased from it.
    """

    view: View
    cause: Cause | None
    seed: int
    site: Site
    also: Cause | None
    stored: NDArray[np.uint16]
    mask: NDArray[np.bool_]
    laterality: Laterality
    pixel_spacing_mm: float
    projection: str
    monochrome1: bool
    twin: bool = False

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
        site: where it was taken.
        also: a second cause at once, or None.
        laterality: the side of the hip in question, LEFT or RIGHT.
        severity: of the disease, latent, 0 to 1; 0 for a sound prosthesis.
        sign_mm: size of the cause's leading sign, mm (see `signs.py`).
        crp_mg_l, esr_mm_h: blood tests (see `clinical.py`).
        stem, cup: the families of the prosthesis.
        cemented: whether the stem is.
        digitised: both views are scanned film, not those of a digital detector.
        other_hip_replaced: the bilateral AP shows a prosthesis on the other side too.
    """

    cause: Cause | None
    seed: int
    site: Site
    also: Cause | None
    laterality: Laterality
    severity: float
    sign_mm: float
    crp_mg_l: float
    esr_mm_h: float
    stem: str
    cup: str
    cemented: bool
    digitised: bool
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
        site: whose patients, implants and detectors.
        also: a second cause at once.
        pixel_spacing_mm: detector pixel size; 0.16 mm gives about 2500 x 2000 pixels.
    """
    scene = compose(cause, seed, site, also)
    draws = Draws(site, seed, FILM_STREAM, len(VIEWS))
    right, detector = draws.chance("right"), Detector.draw(draws)
    laterality = Laterality.RIGHT if right else Laterality.LEFT
    taken: dict[View, SimulatedView] = {}
    for index, view in enumerate(VIEWS):
        habits = Draws(site, seed, FILM_STREAM, index)
        exposure = expose(scene, view, habits, pixel_spacing_mm)
        stored, mask = radiograph(scene, exposure, detector, habits, "R" if right else "L")
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
            site=site,
            also=also,
            stored=stored,
            mask=mask,
            laterality=Laterality.BOTH if bilateral else laterality,
            pixel_spacing_mm=pixel_spacing_mm,
            projection=projection,
            monochrome1=draws.chance("monochrome1"),
        )
    return SimulatedStudy(
        cause=cause,
        seed=seed,
        site=site,
        also=also,
        laterality=laterality,
        severity=scene.sign.severity,
        sign_mm=scene.sign.size_mm,
        crp_mg_l=scene.crp_mg_l,
        esr_mm_h=scene.esr_mm_h,
        stem=scene.prosthesis.stem.name,
        cup=scene.prosthesis.cup.name,
        cemented=scene.prosthesis.cemented,
        digitised=isinstance(detector.processing, ScannedFilm),
        ap=taken[View.AP],
        lateral=taken[View.LATERAL],
        other_hip_replaced=scene.bilateral and scene.other_hip_replaced,
    )


def erased(study: SimulatedStudy, sound: SimulatedStudy) -> SimulatedStudy:
    """The twin of a study: the same films with the disease taken away.

    Around the truth masks it has the pixels of the sound films, up to `ERASED_MM` away and blended
    over the outer part of that; everywhere else exactly those of the diseased films.

    Args:
        study: the diseased one.
        sound: the same seed, site and pixel spacing without a cause.
    """
    views = {}
    for view, diseased in study.views.items():
        healthy = sound.views[view]
        if not diseased.mask.any():
            views[view] = replace(healthy, stored=diseased.stored, twin=True)
            continue
        away = cv2.distanceTransform((~diseased.mask).astype(np.uint8), cv2.DIST_L2, 5)
        share = np.clip((ERASED_MM - away * diseased.pixel_spacing_mm) / _BLEND_MM, 0.0, 1.0)
        change = share * (healthy.stored.astype(np.float32) - diseased.stored)
        stored = (diseased.stored + np.rint(change)).astype(np.uint16)
        views[view] = replace(healthy, stored=stored, twin=True)
    return replace(sound, ap=views[View.AP], lateral=views[View.LATERAL])


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
        write_png(paths[f"{name}_mask"], view.mask.astype(np.uint8) * 255)
    paths["truth"] = folder / "truth.json"
    paths["truth"].write_text(json.dumps(truth(study), indent=2) + "\n")
    return paths


def write_png(path: Path, pixels: NDArray[Any]) -> None:
    """Write grey pixels [rows, columns] of 8 or 16 bits.

    Raises:
        OSError: they cannot be encoded or written.
    """
    ok, png = cv2.imencode(".png", pixels)
    if not ok:
        raise OSError(f"{path.name} could not be encoded")
    path.write_bytes(png.tobytes())


def truth(study: SimulatedStudy) -> dict[str, Any]:
    """What is true of a study, as a JSON object."""
    return {
        "simulated": True,
        "cause": study.cause.value if study.cause else None,
        "also": study.also.value if study.also else None,
        "seed": study.seed,
        "site": study.site.value,
        "laterality": study.laterality.value,
        "severity": round(study.severity, 4),
        "sign_mm": round(study.sign_mm, 3),
        "crp_mg_l": round(study.crp_mg_l, 1),
        "esr_mm_h": round(study.esr_mm_h, 1),
        "stem": study.stem,
        "cup": study.cup,
        "cemented": study.cemented,
        "digitised": study.digitised,
        "other_hip_replaced": study.other_hip_replaced,
        "projections": {"ap": study.ap.projection, "lateral": study.lateral.projection},
        "pixel_spacing_mm": study.ap.pixel_spacing_mm,
    }
