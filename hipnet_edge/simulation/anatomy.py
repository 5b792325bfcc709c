"""The patient: femur, pelvis and soft tissue of a left hip, as solids in millimetres.

Origins: the pelvis's frame at the centre of the acetabulum, the femur's frame at the centre of the
prosthetic head (they coincide in a sound hip).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .dimensions import Draws
from .materials import Material
from .solids import ANGLES, Cut, Ellipsoid, Points, Solid, Tube, rotation, round_section, section


@dataclass(frozen=True)
class Element:
    """A solid of one material in place of another, in the frame of one group."""

    solid: Solid
    material: Material
    displaces: Material = Material.SOFT_TISSUE
    group: str = "pelvis"
    density: float = 1.0


@dataclass(frozen=True)
class Patient:
    """The sizes of one patient that more than one part of the scene needs."""

    offset: float
    shaft_radius: float
    cortex_fraction: float
    flare: float
    bow: float
    density: float
    neck_level: float
    midline: float
    thigh_radius: float
    trunk_half_depth: float
    obesity: float
    swelling: float

    @classmethod
    def draw(cls, draws: Draws) -> Patient:
        """A patient from the table of dimensions."""
        offset = draws("femoral_offset")
        loss = draws("osteoporosis")
        return cls(
            offset=offset,
            shaft_radius=draws("femur_shaft_radius"),
            cortex_fraction=draws("cortex_fraction") * (1.0 - loss),
            flare=draws("femur_flare"),
            bow=draws("femur_bow"),
            density=1.0 - loss,
            neck_level=-offset * float(np.tan(np.radians(draws("neck_angle")))),
            midline=-draws("hip_to_midline"),
            thigh_radius=draws("thigh_radius"),
            trunk_half_depth=draws("trunk_half_depth"),
            obesity=draws("obesity"),
            swelling=draws("thigh_swelling") if draws.chance("thigh_swelling") else 0.0,
        )


def femur_axis(patient: Patient, z: Points) -> Points:
    """Centreline [K, 3] of the femoral shaft at heights `z`."""
    below = np.clip((patient.neck_level - z) / 300.0, 0.0, 1.0)
    y = -patient.bow * np.sin(np.pi * below)
    return np.column_stack([np.full_like(z, patient.offset), y, z])


def femur_radii(patient: Patient, z: Points) -> tuple[Points, Points]:
    """Outer and canal radii [K, angles] of the femur at heights `z`."""
    r, depth = patient.shaft_radius, patient.neck_level - z
    outer = section(
        lateral=r * np.interp(depth, [-24, -10, 40, 110], [0.7, 1.2, 1.12, 1.0]),
        medial=r * np.interp(depth, [-15, 5, 35, 75, 120], [1.1, patient.flare, 1.35, 1.08, 1.0]),
        anterior=r * np.interp(depth, [-24, -6, 60, 120], [0.6, 1.25, 1.08, 1.0]),
        posterior=r * np.interp(depth, [-24, -6, 60, 120], [0.6, 1.2, 1.1, 1.02]),
    )
    thick = r * patient.cortex_fraction
    cortex = np.interp(depth, [0, 30, 100, 260], [2.2, 0.55 * thick + 1.0, thick, 0.9 * thick])
    return outer, np.maximum(outer - cortex[:, None], 2.0)


SAW_HEIGHT, SAW_ASIDE, SAW_SLOPE = 10.0, 4.0, 0.88
"""The osteotomy: height over the neck's level at a distance from the axis, mm, and slope."""


def resection(patient: Patient) -> Cut:
    """What the saw left of the femur: everything below the osteotomy of the neck."""

    def keep(points: Points) -> Points:
        aside = points[..., 0] - patient.offset - SAW_ASIDE
        limit = patient.neck_level + SAW_HEIGHT + SAW_SLOPE * aside
        return np.asarray(1.0 / (1.0 + np.exp(np.clip((points[..., 2] - limit) / 0.5, -30, 30))))

    return keep


def both(first: Cut, second: Cut) -> Cut:
    """The cut that keeps what both keep."""
    return lambda points: first(points) * second(points)


def bone_around(patient: Patient, nodes: Points) -> tuple[Points, Points]:
    """Reach [K, angles] of bone and of its canal from `nodes` inside it, mm; 0 above the saw."""
    z = nodes[:, 2]
    outer, canal = femur_radii(patient, z)
    aside = nodes - femur_axis(patient, z)
    along = aside[:, :1] * np.cos(ANGLES) - aside[:, 1:2] * np.sin(ANGLES)
    # The saw runs upwards to the side, so it bounds what lies medially of a node.
    edge = ((z - patient.neck_level - SAW_HEIGHT) / SAW_SLOPE + SAW_ASIDE - aside[:, 0])[:, None]
    medially = np.minimum(np.cos(ANGLES), -1e-6)
    sawn = np.where(np.cos(ANGLES) < 0.0, edge / medially, np.inf)
    limit = np.where(edge < 0.0, sawn, 0.0)
    outer = np.clip(outer - along, 0.0, limit)
    return outer, np.clip(canal - along, 0.0, outer)


