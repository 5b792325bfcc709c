"""From a scene to a radiograph: patient, tube and detector in place, attenuation, truth masks.

Everything here is in detector millimetres and pixels; the result is what a digital system stores
as DX "for presentation", with bone and metal bright.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ..vocabulary import View
from .anatomy import Element, soft_tissue
from .detectors import Detector, cloud, enlarged
from .dimensions import Draws
from .frame import Marker, Shutters
from .materials import Material
from .scene import Scene
from .solids import Array, Beam, Pose, Solid, rotation
from .truth import Truth

STORED_BITS = 14
FILM_MM = {"hip": (400.0, 320.0), "pelvis": (350.0, 430.0)}
"""Height and width of the film for one hip and for a bilateral pelvis, mm."""
SOFT_MM = 1.5
"""Soft tissue has no detail finer than this; it is laid on a coarse grid and enlarged."""
TEXTURE = {"bone": 0.07, "soft tissue": 0.012}
"""Standard deviation of the texture of trabeculae and of muscle, as part of their attenuation."""


@dataclass(frozen=True)
class Exposure:
    """How one view is taken: where the groups stand, the beam, the film.

    Attributes:
        poses: group name -> pose in the view's frame.
        shape: rows and columns of the detector.
        spacing: pixel size, mm.
        frog_leg: a lateral with the pelvis as in an AP and the femur turned out.
    """

    view: View
    poses: dict[str, Pose]
    beam: Beam
    shape: tuple[int, int]
    spacing: float
    frog_leg: bool

    @property
    def across_the_table(self) -> bool:
        """A lateral whose beam does not cross the other hip."""
        return self.view is View.LATERAL and not self.frog_leg

    def lay(self, solid: Solid, group: str) -> tuple[slice, slice, Array] | None:
        """Chords of a solid of `group` on this detector, mm: rows, columns, chords."""
        patch = solid.project(self.poses[group], self.beam, finest=self.spacing)
        return patch.lay(self.shape, self.spacing)


def expose(scene: Scene, view: View, draws: Draws, spacing: float) -> Exposure:
    """Positions patient, tube and detector for one view."""
    sign, bilateral = scene.sign, view is View.AP and scene.bilateral
    film = FILM_MM["pelvis" if bilateral else "hip"]
    shape = (round(film[0] / spacing), round(film[1] / spacing))
    turn = rotation("z", draws("femur_rotation")) @ sign.femur_turn
    abduction = rotation("y", -draws("femur_abduction"))
    tilt = rotation("z", draws("pelvic_turn")) @ rotation("x", draws("pelvic_tilt"))
    frog = draws.chance("frog_leg") and view is View.LATERAL
    # A frog-leg's knee points outwards: the thigh is turned out and abducted.
    frog_abduction, frog_turn = draws("frog_abduction"), draws("frog_turn")
    raised = rotation("x", draws("cross_table_tilt"))
    jitter = np.array([draws("decentring"), draws("decentring")])
    distances = draws("object_to_detector_ap"), draws("object_to_detector_lateral")
    if view is View.AP:
        pelvis, femur = np.eye(3), abduction @ turn
        origin = np.array([film[1] * 0.5, 112.0]) + jitter
        if bilateral:
            origin = np.array([film[1] * 0.5 - 1.12 * scene.patient.midline, 122.0]) + 0.6 * jitter
    elif frog:
        pelvis = tilt
        femur = rotation("y", -frog_abduction) @ rotation("z", frog_turn) @ turn
        origin = np.array([film[1] * 0.38, 118.0]) + jitter
    else:
        pelvis = rotation("z", -90.0) @ tilt
        femur = rotation("z", -90.0) @ raised @ turn
        origin = np.array([film[1] * 0.5, 118.0]) + jitter
    head = pelvis @ (sign.head_shift + sign.cup_shift)
    poses = {
        "pelvis": Pose(pelvis),
        "femur": Pose(femur, head),
        "thigh": Pose(femur, head * 0.5),
    }
    centre = (film[1] * 0.5, film[0] * 0.5)
    distance = distances[view is View.LATERAL and not frog]
    beam = Beam(draws("source_to_detector"), distance, (origin[0], origin[1]), centre)
    return Exposure(view, poses, beam, shape, spacing, frog)


def attenuation(elements: Iterable[Element], exposure: Exposure) -> tuple[Array, Array]:
    """Line integrals of attenuation at both energies, and how much of it is mineral of bone.

    Returns:
        [2, rows, columns] attenuation, and [rows, columns] mm of cortical bone that would hold
        the mineral: what trabecular texture belongs to.
    """
    total = np.zeros((2, *exposure.shape), np.float32)
    mineral = np.zeros(exposure.shape, np.float32)
    for element in elements:
        laid = exposure.lay(element.solid, element.group)
        if laid is None:
            continue
        rows, columns, chords = laid
        for energy in range(2):
            here, there = element.material.value[energy], element.displaces.value[energy]
            _add(total[energy], rows, columns, (here - there) * element.density, chords)
        gained = _mineral(element.material) - _mineral(element.displaces)
        if gained:
            _add(mineral, rows, columns, gained * element.density, chords)
    return total, mineral


def _add(image: Array, rows: slice, columns: slice, weight: float, chords: Array) -> None:
    part = image[rows, columns]
    cv2.scaleAdd(chords, weight, part, dst=part)


def _mineral(material: Material) -> float:
    """Mineral of bone in a material, as part of that in cortical bone."""
    if not material.is_bone:
        return 0.0
    soft, cortical = Material.SOFT_TISSUE.value[0], Material.CORTICAL_BONE.value[0]
    return float((material.value[0] - soft) / (cortical - soft))


def truth_mask(truth: Iterable[Truth], exposure: Exposure) -> NDArray[np.bool_]:
    """Silhouettes of the diseased solids [rows, columns], grown by a millimetre."""
    mask = np.zeros(exposure.shape, np.uint8)

    def kernel_of(radius_mm: float) -> NDArray[np.uint8]:
        reach = 2 * max(round(radius_mm / exposure.spacing), 1) + 1
        return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))

    pad = max(round(2.0 / exposure.spacing), 3)
    for item in truth:
        laid = exposure.lay(item.solid, item.group)
        if laid is None:
            continue
        rows, columns, chords = laid
        own = (chords > 0.5).astype(np.uint8)
        if item.minus is not None:
            less = exposure.lay(item.minus, item.group)
            if less is not None:
                filled = np.zeros(exposure.shape, np.uint8)
                filled[less[0], less[1]] = less[2] > 0.2
                own &= 1 - filled[rows, columns]
            own = np.asarray(cv2.morphologyEx(own, cv2.MORPH_OPEN, kernel_of(0.4)))
        grown = (
            slice(max(rows.start - pad, 0), rows.stop + pad),
            slice(max(columns.start - pad, 0), columns.stop + pad),
        )
        around = np.zeros_like(mask[grown])
        down, right = rows.start - grown[0].start, columns.start - grown[1].start
        around[down : down + own.shape[0], right : right + own.shape[1]] = own
        mask[grown] |= np.asarray(cv2.dilate(around, kernel_of(1.0)))
    return mask > 0


def radiograph(
    scene: Scene, exposure: Exposure, detector: Detector, draws: Draws, letter: str
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Stored values (14 bit, bone bright) and the truth mask of one view of a left hip."""
    bilateral = scene.bilateral and exposure.view is View.AP
    marker, shutters = Marker.draw(draws), Shutters.draw(draws, bilateral)
    near_only = exposure.across_the_table
    visible = [e for e in scene.elements if not (near_only and _far_side(e, scene))]
    total, mineral = attenuation(visible, exposure)
    total += _soft_tissue(scene, exposure, draws)
    if marker is not None:
        begins = 0.0 if near_only else _midline(scene, exposure)
        rows, columns, lead = marker.lay(letter, exposure.shape, exposure.spacing, begins)
        for energy in range(2):
            _add(total[energy], rows, columns, Material.LEAD.value[energy], lead)
    primary = _transmitted(total, mineral, exposure, draws)
    open_part = shutters.window(exposure.shape)
    border = shutters.border(exposure.shape)
    primary[border] *= np.float32(0.002)
    grey = detector.grey(primary, exposure.spacing, open_part, draws.rng)
    np.clip(grey, 0.0, 1.0, out=grey)
    grey[border] = float(shutters.white)
    mask = truth_mask(scene.truth, exposure) & ~border
    grey *= np.float32(2**STORED_BITS - 1)
    return np.rint(grey, out=grey).astype(np.uint16), mask


