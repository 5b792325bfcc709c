"""Pictures that are no failed hip prosthesis, to ask whether a model knows a stranger.

Chest, hand, plated tibia and knee prosthesis are crude scenes of the simulator's own solids and
materials, exposed by a plain film model; whoever tells them from hips has not thereby shown to
tell real ones. The others are noise, scribbles, an empty film, and simulated hips held wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hipnet_edge.simulation.materials import Material
from hipnet_edge.simulation.solids import (
    Beam,
    Ellipsoid,
    Pose,
    Solid,
    Tube,
    rotation,
    round_section,
    section,
)

Array = NDArray[Any]
Random = np.random.Generator
Pair = tuple[NDArray[np.uint16], NDArray[np.uint16]]
"""The picture that is given as the AP and that given as the lateral."""

SPACING_MM = 0.4


class Part(NamedTuple):
    """A solid of one material in place of another."""

    solid: Solid
    material: Material
    displaces: Material = Material.SOFT_TISSUE
    density: float = 1.0


Scene = list[Part]


def film(scene: Scene, size_mm: tuple[float, float], degrees: float, random: Random) -> Array:
    """A scene turned about its long axis, as uint16 [rows, columns] with bone bright."""
    shape = round(size_mm[0] / SPACING_MM), round(size_mm[1] / SPACING_MM)
    centre = (size_mm[1] / 2, size_mm[0] / 2)
    beam = Beam(1100.0, 120.0, centre, centre)
    pose = Pose(rotation("z", degrees) @ rotation("x", random.uniform(-6, 6)))
    path = np.zeros((2, *shape), np.float32)
    for part in scene:
        laid = part.solid.project(pose, beam).lay(shape, SPACING_MM)
        if laid is None:
            continue
        rows, columns, chords = laid
        for energy in range(2):
            here, there = part.material.value[energy], part.displaces.value[energy]
            path[energy, rows, columns] += np.float32(part.density * (here - there)) * chords
    dose = np.exp(-np.maximum(path, 0.0)).mean(axis=0)
    dose = cv2.GaussianBlur(dose + np.float32(0.05) * dose.mean(), (0, 0), 0.7)
    photons = random.uniform(2e3, 1e4) / float(np.median(dose))
    counts = np.maximum(dose * photons + random.normal(size=shape) * np.sqrt(dose * photons), 1.0)
    density = -np.log(counts / photons)
    low, high = np.percentile(density, [2, 99.5])
    return stored(np.clip((density - low) / (high - low), 0, 1) ** random.uniform(0.7, 1.3))


def stored(grey: Array) -> NDArray[np.uint16]:
    """Grey levels 0 to 1 as 14 bits."""
    return np.round(grey * (2**14 - 1)).astype(np.uint16)


def _tube(points: Array, radii: ArrayLike) -> Tube:
    """A round tube through points [K, 3], resampled to a smooth course."""
    given = np.linspace(0, 1, len(points))
    fine = np.linspace(0, 1, 40)
    nodes = np.stack([np.interp(fine, given, axis) for axis in np.asarray(points).T], axis=1)
    radius = np.interp(fine, np.linspace(0, 1, np.size(radii)), np.atleast_1d(radii))
    return Tube(nodes, round_section(radius), detail=0.5)


def _blob(centre: Sequence[float], semi: Sequence[float], **kwargs: Any) -> Ellipsoid:
    return Ellipsoid(np.array(centre), np.diag(semi), detail=1.0, **kwargs)


def _bone(points: Array, radii: ArrayLike, cortex: float) -> Scene:
    """A long bone: cortical outside, marrow inside."""
    inner = np.maximum(np.asarray(radii) - cortex, 0.5)
    return [
        Part(_tube(points, radii), Material.CORTICAL_BONE),
        Part(_tube(points, inner), Material.CANCELLOUS_BONE, Material.CORTICAL_BONE, 0.8),
    ]


def _shaft(x: float, top: float, bottom: float) -> Array:
    return np.array([[x, 0.0, top], [0.9 * x, 0.0, bottom]])


def chest(random: Random) -> Pair:
    """Lungs, heart, spine and ten pairs of ribs."""
    wide, deep = random.uniform(140, 175), random.uniform(95, 120)
    flesh = Material.SOFT_TISSUE
    scene = [Part(_blob([0, 0, 0], [wide, deep, 330]), flesh, Material.AIR)]
    for side in (-1.0, 1.0):
        lung = _blob([side * 0.47 * wide, 0, 20], [0.40 * wide, 0.75 * deep, 140], softness=1.5)
        scene.append(Part(lung, Material.AIR, flesh, 0.75))
        around = np.linspace(0.1, 0.92, 24) * np.pi
        for rib in range(10):
            reach = 0.72 + 0.22 * np.sin(np.pi * (rib + 1.5) / 12)
            x, y = side * reach * wide * np.sin(around), reach * deep * np.cos(around)
            z = 130 - 27 * rib - 22 * around
            scene.append(
                Part(_tube(np.stack([x, y, z], 1), 4.5), Material.CORTICAL_BONE, flesh, 0.6)
            )
    scene.append(Part(_blob([25, -30, -40], [55, 45, 65], softness=2), flesh, Material.AIR, 0.7))
    spine = np.array([[0, 55, 240], [0, 65, 0], [0, 50, -240]])
    scene.append(Part(_tube(spine, 17.0), Material.CANCELLOUS_BONE))
    size = (400.0, 400.0)
    return film(scene, size, random.uniform(-8, 8), random), film(scene, size, 90.0, random)


def tibia(random: Random) -> Pair:
    """A lower leg with a titanium plate and its screws."""
    flesh, metal = Material.SOFT_TISSUE, Material.TITANIUM
    radius = random.uniform(11, 14)
    scene = [Part(_tube(_shaft(6, 260, -260), [58, 52, 62, 40, 36]), flesh, Material.AIR)]
    scene += _bone(_shaft(0, 230, -200), [2.4 * radius, radius, radius, radius, 1.7 * radius], 4.0)
    scene += _bone(_shaft(34, 200, -215), [9.0, 6.0, 6.0, 6.0, 9.0], 2.0)
    length, at = random.uniform(50, 80), radius + 2.5
    z = np.linspace(length, -length, 30)
    nodes = np.stack([np.full(30, -at), np.zeros(30), z], 1)
    across, through = np.full(30, 2.0), np.full(30, 6.5)
    plate = Tube(nodes, section(across, across, through, through), detail=0.4)
    scene.append(Part(plate, metal))
    for height in np.linspace(0.9 * length, -0.9 * length, int(random.integers(5, 9))):
        screw = np.array([[-at - 1, 0, height], [radius, 0, height]])
        scene.append(Part(_tube(screw, 2.0), metal, Material.CANCELLOUS_BONE))
    size = (380.0, 200.0)
    return film(scene, size, random.uniform(-10, 10), random), film(scene, size, 90.0, random)


def hand(random: Random) -> Pair:
    """Five fingers, palm and wrist."""
    flesh = Material.SOFT_TISSUE
    scene = [
        Part(_blob([0, 0, -10], [42, 13, 58]), flesh, Material.AIR),
        Part(_tube(_shaft(0, -40, -150), [28.0, 26.0, 30.0]), flesh, Material.AIR),
    ]
    scene += _bone(_shaft(-11, -62, -150), [12.0, 8.0, 7.0], 2.0)
    scene += _bone(_shaft(13, -66, -150), [8.0, 6.0, 6.0], 2.0)
    for wrist in range(8):
        place = [-18 + 12 * (wrist % 4), 0, -42 - 11 * (wrist // 4)]
        scene.append(Part(_blob(place, [6.5, 6, 6]), Material.CANCELLOUS_BONE))
    spread = random.uniform(0.7, 1.3)
    for finger, lengths in enumerate(
        ((45, 32, 24), (66, 42, 40), (64, 48, 45), (58, 44, 42), (52, 36, 32))
    ):
        angle = np.radians(spread * (-38 + 16 * finger if finger else -58))
        way = np.array([np.sin(angle), 0, np.cos(angle)])
        start = np.array([-20 + 11 * finger, 0, -30 + 2 * finger], float)
        tip = start + way * (sum(lengths) + 12)
        scene.append(Part(_tube(np.array([start + 45 * way, tip]), 8.0), flesh, Material.AIR))
        for length in lengths:
            end = start + way * length
            scene += _bone(np.array([start, end]), [5.5, 3.6, 3.4, 5.0], 1.3)
            start = end + way * 3
    size = (330.0, 240.0)
    return film(scene, size, random.uniform(-10, 10), random), film(scene, size, 75.0, random)


def knee_prosthesis(random: Random) -> Pair:
    """A replaced knee: another joint with the same metals."""
    flesh, chrome = Material.SOFT_TISSUE, Material.COBALT_CHROME
    radius = random.uniform(14, 17)
    scene = [Part(_tube(_shaft(0, 220, -220), [78, 68, 62, 58, 48]), flesh, Material.AIR)]
    scene += _bone(_shaft(0, 200, 12), [radius, radius, 1.2 * radius, 2.3 * radius], 5.0)
    scene += _bone(_shaft(0, -16, -200), [2.5 * radius, 1.3 * radius, radius, radius], 5.0)
    up = np.array([0.0, 0.0, 1.0])
    for side in (-1.0, 1.0):
        condyle = [side * 0.95 * radius, 0.0, 16.0]
        scene.append(Part(_blob(condyle, [14, 32, 26], planes=((up, 12.0),)), chrome))
        bed = _blob([condyle[0], 0.0, 20.0], [10, 24, 18], planes=((up, 8.0),))
        scene.append(Part(bed, Material.CANCELLOUS_BONE, chrome))
    tray, keel = _blob([0, 0, -17], [2.3 * radius, 24, 3]), _tube(_shaft(0, -18, -60), [9.0, 6.0])
    scene += [Part(tray, chrome), Part(keel, chrome, Material.CANCELLOUS_BONE)]
    size = (360.0, 220.0)
    return film(scene, size, random.uniform(-10, 10), random), film(scene, size, 90.0, random)


def noise(random: Random) -> Pair:
    """White noise."""
    first, second = (stored(random.random((900, 700))) for _ in range(2))
    return first, second


def scribbles(random: Random) -> Pair:
    """Shapes with hard edges over smooth shading, as in a photograph or a drawing."""

    def picture() -> NDArray[np.uint16]:
        shade = cv2.resize(random.random((6, 5)), (700, 900), interpolation=cv2.INTER_CUBIC)
        for _ in range(int(random.integers(15, 60))):
            reach = 900 if random.random() < 0.5 else 200
            place = random.integers(0, 900 - reach + 1)
            corners = place + random.integers(0, reach, (int(random.integers(3, 7)), 2))
            cv2.fillPoly(shade, [corners.astype(np.int32)], float(random.random()))
        grain = np.asarray(random.normal(size=shade.shape), np.float32)
        texture = cv2.GaussianBlur(grain, (0, 0), random.uniform(1, 6))
        grey = shade + random.uniform(0.1, 0.6) * texture
        return stored((grey - grey.min()) / np.ptp(grey))

    return picture(), picture()


def blank(random: Random) -> Pair:
    """An exposed film with nothing on it but grain."""
    level = random.uniform(0.2, 0.8)
    first, second = (
        stored(np.clip(level + 0.002 * random.normal(size=(900, 700)), 0, 1)) for _ in range(2)
    )
    return first, second


MADE: dict[str, Callable[[Random], Pair]] = {
    "chest": chest,
    "tibia": tibia,
    "hand": hand,
    "knee_prosthesis": knee_prosthesis,
    "noise": noise,
    "scribbles": scribbles,
    "blank": blank,
}
"""Strangers that are made from nothing."""


def upside_down(ap: Array, lateral: Array) -> Pair:
    """Both films turned by 180 degrees."""
    return np.ascontiguousarray(ap[::-1, ::-1]), np.ascontiguousarray(lateral[::-1, ::-1])


def swapped(ap: Array, lateral: Array) -> Pair:
    """The lateral given as the AP and the reverse."""
    return lateral, ap


WRONGLY_HELD: dict[str, Callable[[Array, Array], Pair]] = {
    "upside_down": upside_down,
    "swapped": swapped,
}
"""Strangers that are made of a hip's two films."""
