"""One hip in three dimensions: patient, prosthesis and sign composed into solids of materials.

Each element says which material it is and which it displaces, so a ray's attenuation is a plain
sum and the order of elements does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..vocabulary import Cause
from . import anatomy
from . import prosthesis as implant
from .anatomy import FEMUR_Z, Element, Patient
from .dimensions import Draws, Site
from .materials import Material
from .prosthesis import Prosthesis, Stem
from .signs import SIGNS, Fracture, Lucency, Sign, stable_fixation
from .solids import ANGLES, Cut, Ellipsoid, Points, Solid, Tube, sphere

SCENE_STREAM, SIGN_STREAM, FILM_STREAM = 0, 1, 2
"""Random streams of one seed: the sign's draws never move the patient's or the film's."""


@dataclass(frozen=True)
class Truth:
    """A solid that is diseased; with `minus` its silhouette less that of another (an interface)."""

    solid: Solid
    group: str
    minus: Solid | None = None


@dataclass(frozen=True)
class Scene:
    """A left hip (and on a bilateral film the other one) ready to be radiographed."""

    patient: Patient
    prosthesis: Prosthesis
    sign: Sign
    elements: tuple[Element, ...]
    truth: tuple[Truth, ...]
    bilateral: bool
    other_hip_replaced: bool


def compose(
    cause: Cause | None,
    seed: int,
    site: Site = Site.DEVELOPMENT,
    also: Cause | None = None,
) -> Scene:
    """The scene of `seed` with the signs of `cause` (None: a sound prosthesis)."""
    draws = Draws(site, seed, SCENE_STREAM)
    patient, parts = Patient.draw(draws), Prosthesis.draw(draws)
    thin = stable_fixation(draws)
    bilateral, other_replaced = draws.chance("bilateral_pelvis"), draws.chance("other_hip_replaced")
    gas = anatomy.bowel_gas(patient, draws)
    sign = Sign()
    if cause is not None:
        sign = SIGNS[cause](Draws(site, seed, SIGN_STREAM), patient, parts)
    elements, truth = _hip(patient, parts, sign, thin)
    elements += anatomy.hemipelvis(patient) + anatomy.sacrum(patient) + gas
    if bilateral:
        elements += _other_hip(patient, parts, other_replaced)
    if cause is Cause.DISLOCATION:
        truth += [
            Truth(sphere(np.zeros(3), parts.head_radius), "femur"),
            Truth(implant.hemisphere(parts, parts.cup_radius), "pelvis"),
        ]
    if cause is Cause.POLYETHYLENE_WEAR:
        inner = implant.hemisphere(parts, parts.cup_radius - parts.shell)
        head = sphere(sign.head_shift, parts.head_radius)
        truth.append(Truth(inner, "pelvis", minus=head))
    return Scene(patient, parts, sign, tuple(elements), tuple(truth), bilateral, other_replaced)


def _hip(
    patient: Patient, parts: Prosthesis, sign: Sign, thin: tuple[Lucency, ...]
) -> tuple[list[Element], list[Truth]]:
    body = implant.stem(patient, parts, sign.stem_tilt)
    rise = np.array([0.0, 0.0, sign.subsidence])
    elements, truth = _bone(patient, sign, rise, float(body.nodes[-1, 2]))
    elements += implant.femoral_component(patient, parts, body, Material.CANCELLOUS_BONE)
    elements += implant.cup(parts) + implant.cerclage(patient, parts)
    for lucency in sign.lucencies or thin:
        zone = _around(body, lucency.width, lucency.softness)
        if lucency.border:
            seen = np.clip(lucency.width / 0.6, 0, 1)
            line = _around(body, lucency.width + lucency.border * seen, lucency.softness)
            elements += _exchange(line, zone, Material.CORTICAL_BONE)
        none = np.zeros_like(lucency.width)
        bed = _around(body, none, lucency.softness)
        elements += _exchange(zone, bed, Material.SOFT_TISSUE)
        if sign.lucencies:
            visible = np.where(lucency.width > 0.5, lucency.width, 0.0)
            truth.append(Truth(_around(body, visible), "femur", minus=_around(body, none)))
    if sign.cup_lucency:
        more, less = _cup_elements(parts, sign)
        elements += more
        truth += less
    if sign.pedestal:
        tip = body.nodes[-1] + np.array([0.0, 0.0, -5.0])
        plug = Ellipsoid(tip, np.diag([6.5, 6.5, 3.5]), softness=0.7)
        elements.append(
            Element(plug, Material.CORTICAL_BONE, Material.CANCELLOUS_BONE, "femur", 0.8)
        )
    for bubble in sign.gas:
        elements.append(Element(bubble, Material.AIR, group="femur"))
    for lesions, group in ((sign.femoral_osteolysis, "femur"), (sign.pelvic_osteolysis, "pelvis")):
        for lesion in lesions:
            lost = Material.CORTICAL_BONE if group == "femur" else Material.CANCELLOUS_BONE
            elements.append(Element(lesion, Material.SOFT_TISSUE, lost, group, density=0.6))
            truth.append(Truth(lesion, group))
    return elements, truth


def _around(body: Stem, width: Points, softness: float = 0.0) -> Tube:
    """The stem's bed enlarged by `width` [K, angles] mm."""
    return Tube(body.nodes, body.bed + width, detail=0.25, step=0.5, softness=softness)