def _soft_tissue(scene: Scene, exposure: Exposure, draws: Draws) -> Array:
    """Attenuation of thigh and trunk at both energies, with the texture of muscle."""
    times = max(1, int(SOFT_MM / exposure.spacing))
    shape = (-(-exposure.shape[0] // times), -(-exposure.shape[1] // times))
    coarse = replace(exposure, shape=shape, spacing=exposure.spacing * times)
    patient, sign = scene.patient, scene.sign
    level = patient.neck_level - 60.0
    body = soft_tissue(patient, sign.swelling, level, exposure.across_the_table)
    small, _ = attenuation(body, coarse)
    pixel = 1.0 / coarse.spacing
    muscle = cloud(draws.rng, shape, (18.0 * pixel, 45.0 * pixel))
    small *= np.float32(1.0) + np.float32(TEXTURE["soft tissue"]) * muscle
    return np.stack([enlarged(part, times, exposure.shape) for part in small])


def _transmitted(total: Array, mineral: Array, exposure: Exposure, draws: Draws) -> Array:
    """What passes of the beam [rows, columns], with the texture of trabeculae."""
    pixel = 1.0 / exposure.spacing
    texture = cloud(draws.rng, exposure.shape, (1.2 * pixel, 2.5 * pixel))
    texture *= np.maximum(mineral, 0.0)
    cortical, soft = Material.CORTICAL_BONE.value, Material.SOFT_TISSUE.value
    for energy in range(2):
        weight = TEXTURE["bone"] * (cortical[energy] - soft[energy])
        cv2.scaleAdd(texture, weight, total[energy], dst=total[energy])
        image = total[energy]
        np.maximum(image, 0.0, out=image)
        np.negative(image, out=image)
        np.exp(image, out=image)
    primary = total[0]
    primary += total[1]
    primary *= np.float32(0.5)
    return np.asarray(primary, np.float32)


def _midline(scene: Scene, exposure: Exposure) -> float:
    """Where the pelvis's midline falls on the film, mm from its left edge."""
    point = exposure.poses["pelvis"].apply(np.array([scene.patient.midline, 0.0, 0.0]))
    return float(exposure.beam.project(point)[0])


def _far_side(element: Element, scene: Scene) -> bool:
    """Whether an element belongs to the other hip, which a cross-table beam does not cross."""
    solid = element.solid
    x = solid.nodes[:, 0].mean() if hasattr(solid, "nodes") else solid.centre[0]
    return element.group == "pelvis" and bool(x < scene.patient.midline - 2.0)
