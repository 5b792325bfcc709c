"""From a scene to a radiograph: attenuation, scatter, blur, noise, detector and display processing.

Everything here is in detector millimetres and pixels; the result is what a digital system stores
as DX "for presentation", with bone and metal bright.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..vocabulary import View
from .anatomy import Element, soft_tissue
from .dimensions import Draws
from .materials import Material
from .scene import Scene
from .solids import Array, Beam, Pose, Solid, rotation
from .truth import Truth

STORED_BITS = 14
FILM_MM = {"hip": (400.0, 320.0), "pelvis": (350.0, 430.0)}
"""Height and width of the film for one hip and for a bilateral pelvis, mm."""


@dataclass(frozen=True)
class Exposure:
    """How one view is taken: where the groups stand, the beam, the film.

    Attributes:
        poses: group name -> pose in the view's frame.
        shape: rows and columns of the detector.
        spacing: pixel size, mm.
    """

    view: View
    poses: dict[str, Pose]
    beam: Beam
    shape: tuple[int, int]
    spacing: float
    frog_leg: bool

    def lay(self, solid: Solid, group: str) -> tuple[slice, slice, Array] | None:
        """Chords of a solid of `group` on this detector, mm: rows, columns, chords."""
        return solid.project(self.poses[group], self.beam).lay(self.shape, self.spacing)


def expose(scene: Scene, view: View, draws: Draws, spacing: float) -> Exposure:
    """Positions patient, tube and detector for one view."""
    sign, bilateral = scene.sign, view is View.AP and scene.bilateral
    film = FILM_MM["pelvis" if bilateral else "hip"]
    shape = (round(film[0] / spacing), round(film[1] / spacing))
    turn = rotation("z", draws("femur_rotation")) @ sign.femur_turn
    abduction = rotation("y", draws("femur_abduction"))
    tilt = rotation("z", draws.rng.uniform(-6, 6)) @ rotation("x", draws.rng.uniform(-8, 8))
    frog = draws.chance("frog_leg")
    frog_abduction = draws("frog_abduction")
    jitter = np.array([draws("decentring"), draws("decentring")])
    if view is View.AP:
        pelvis, femur = np.eye(3), abduction @ turn
        origin = np.array([film[1] * 0.5, 112.0]) + jitter
        if bilateral:
            origin = np.array([film[1] * 0.5 - 1.12 * scene.patient.midline, 122.0]) + 0.6 * jitter
        distance = draws("object_to_detector_ap")
    elif frog:
        pelvis = tilt
        femur = rotation("y", -frog_abduction) @ rotation("z", -78.0) @ turn
        origin = np.array([film[1] * 0.38, 118.0]) + jitter
        distance = draws("object_to_detector_lateral")
    else:
        pelvis = rotation("z", -90.0) @ tilt
        femur = rotation("z", -90.0) @ rotation("x", draws.rng.uniform(-6, 6)) @ turn
        origin = np.array([film[1] * 0.5, 118.0]) + jitter
        distance = draws("object_to_detector_lateral")
    head = pelvis @ (sign.head_shift + sign.cup_shift)
    poses = {
        "pelvis": Pose(pelvis),
        "femur": Pose(femur, head),
        "thigh": Pose(femur, head * 0.5),
    }
    centre = (film[1] * 0.5, film[0] * 0.5)
    beam = Beam(draws("source_to_detector"), distance, (origin[0], origin[1]), centre)
    return Exposure(view, poses, beam, shape, spacing, frog and view is View.LATERAL)


def attenuation(elements: Iterable[Element], exposure: Exposure) -> tuple[Array, Array]:
    """Line integrals of attenuation [2, rows, columns] at both energies: of bone, of the rest."""
    bone = np.zeros((2, *exposure.shape), np.float32)
    rest = np.zeros((2, *exposure.shape), np.float32)
    for element in elements:
        laid = exposure.lay(element.solid, element.group)
        if laid is None:
            continue
        rows, columns, chords = laid
        into = bone if element.material.is_bone or element.displaces.is_bone else rest
        if Material.TITANIUM in (element.material, element.displaces):
            into = rest
        for energy in range(2):
            here, there = element.material.value[energy], element.displaces.value[energy]
            into[energy, rows, columns] += np.float32((here - there) * element.density) * chords
    return bone, rest


def truth_mask(truth: Iterable[Truth], exposure: Exposure) -> NDArray[np.bool_]:
    """Silhouettes of the diseased solids [rows, columns], grown by a millimetre."""
    mask = np.zeros(exposure.shape, np.uint8)

    def kernel_of(radius_mm: float) -> NDArray[np.uint8]:
        reach = 2 * max(round(radius_mm / exposure.spacing), 1) + 1
        return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))

    for item in truth:
        own = np.zeros(exposure.shape, np.uint8)
        laid = exposure.lay(item.solid, item.group)
        if laid is None:
            continue
        own[laid[0], laid[1]] = laid[2] > 0.5
        if item.minus is not None:
            less = exposure.lay(item.minus, item.group)
            if less is not None:
                own[less[0], less[1]] &= (less[2] <= 0.2).astype(np.uint8)
            own = np.asarray(cv2.morphologyEx(own, cv2.MORPH_OPEN, kernel_of(0.4)))
        mask |= own
    return np.asarray(cv2.dilate(mask, kernel_of(1.0))) > 0


def cloud(rng: np.random.Generator, shape: tuple[int, int], scales: tuple[float, ...]) -> Array:
    """Smooth noise of unit variance: the sum of noises of several pixel scales."""
    total = np.zeros(shape, np.float32)
    for scale in scales:
        size = (max(int(shape[1] / scale), 3), max(int(shape[0] / scale), 3))
        grain = rng.standard_normal(size[::-1]).astype(np.float32)
        total += cv2.resize(grain, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(total / max(float(total.std()), 1e-6), np.float32)


def radiograph(
    scene: Scene, exposure: Exposure, draws: Draws, letter: str
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Stored values (14 bit, bone bright) and the truth mask of one view of a left hip."""
    swelling_level = scene.patient.neck_level - 60.0
    body = soft_tissue(
        scene.patient, scene.sign.swelling, swelling_level, exposure.view is View.LATERAL
    )
    visible = [e for e in scene.elements if exposure.view is View.AP or not _far_side(e)]
    bone, rest = attenuation([*body, *visible], exposure)
    millimetre = 1.0 / exposure.spacing
    trabeculae = cloud(draws.rng, exposure.shape, (1.2 * millimetre, 2.5 * millimetre))
    muscle = cloud(draws.rng, exposure.shape, (18 * millimetre, 45 * millimetre))
    total = rest * (1.0 + 0.012 * muscle) + bone * (1.0 + 0.07 * trabeculae)
    np.maximum(total, 0.0, out=total)
    _marker(total, exposure, draws, letter)
    primary = 0.5 * (np.exp(-total[0]) + np.exp(-total[1]))
    seen, border = _collimate(primary, exposure, draws)
    signal = _detect(seen, exposure, draws)
    grey = _process(signal, border, exposure, draws)
    mask = truth_mask(scene.truth, exposure) & ~border
    return np.round(grey * (2**STORED_BITS - 1)).astype(np.uint16), mask


