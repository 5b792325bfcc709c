"""One hip in three dimensions: patient, prosthesis and sign composed into solids of materials.

Each element says which material it is and which it displaces, so a ray's attenuation is a plain
sum and the order of elements does not matter. Stem, neck and head are one rigid piece and the
femur's frame stands at the head's centre; when a stem sinks or tilts, the bone moves around it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from ..vocabulary import Cause
from . import anatomy, confounders, cups
from . import prosthesis as implant
from .anatomy import Element, Patient
from .clinical import blood_tests
from .dimensions import Draws, Site
from .femur import broken_femur, lucent, sound_femur
from .materials import Material
from .motion import about, all_moved, mirrored, moved
from .prosthesis import Prosthesis
from .signs import SIGNS, Lucency, Sign, stable_fixation
from .solids import Ellipsoid, sphere
from .stems import Stem, stem
from .truth import Truth

SCENE_STREAM, SIGN_STREAM, FILM_STREAM, CLINICAL_STREAM = 0, 1, 2, 3
"""Random streams of one seed: the sign's draws never move the patient's or the film's."""


@dataclass(frozen=True)
class Scene:
    """A left hip (and on a bilateral film the other one) ready to be radiographed.

    Attributes:
        crp_mg_l, esr_mm_h: blood tests, see `clinical`.
    """

    patient: Patient
    prosthesis: Prosthesis
    sign: Sign
    elements: tuple[Element, ...]
    truth: tuple[Truth, ...]
    bilateral: bool
    other_hip_replaced: bool
    site: Site
    crp_mg_l: float
    esr_mm_h: float


def compose(
    cause: Cause | None,
    seed: int,
    site: Site = Site.DEVELOPMENT,
    also: Cause | None = None,
) -> Scene:
    """The scene of `seed` with the signs of `cause` (None: a sound prosthesis).

    Args:
        cause: the cause of failure.
        seed: any non-negative integer.
        site: whose implants and patients are drawn.
        also: a second cause at once; its sign has a stream of its own.
    """
    draws = Draws(site, seed, SCENE_STREAM)
    patient, parts = Patient.draw(draws), Prosthesis.draw(draws)
    thin, seat = stable_fixation(draws), confounders.bedding_in(draws)
    bilateral, other_replaced = draws.chance("bilateral_pelvis"), draws.chance("other_hip_replaced")
    chance_findings = confounders.bowel_gas(patient, draws)
    chance_findings += confounders.heterotopic_bone(patient, draws)
    chance_findings += confounders.vascular_calcification(patient, draws)
    signs = {
        one: SIGNS[one](Draws(site, seed, SIGN_STREAM, *extra), patient, parts)
        for one, extra in ((cause, ()), (also, (1,)))
        if one is not None
    }
    sign = reduce(Sign.joined, signs.values()) if signs else Sign()
    if not {Cause.DISLOCATION, Cause.POLYETHYLENE_WEAR} & set(signs):
        sign = replace(sign, head_shift=seat)
    elements, truth = _hip(patient, parts, sign, thin)
    elements += anatomy.hemipelvis(patient) + anatomy.sacrum(patient) + chance_findings
    if bilateral:
        elements += _other_hip(patient, parts, other_replaced)
    crp, esr = blood_tests(
        {one: signs[one].severity for one in signs}, Draws(site, seed, CLINICAL_STREAM)
    )
    return Scene(
        patient=patient,
        prosthesis=parts,
        sign=sign,
        elements=tuple(elements),
        truth=(*truth, *_truth_of_the_joint(set(signs), parts, sign)),
        bilateral=bilateral,
        other_hip_replaced=other_replaced,
        site=site,
        crp_mg_l=crp,
        esr_mm_h=esr,
    )


def _truth_of_the_joint(causes: set[Cause], parts: Prosthesis, sign: Sign) -> list[Truth]:
    """Head and empty cup of a dislocation, or what the head left free in a worn liner."""
    migrated = about(np.zeros(3), np.eye(3), sign.cup_shift)
    if Cause.DISLOCATION in causes:
        whole = cups.hemisphere(parts, parts.cup_radius)
        head = sphere(np.zeros(3), parts.head_radius)
        return [Truth(head, "femur"), Truth(moved(whole, migrated), "pelvis")]
    if Cause.POLYETHYLENE_WEAR in causes:
        inner = cups.hemisphere(parts, parts.head_radius + parts.liner)
        head = sphere(sign.head_shift + sign.cup_shift, parts.head_radius)
        return [Truth(moved(inner, migrated), "pelvis", minus=head)]
    return []


