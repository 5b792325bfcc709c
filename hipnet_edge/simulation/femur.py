"""The femur around a stem: whole or broken, with periosteal new bone and lucent interfaces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import anatomy
from .anatomy import FEMUR_Z, Element, Patient
from .materials import Material
from .motion import about, all_moved
from .signs import Fracture, Lucency, Sign
from .solids import Cut, Ellipsoid, Points, Tube
from .stems import Stem
from .truth import Truth


def sound_femur(patient: Patient, tip: float) -> list[Element]:
    """Shaft and both trochanters; marrow begins at the stem's `tip` (a height)."""
    return [
        *anatomy.femur(patient, tip),
        *anatomy.greater_trochanter(patient),
        *anatomy.lesser_trochanter(patient),
    ]


def broken_femur(patient: Patient, sign: Sign, tip: float) -> tuple[list[Element], list[Truth]]:
    """The femur with what a sign does to it: a fracture, periosteal lamellae."""
    broken = sign.fracture
    truth: list[Truth] = []
    if broken is None:
        elements = sound_femur(patient, tip)
    else:
        before, beyond = _sides(broken)
        fragment = about(broken.point, broken.turn, broken.shift)
        if broken.trochanter:
            parts = anatomy.greater_trochanter(patient)
            near = [*anatomy.femur(patient, tip, before), *_planed(parts, broken, 1.0)]
            near += anatomy.lesser_trochanter(patient)
            far = anatomy.femur(patient, tip, beyond, FEMUR_Z[FEMUR_Z > -60.0])
            far += _planed(parts, broken, -1.0)
            truth.append(Truth(_disc(broken), "femur"))
        else:
            near = anatomy.femur(patient, tip, before)
            near += anatomy.greater_trochanter(patient) + anatomy.lesser_trochanter(patient)
            far = anatomy.femur(patient, tip, beyond)
            truth.append(Truth(_slice(patient, broken), "femur"))
        elements = near + all_moved(far, fragment)
    for layer in sign.lamellae:
        z = patient.neck_level + FEMUR_Z
        axis = anatomy.femur_axis(patient, z)
        cortex, _ = anatomy.femur_radii(patient, z)
        outside = Tube(axis, cortex + layer.outer * layer.presence, detail=0.25, softness=0.15)
        inside = replace(outside, radii=cortex + layer.inner * layer.presence)
        soft, bone = Material.SOFT_TISSUE, Material.CORTICAL_BONE
        elements += [
            Element(outside, bone, soft, "femur", 0.85),
            Element(inside, soft, bone, "femur", 0.85),
        ]
        # Where it runs out it is too thin to be seen.
        thick = layer.outer * np.where(layer.presence > 0.4, layer.presence, 0.0)
        seen = replace(outside, radii=cortex + thick)
        truth.append(Truth(seen, "femur", minus=replace(outside, radii=cortex)))
    return elements, truth


def _sides(broken: Fracture) -> tuple[Cut, Cut]:
    """Cuts that keep what lies before the plane of the fracture, and what lies beyond it."""

    def before(points: Points) -> Points:
        return _step(-((points - broken.point) @ broken.normal))

    def beyond(points: Points) -> Points:
        return _step((points - broken.point) @ broken.normal)

    return before, beyond


def _planed(elements: list[Element], broken: Fracture, side: float) -> list[Element]:
    """Blocks cut by the plane of the fracture; side 1 keeps what lies before it, -1 beyond."""
    cut = []
    for element in elements:
        solid = element.solid
        if isinstance(solid, Ellipsoid):
            offset = float((broken.point - solid.centre) @ broken.normal)
            plane = (side * broken.normal, side * offset)
            cut.append(replace(element, solid=replace(solid, planes=(*solid.planes, plane))))
    return cut


def _disc(broken: Fracture) -> Ellipsoid:
    """The fracture line of a greater trochanter: a flat ellipsoid in its plane."""
    normal = broken.normal
    along = np.array([-normal[2], 0.0, normal[0]])
    axes = np.array([(0.5 * broken.gap + 0.8) * normal, [0.0, 17.0, 0.0], 21.0 * along])
    return Ellipsoid(broken.point + 0.5 * broken.shift, axes, detail=0.4)


def _slice(patient: Patient, broken: Fracture) -> Tube:
    """The fracture line of a shaft: a slice of it along the plane."""
    z = patient.neck_level + FEMUR_Z
    outer, _ = anatomy.femur_radii(patient, z)
    middle = broken.point + 0.5 * broken.gap * broken.normal
    half = 0.5 * broken.gap + 1.0

    def within(points: Points) -> Points:
        return _step(half - np.abs((points - middle) @ broken.normal))

    return Tube(anatomy.femur_axis(patient, z), outer, within)


def _step(distance: Points) -> Points:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(distance / 0.35, -30, 30))))


def lucent(
    body: Stem, bone: tuple[Points, Points], lucency: Lucency, density: float
) -> tuple[list[Element], Truth]:
    """Soft tissue for the bone within a lucency's width of the stem's bed, and its border.

    Args:
        body: the stem.
        bone: reach [K, angles] of bone and of its canal from the stem's nodes: nothing is taken
            where there is no bone, and of cortex as much as there is.
        lucency: width, border and softness.
        density: the patient's, of sound bone.
    """
    outer, canal = bone
    bed = body.bed
    zone = np.clip(bed + lucency.width, bed, np.maximum(outer - 0.5, bed))
    inner = np.clip(zone, bed, np.maximum(canal, bed))
    seen = lucency.border * np.clip(lucency.width / 0.6, 0, 1)
    lined = np.clip(inner + seen, inner, np.maximum(canal, inner))

    def around(radii: Points) -> Tube:
        return Tube(body.nodes, radii, detail=0.25, step=0.5, softness=lucency.softness)

    soft, cortical = Material.SOFT_TISSUE, Material.CORTICAL_BONE
    cancellous = Material.CANCELLOUS_BONE
    elements = [
        Element(around(zone), soft, cortical, "femur", density),
        Element(around(lined), cortical, cancellous, "femur", density),
        Element(around(bed), cancellous, soft, "femur", density),
    ]
    visible = replace(around(np.where(zone - bed > 0.5, zone, bed)), softness=0.0)
    return elements, Truth(visible, "femur", minus=replace(visible, radii=bed))