def _far_side(element: Element) -> bool:
    """Whether an element belongs to the other hip, which a lateral's beam does not cross."""
    solid = element.solid
    x = solid.nodes[:, 0].mean() if hasattr(solid, "nodes") else solid.centre[0]
    return bool(x < -95.0)


def _marker(total: Array, exposure: Exposure, draws: Draws, letter: str) -> None:
    """Lays a lead letter on the detector, usually beside the thigh, sometimes over bone."""
    if not draws.chance("marker"):
        return
    rows, columns = exposure.shape
    height = 12.0 / exposure.spacing
    x = draws.rng.uniform(0.05, 0.85) * columns
    y = draws.rng.uniform(0.12, 0.95) * rows
    size, _ = cv2.getTextSize(letter, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    sheet = np.zeros(exposure.shape, np.uint8)
    # A right hip's film is mirrored at the end, so its letter is written mirrored here.
    scale, thick = height / size[1], max(round(1.6 / exposure.spacing), 1)
    cv2.putText(
        sheet, letter, (int(x), int(y)), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick, cv2.LINE_AA
    )
    if letter == "R":
        box = cv2.boundingRect(sheet)
        part = sheet[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
        part[:] = part[:, ::-1].copy()
    lead = sheet.astype(np.float32) / 255.0
    for energy in range(2):
        total[energy] += np.float32(0.5 * Material.LEAD.value[energy]) * lead


def _collimate(primary: Array, exposure: Exposure, draws: Draws) -> tuple[Array, NDArray[np.bool_]]:
    """Closes the collimator on some sides; returns the beam's image and what it hid."""
    rows, columns = exposure.shape
    border = np.zeros(exposure.shape, bool)
    for side in range(4):
        if not draws.chance("collimated_side"):
            continue
        part = draws("collimation") * (0.45 if side < 2 else 1.0)
        depth = int(part * (rows if side < 2 else columns))
        slices = (
            (slice(0, depth), slice(None)),
            (slice(rows - depth, rows), slice(None)),
            (slice(None), slice(0, depth)),
            (slice(None), slice(columns - depth, columns)),
        )
        border[slices[side]] = True
    return np.where(border, np.float32(0.002) * primary, primary), border


def _detect(primary: Array, exposure: Exposure, draws: Draws) -> Array:
    """Scatter, blur and quantum noise; the signal is relative to the unattenuated beam."""
    spacing = exposure.spacing
    small = cv2.resize(primary, (64, 64), interpolation=cv2.INTER_AREA)
    glow = cv2.GaussianBlur(small, (0, 0), 5.0, borderType=cv2.BORDER_REFLECT)
    scattered = cv2.resize(glow, primary.shape[::-1], interpolation=cv2.INTER_LINEAR)
    total = primary + np.float32(draws("scatter")) * scattered
    total = cv2.GaussianBlur(total, (0, 0), draws("blur") / spacing)
    behind_patient = float(np.quantile(total[::8, ::8], 0.35))
    photons = draws("photons") * (spacing / 0.16) ** 2 / max(behind_patient, 1e-6)
    noise = draws.rng.standard_normal(primary.shape, dtype=np.float32)
    counts = total * np.float32(photons)
    counts += noise * np.sqrt(counts + 25.0)
    return np.asarray(np.maximum(counts, 1.0) / np.float32(photons), np.float32)


def _compress_range(density: Array, strength: float) -> Array:
    """Takes away a part of the slow changes, as display processing does for thick body parts."""
    rows, columns = density.shape
    size = (64, max(round(64 * rows / columns), 8))
    small = cv2.resize(density, size, interpolation=cv2.INTER_AREA)
    capped = np.minimum(small, np.quantile(small, 0.9))
    slow = cv2.GaussianBlur(capped, (0, 0), 4.0, borderType=cv2.BORDER_REPLICATE)
    slow = cv2.resize(slow, (columns, rows), interpolation=cv2.INTER_CUBIC)
    return np.asarray(density - np.float32(strength) * slow, np.float32)


def _process(signal: Array, border: NDArray[np.bool_], exposure: Exposure, draws: Draws) -> Array:
    """Logarithm, edge enhancement, tone curve: grey in [0, 1], dense parts bright."""
    raw = -np.log(signal)
    density = _compress_range(raw, draws("range_compression"))
    body = ~border[::6, ::6] & (raw[::6, ::6] > 1.2)
    middle = float(np.quantile(density[::6, ::6][body], 0.5)) if body.any() else 0.0
    low, high = middle - draws("window_below"), middle + draws("window_above")
    smooth = cv2.GaussianBlur(density, (0, 0), 1.6 / exposure.spacing)
    density += np.float32(draws("edge_enhancement")) * (density - smooth)
    linear = (density - np.float32(low)) / np.float32(high - low)
    bend = draws.rng.uniform(2.6, 4.2)
    grey = 1.0 / (1.0 + np.exp(-np.float32(bend) * (linear - np.float32(0.5))))
    ends = 1.0 / (1.0 + np.exp(bend * 0.5)), 1.0 / (1.0 + np.exp(-bend * 0.5))
    grey = (grey - np.float32(ends[0])) / np.float32(ends[1] - ends[0])
    shade = 1.0 if draws.chance("white_collimation") else 0.0
    return np.asarray(np.clip(np.where(border, np.float32(shade), grey), 0.0, 1.0), np.float32)