def _exchange(outer: Solid, inner: Solid, material: Material) -> list[Element]:
    """Bone between two nested solids becomes `material`: outer in, inner out again."""
    bone = Material.CANCELLOUS_BONE
    return [
        Element(outer, material, bone, "femur"),
        Element(inner, bone, material, "femur"),
    ]


def _cup_elements(parts: Prosthesis, sign: Sign) -> tuple[list[Element], list[Truth]]:
    """The lucent line around a loose cup."""
    radius = parts.cup_radius
    shell = implant.hemisphere(parts, radius)
    zone = implant.hemisphere(parts, radius + sign.cup_lucency)
    line = implant.hemisphere(parts, radius + sign.cup_lucency + sign.cup_border)
    bone, soft, cortical = Material.CANCELLOUS_BONE, Material.SOFT_TISSUE, Material.CORTICAL_BONE
    elements = [
        Element(line, cortical, bone),
        Element(zone, soft, cortical),
        Element(shell, bone, soft),
    ]
    return elements, [Truth(zone, "pelvis", minus=shell)]


def _bone(
    patient: Patient, sign: Sign, rise: Points, tip: float
) -> tuple[list[Element], list[Truth]]:
    """Femur with fracture, subsidence (the bone rises along the stem) and periosteal lamellae."""
    still, broken = np.eye(3), sign.fracture
    truth: list[Truth] = []
    if broken is None or broken.trochanter:
        elements = anatomy.femur(patient, tip, None, rise, still)
        elements += anatomy.trochanters(patient, broken.shift if broken else rise)
        if broken:
            gap = Ellipsoid(
                broken.point + 0.5 * broken.gap * broken.normal,
                np.array([[1.5, 0, -2.4], [0, 16.0, 0], [12.0, 0, 7.5]]),
                detail=0.4,
            )
            truth.append(Truth(gap, "femur"))
    else:
        near, far = _sides(broken)
        elements = anatomy.femur(patient, tip, near, rise, still)
        elements += anatomy.trochanters(patient, rise)
        elements += anatomy.femur(patient, tip, far, rise + broken.shift, broken.turn)
        z = patient.neck_level + FEMUR_Z
        outer, _ = anatomy.femur_radii(patient, z)
        line = Tube(anatomy.femur_axis(patient, z), outer, _slab(broken, 1.0 + broken.gap))
        truth.append(Truth(line, "femur"))
    for layer in sign.lamellae:
        z = patient.neck_level + FEMUR_Z
        axis = anatomy.femur_axis(patient, z) + rise
        cortex, _ = anatomy.femur_radii(patient, z)
        outside = Tube(axis, cortex + layer.outer * layer.presence, detail=0.25, softness=0.15)
        inside = replace(outside, radii=cortex + layer.inner * layer.presence)
        soft, bone = Material.SOFT_TISSUE, Material.CORTICAL_BONE
        elements += [
            Element(outside, bone, soft, "femur", 0.85),
            Element(inside, soft, bone, "femur", 0.85),
        ]
        truth.append(Truth(outside, "femur", minus=replace(outside, radii=cortex + 0.0)))
    return elements, truth


def _sides(broken: Fracture) -> tuple[Cut, Cut]:
    """Cuts that keep the part before the fracture line, and the displaced part beyond it."""
    moved = broken.point + broken.shift - broken.gap * broken.normal

    def before(points: Points) -> Points:
        return _step(-((points - broken.point) @ broken.normal))

    def beyond(points: Points) -> Points:
        return _step((points - moved) @ (broken.turn @ broken.normal) - broken.gap)

    return before, beyond


def _slab(broken: Fracture, half_width: float) -> Cut:
    middle = broken.point + 0.5 * broken.gap * broken.normal
    return lambda points: _step(half_width - np.abs((points - middle) @ broken.normal))


def _step(distance: Points) -> Points:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(distance / 0.35, -30, 30))))


def _other_hip(patient: Patient, parts: Prosthesis, replaced: bool) -> list[Element]:
    """The patient's other hip on a bilateral film: native, or soundly replaced."""
    still, zero = np.eye(3), np.zeros(3)
    tip = patient.neck_level - parts.stem_length
    elements = anatomy.hemipelvis(patient) + anatomy.trochanters(patient, zero)
    elements += anatomy.femur(patient, tip, None, zero, still)
    if replaced:
        body = implant.stem(patient, parts, still)
        elements += implant.femoral_component(patient, parts, body, Material.CANCELLOUS_BONE)
        elements += implant.cup(parts)
    else:
        elements += anatomy.native_head_and_neck(patient)
    thigh = [e for e in anatomy.soft_tissue(patient, 0.0, 0.0, False) if e.group == "thigh"]
    return [_mirrored(element, patient.midline) for element in elements + thigh]


def _mirrored(element: Element, midline: float) -> Element:
    """The element on the other side of the body, held still in the pelvis's frame."""
    solid = element.solid
    flip = np.array([-1.0, 1.0, 1.0])
    across = np.array([2.0 * midline, 0.0, 0.0])
    if isinstance(solid, Tube):
        opposite = (len(ANGLES) // 2 - np.arange(len(ANGLES))) % len(ANGLES)
        cut = solid.cut
        solid = replace(
            solid,
            nodes=solid.nodes * flip + across,
            radii=solid.radii[:, opposite],
            cut=None if cut is None else (lambda points: cut((points - across) * flip)),
        )
    else:
        solid = replace(
            solid,
            centre=solid.centre * flip + across,
            axes=solid.axes * flip,
            planes=tuple((normal * flip, offset) for normal, offset in solid.planes),
        )
    return replace(element, solid=solid, group="pelvis")