def _hip(
    patient: Patient, parts: Prosthesis, sign: Sign, thin: tuple[Lucency, ...]
) -> tuple[list[Element], list[Truth]]:
    body = stem(patient, parts)
    middle = body.nodes[len(body.nodes) // 2]
    rise = np.array([0.0, 0.0, sign.subsidence])
    around_stem = about(middle, sign.stem_tilt.T, rise)
    elements, truth = broken_femur(patient, sign, float(body.tip[2]))
    elements += implant.cerclage(patient, parts)
    elements = all_moved(elements, around_stem)
    truth = [item.moved(around_stem) for item in truth]
    elements += implant.femoral_component(patient, parts, body)
    nodes = around_stem.undo(body.nodes)
    outer, canal = anatomy.bone_around(patient, nodes)
    if sign.fracture is not None and not sign.fracture.trochanter:
        # The fragment has left the stem, and with it what would be lined there.
        near = ((nodes - sign.fracture.point) @ sign.fracture.normal < 0.0)[:, None]
        outer, canal = outer * near, canal * near
    bone = outer, canal
    for lucency in sign.lucencies:
        more, seen = lucent(body, bone, lucency, patient.density)
        elements += more
        truth.append(seen)
    for lucency in thin:
        # Where a disease has taken the interface, the harmless line is gone with it.
        free = np.ones_like(lucency.width)
        for other in sign.lucencies:
            free *= other.width < 0.3
        elements += lucent(
            body, bone, replace(lucency, width=lucency.width * free), patient.density
        )[0]
    if sign.pedestal:
        elements += _pedestal(patient, parts, body)
    elements += [Element(bubble, Material.AIR, group="femur") for bubble in sign.gas]
    more, less = _socket(patient, parts, sign)
    return elements + more, truth + less


def _pedestal(patient: Patient, parts: Prosthesis, body: Stem) -> list[Element]:
    """A plate of new bone across the canal under the tip, or under its cement."""
    depth = 5.0 + (parts.plug if parts.cemented else 0.0)
    tip = body.tip + np.array([0.0, 0.0, -depth])
    plug = Ellipsoid(tip, np.diag([6.5, 6.5, 3.5]), softness=0.7)
    density = 0.8 * patient.density
    return [Element(plug, Material.CORTICAL_BONE, Material.CANCELLOUS_BONE, "femur", density)]


def _socket(patient: Patient, parts: Prosthesis, sign: Sign) -> tuple[list[Element], list[Truth]]:
    """The cup with the bone it stands in, its lucent line, and osteolysis around it."""
    bone, soft, cortical = Material.CANCELLOUS_BONE, Material.SOFT_TISSUE, Material.CORTICAL_BONE
    radius, density = parts.cup_radius, 0.75 * patient.density
    shell = cups.hemisphere(parts, radius)
    wall = replace(cups.hemisphere(parts, radius + 7.0, 0.5), softness=1.2)
    elements = cups.cup(parts)
    truth: list[Truth] = []
    if sign.cup_lucency:
        zone = cups.hemisphere(parts, radius + sign.cup_lucency)
        line = cups.hemisphere(parts, radius + sign.cup_lucency + sign.cup_border)
        elements += [
            Element(line, cortical, bone, density=density),
            Element(zone, soft, cortical, density=density),
            Element(shell, bone, soft, density=density),
        ]
        truth.append(Truth(zone, "pelvis", minus=shell))
    migrated = about(np.zeros(3), np.eye(3), sign.cup_shift)
    elements = all_moved(elements, migrated)
    truth = [item.moved(migrated) for item in truth]
    elements.append(Element(wall, bone, density=0.5 * patient.density))
    for lesion in sign.pelvic_osteolysis:
        elements.append(Element(lesion, soft, bone, density=density))
        truth.append(Truth(lesion, "pelvis"))
    return elements, truth


def _other_hip(patient: Patient, parts: Prosthesis, replaced: bool) -> list[Element]:
    """The patient's other hip on a bilateral film: native, or soundly replaced."""
    tip = patient.neck_level - parts.stem_length
    elements = anatomy.hemipelvis(patient) + sound_femur(patient, tip)
    if replaced:
        elements += implant.femoral_component(patient, parts, stem(patient, parts))
        elements += cups.cup(parts)
    else:
        elements += anatomy.native_head_and_neck(patient)
    thigh = [e for e in anatomy.soft_tissue(patient, 0.0, 0.0, False) if e.group == "thigh"]
    return [mirrored(element, patient.midline) for element in elements + thigh]