FEMUR_Z = np.arange(24.0, -360.0, -4.0)
"""Heights of the femur's nodes relative to the neck's level, mm."""


def femur(
    patient: Patient, tip: float, extra: Cut | None = None, z: Points = FEMUR_Z
) -> list[Element]:
    """The part of the shaft that `extra` keeps, at heights `z` relative to the neck's level.

    Cancellous bone fills the canal down to the stem's `tip` (a height), fatty marrow beyond it.
    """
    z = patient.neck_level + z
    nodes = femur_axis(patient, z)
    outer, canal = femur_radii(patient, z)
    saw = resection(patient)
    cut = saw if extra is None else both(saw, extra)
    cortex = Tube(nodes, outer, cut, detail=0.4)
    trabecular = Tube(nodes, canal, cut, detail=0.4)
    density, cancellous = patient.density, Material.CANCELLOUS_BONE
    elements = [
        Element(cortex, Material.CORTICAL_BONE, group="femur", density=density),
        Element(trabecular, cancellous, Material.CORTICAL_BONE, "femur", density),
    ]
    if z[-1] < tip:

        def deep(points: Points) -> Points:
            fading = 1.0 + np.exp(np.clip((points[..., 2] - tip + 12.0) / 5.0, -30, 30))
            return np.asarray(cut(points) / fading)

        marrow = Tube(nodes, canal, deep, detail=0.6)
        elements.append(Element(marrow, Material.FAT, cancellous, "femur", density))
    return elements


def _block(centre: list[float], semi: list[float], turn: Points | None = None) -> Ellipsoid:
    axes = np.diag(semi) if turn is None else np.diag(semi) @ turn.T
    return Ellipsoid(np.array(centre, float), axes, detail=0.6, softness=0.4)


def _bone(solid: Ellipsoid, rim: float, density: float, group: str) -> list[Element]:
    """A block of cancellous bone with a cortical rim of `rim` mm."""
    lengths = np.linalg.norm(solid.axes, axis=1, keepdims=True)
    core = replace(solid, axes=solid.axes * (1.0 - rim / lengths))
    return [
        Element(solid, Material.CORTICAL_BONE, group=group, density=density),
        Element(core, Material.CANCELLOUS_BONE, Material.CORTICAL_BONE, group, density),
    ]


def greater_trochanter(patient: Patient) -> list[Element]:
    """The greater trochanter."""
    centre = [patient.offset + 12.0, 4.0, patient.neck_level + 6.0]
    block = _block(centre, [11.0, 17.0, 22.0], rotation("y", -12.0))
    return _bone(block, 1.3, patient.density, "femur")


def lesser_trochanter(patient: Patient) -> list[Element]:
    """The lesser trochanter."""
    block = _block([patient.offset - 13.0, 9.0, patient.neck_level - 38.0], [8.0, 8.0, 13.0])
    return _bone(block, 1.2, patient.density, "femur")


def native_head_and_neck(patient: Patient) -> list[Element]:
    """The head and neck of a hip that was never replaced."""
    neck_nodes = np.linspace([patient.offset - 2.0, 0.0, patient.neck_level - 4.0], [0, 0, 0], 20)
    neck = Tube(neck_nodes, round_section(np.full(20, 15.0)), detail=0.6, softness=0.4)
    core = replace(neck, radii=neck.radii - 2.5)
    head = _block([0.0, 0.0, 0.0], [23.0, 23.0, 23.0])
    cancellous, cortical = Material.CANCELLOUS_BONE, Material.CORTICAL_BONE
    return [
        Element(neck, cortical, group="femur", density=0.8 * patient.density),
        Element(core, cancellous, cortical, "femur", 0.8 * patient.density),
        *_bone(head, 1.2, patient.density, "femur"),
    ]


def _ramus(points: list[list[float]], radius: float, density: float) -> list[Element]:
    knots = np.array(points, float)
    t = np.linspace(0, len(knots) - 1, 24)
    nodes = np.column_stack([np.interp(t, np.arange(len(knots)), knots[:, i]) for i in range(3)])
    taper = np.interp(t, [0, 0.2, t[-1] - 0.2, t[-1]], [0.6, 1.0, 1.0, 0.6])
    outer = Tube(nodes, round_section(radius * taper), detail=0.6, softness=0.5)
    inner = replace(outer, radii=np.maximum(outer.radii - 1.8, 0.5))
    return [
        Element(outer, Material.CORTICAL_BONE, density=density),
        Element(inner, Material.CANCELLOUS_BONE, Material.CORTICAL_BONE, density=density),
    ]


def hemipelvis(patient: Patient) -> list[Element]:
    """Acetabular block, ilium, ischium and pubic rami, in the pelvis's frame."""
    d, m = patient.density, patient.midline
    # The wing is a thin tilted plate, dense along its crest and along the pelvic brim.
    wing = _block([-14.0, 16.0, 92.0], [58.0, 7.0, 72.0], rotation("y", 12) @ rotation("x", -14))
    socket = _block([-15.0, 2.0, 12.0], [31.0, 27.0, 37.0], rotation("y", 20.0))
    return [
        *_bone(wing, 1.8, 0.9 * d, "pelvis"),
        *_bone(socket, 2.2, 0.9 * d, "pelvis"),
        *_ramus([[-34, 30, 62], [-42, 12, 22], [-40, -10, -6], [m + 8, -38, -26]], 6.5, d),
        *_ramus([[-20, -12, -6], [-52, -30, -14], [m + 5, -40, -26]], 9.0, d),
        *_ramus([[-16, 16, -10], [-22, 26, -46], [-36, 22, -76]], 13.0, d),
        *_ramus([[-36, 22, -76], [-62, -4, -68], [m + 6, -36, -40]], 7.5, d),
        *_ramus([[-62, 30, 150], [-14, 20, 166], [26, 6, 150], [44, -4, 112]], 6.0, d),
        *_ramus([[m + 5, -38, -18], [m + 6, -40, -48]], 9.0, d),
    ]


def sacrum(patient: Patient) -> list[Element]:
    """Sacrum and the last lumbar vertebra, on the midline."""
    m, d = patient.midline, 0.9 * patient.density
    base = _block([m, 42.0, 104.0], [50.0, 20.0, 32.0], rotation("x", 25.0))
    body = _block([m, 54.0, 66.0], [28.0, 14.0, 44.0], rotation("x", 20.0))
    last = _block([m, 10.0, 142.0], [27.0, 20.0, 17.0])
    return [e for block in (base, body, last) for e in _bone(block, 1.8, d, "pelvis")]


def soft_tissue(
    patient: Patient, swelling: float, swelling_level: float, lateral_view: bool
) -> list[Element]:
    """Thigh and trunk; the far leg is out of a lateral's beam.

    `swelling` (mm, of an infection) adds to what the patient's thigh is swollen for other reasons.
    """
    fat = patient.obesity
    z = patient.neck_level + np.arange(190.0, -380.0, -10.0)
    axis = femur_axis(patient, z) + np.array([-12.0, 6.0, 0.0])
    radius = patient.thigh_radius * np.interp(z, [-340, -120, 0, 60], [0.72, 0.95, 1.0, 0.85])
    swollen = patient.swelling + swelling
    radius = radius + swollen * np.exp(-(((z - swelling_level) / 55.0) ** 2))

    def below_groin(points: Points) -> Points:
        # Thigh and trunk share tissue around the groin, whose fold rises to the side: one fades
        # out where the other takes over.
        fold = patient.neck_level + 2.0 + 0.9 * (points[..., 0] - 20.0)
        return np.asarray(1.0 / (1.0 + np.exp((points[..., 2] - fold) / 22.0)))

    muscle = Tube(axis, round_section(radius), below_groin, detail=2.5, softness=2.0)
    skin = replace(muscle, radii=round_section(radius + 8.0 + 0.7 * fat), softness=1.0)
    depth = patient.trunk_half_depth + fat
    if lateral_view:
        # The beam crosses the near half of the pelvis only at the level of the hip.
        semi, centre = [105.0 + fat, depth, 190.0], [-45.0, 15.0, 130.0]
    else:
        semi, centre = [-patient.midline + 85.0 + fat, depth, 215.0], [patient.midline, 15.0, 125.0]
    trunk = Ellipsoid(np.array(centre), np.diag(semi), detail=3.0, softness=3.0)
    lean = replace(trunk, axes=np.diag(np.array(semi) - 14.0 - 0.8 * fat))
    weight = 0.55 if lateral_view else 0.8
    thigh_group = "thigh"
    return [
        Element(skin, Material.FAT, Material.AIR, thigh_group),
        Element(muscle, Material.SOFT_TISSUE, Material.FAT, thigh_group),
        Element(trunk, Material.FAT, Material.AIR, density=weight),
        Element(lean, Material.SOFT_TISSUE, Material.FAT, density=weight),
    ]
