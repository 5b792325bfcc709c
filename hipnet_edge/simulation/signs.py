"""The signs of the five causes of failure, placed in three dimensions so that both views agree.

Source of what each cause looks like: Vanrusselt et al., Insights Imaging 2015;6:591 (CC BY). Each
cause has one function that draws its `Sign` from a stream of its own: the same seed with another
cause is the same patient, prosthesis and film.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..vocabulary import Cause
from .anatomy import FEMUR_Z, Patient, femur_axis, femur_radii
from .dimensions import Draws
from .prosthesis import Prosthesis
from .solids import ANGLES, Ellipsoid, Points, rotation, smooth_field, sphere


def _no_shift() -> Points:
    return np.zeros(3)


@dataclass(frozen=True)
class Lucency:
    """A lucent zone around the stem's bed.

    Attributes:
        width: [K, angles] mm beyond the bed, along the stem's nodes.
        border: thickness of the sclerotic line around it, mm (0: none).
        softness: how ill-defined its edge is, mm.
    """

    width: Points
    border: float = 0.0
    softness: float = 0.0


@dataclass(frozen=True)
class Lamella:
    """A layer of periosteal new bone on the shaft: `inner` to `outer` mm off the cortex.

    Attributes:
        presence: [K, angles] in [0, 1] along the femur's nodes.
    """

    presence: Points
    inner: float
    outer: float


@dataclass(frozen=True)
class Fracture:
    """A plane through the femur; what lies beyond it is displaced.

    Attributes:
        point, normal: the plane, in the femur's frame; the normal points to the fragment.
        gap: width of the fracture line, mm.
        shift: displacement of the fragment, mm [3].
        turn: rotation of the fragment [3, 3].
        trochanter: the fragment is the greater trochanter (Vancouver A), not the shaft.
    """

    point: Points
    normal: Points
    gap: float
    shift: Points
    turn: Points
    trochanter: bool = False


@dataclass(frozen=True)
class Sign:
    """Everything a cause changes in a sound, replaced hip.

    Attributes:
        size_mm: the size of the cause's leading sign (lucency width, head displacement, gap ...).
    """

    size_mm: float = 0.0
    head_shift: Points = field(default_factory=_no_shift)
    femur_turn: Points = field(default_factory=lambda: np.eye(3))
    stem_tilt: Points = field(default_factory=lambda: np.eye(3))
    subsidence: float = 0.0
    lucencies: tuple[Lucency, ...] = ()
    cup_lucency: float = 0.0
    cup_border: float = 0.0
    cup_shift: Points = field(default_factory=_no_shift)
    pedestal: bool = False
    lamellae: tuple[Lamella, ...] = ()
    swelling: float = 0.0
    gas: tuple[Ellipsoid, ...] = ()
    femoral_osteolysis: tuple[Ellipsoid, ...] = ()
    pelvic_osteolysis: tuple[Ellipsoid, ...] = ()
    fracture: Fracture | None = None


STEM_NODES = 90


def stable_fixation(draws: Draws) -> tuple[Lucency, ...]:
    """The thin lucency with a sclerotic line of stable fibrous fixation: a confounder."""
    if not draws.chance("stable_lucency"):
        return ()
    t = np.linspace(0.0, 1.0, STEM_NODES)
    start, angle = draws.rng.uniform(0.1, 0.6), draws.rng.uniform(0, 2 * np.pi)
    along = (t > start) & (t < start + 0.3)
    around = np.cos(ANGLES - angle) > 0.0
    width = draws("stable_lucency") * np.outer(along, around).astype(float)
    return (Lucency(width, border=0.6),)


def loosening(draws: Draws, patient: Patient, prosthesis: Prosthesis) -> Sign:
    """A continuous, sharply bordered lucent line wider than 2 mm; tilt, subsidence, pedestal."""
    width, extent = draws("loosening_width"), draws("loosening_extent")
    border = draws("sclerotic_line")
    t = np.linspace(0.0, 1.0, STEM_NODES)
    start = draws.rng.uniform(0.02, 1.0 - extent) if extent < 0.98 else 0.0
    rise = np.clip((t - start) / 0.08, 0, 1) * np.clip((start + extent - t) / 0.08, 0, 1)
    wave = 1.0 + 0.13 * smooth_field(draws.rng, STEM_NODES, 14.0)
    lucency = Lucency(width * rise[:, None] * np.clip(wave, 0.7, 1.4), border)
    with_cup = draws.chance("cup_loosening")
    return Sign(
        size_mm=width,
        stem_tilt=rotation("y", draws.rng.choice([-1, 1]) * draws("loosening_tilt")),
        subsidence=draws("loosening_subsidence"),
        lucencies=(lucency,),
        cup_lucency=width if with_cup else 0.0,
        cup_border=border,
        cup_shift=np.array([-2.0, 0.0, 3.0]) * draws.rng.uniform(0, 1) if with_cup else np.zeros(3),
        pedestal=draws.chance("pedestal"),
    )


def infection(draws: Draws, patient: Patient, prosthesis: Prosthesis) -> Sign:
    """Irregular ill-defined osteolysis, scalloping, lamellated periosteal bone, swelling, gas."""
    rng, width = draws.rng, draws("infection_width")
    patchy = smooth_field(rng, STEM_NODES, 9.0, lobes=4)
    t = np.linspace(0.0, 1.0, STEM_NODES)
    rise = np.clip(t / 0.06, 0, 1) * np.clip((1.02 - t) / 0.05, 0, 1)
    amount = np.clip((patchy + 0.35) / 1.6, 0.0, 1.0) * rise[:, None]
    lamellae: list[Lamella] = []
    if draws.chance("periosteal_new_bone"):
        thickness, gap = draws("periosteal_thickness"), draws("periosteal_gap")
        level = rng.uniform(-130, -60)
        along = np.exp(-(((FEMUR_Z - level) / (0.5 * draws("periosteal_length"))) ** 4))
        angle = rng.uniform(0, 2 * np.pi)
        around = np.clip(0.75 + 0.8 * np.cos(ANGLES - angle), 0.0, 1.0)
        for layer in range(int(rng.integers(1, 4))):
            inner = gap + layer * (gap + thickness)
            lamellae.append(Lamella(np.outer(along, around), inner, inner + thickness))
    gas: list[Ellipsoid] = []
    if draws.chance("gas"):
        for _ in range(int(rng.integers(2, 6))):
            spot = [patient.offset + rng.uniform(22, 40), rng.uniform(-20, 20), rng.uniform(-90, 0)]
            gas.append(sphere(np.array(spot), rng.uniform(1.5, 4.0), softness=0.4))
    return Sign(
        size_mm=width,
        lucencies=(Lucency(width * amount, softness=0.8),),
        lamellae=tuple(lamellae),
        swelling=draws("swelling"),
        gas=tuple(gas),
        femoral_osteolysis=_scalloping(rng, patient, prosthesis, width),
    )


def _scalloping(
    rng: np.random.Generator, patient: Patient, prosthesis: Prosthesis, width: float
) -> tuple[Ellipsoid, ...]:
    """Bites out of the endosteum: flat ellipsoids half inside the cortex."""
    bites = []
    for _ in range(int(rng.integers(3, 8))):
        z = np.array([patient.neck_level - rng.uniform(20, prosthesis.stem_length)])
        angle = rng.uniform(0, 2 * np.pi)
        _, canal = femur_radii(patient, z)
        reach = float(np.interp(angle, ANGLES, canal[0], period=2 * np.pi))
        direction = np.array([np.cos(angle), -np.sin(angle), 0.0])
        centre = femur_axis(patient, z)[0] + reach * direction
        semi = np.diag([0.8 * width, 0.8 * width, rng.uniform(5, 12)])
        bites.append(Ellipsoid(centre, semi, detail=0.3, softness=0.6))
    return tuple(bites)


def dislocation(draws: Draws, patient: Patient, prosthesis: Prosthesis) -> Sign:
    """The head outside the cup: posterior-superior most often, anterior-inferior less."""
    rng, distance = draws.rng, draws("dislocation_distance")
    if draws.chance("posterior_superior_dislocation"):
        direction = np.array([rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.8), rng.uniform(0.5, 1.0)])
        turn = rotation("z", rng.uniform(-30, -5)) @ rotation("y", rng.uniform(0, 12))
    else:
        direction = np.array([rng.uniform(-0.3, 0.4), rng.uniform(-0.8, -0.3), -1.0])
        turn = rotation("z", rng.uniform(5, 35)) @ rotation("y", rng.uniform(-15, 0))
    shift = direction / np.linalg.norm(direction) * max(distance, prosthesis.head_radius + 8.0)
    return Sign(size_mm=float(np.linalg.norm(shift)), head_shift=shift, femur_turn=turn)


def fracture(draws: Draws, patient: Patient, prosthesis: Prosthesis) -> Sign:
    """A line through the cortex at the trochanter, around the stem or below it (Vancouver A-C)."""
    rng, gap, step = draws.rng, draws("fracture_gap"), draws("fracture_step")
    x, level = patient.offset, patient.neck_level
    if draws.chance("trochanter_fracture"):
        normal = np.array([0.85, 0.0, 0.53])
        point = np.array([x + 5.0, 4.0, level + 2.0])
        shift = normal * (gap + 0.5 * step) + np.array([0.0, 0.0, 0.5 * step])
        return Sign(
            size_mm=gap,
            fracture=Fracture(point, normal, gap, shift, np.eye(3), trochanter=True),
        )
    tip = level + 9.0 - prosthesis.stem_length
    if draws.chance("fracture_below_stem"):
        height = tip - rng.uniform(4.0, 22.0)
    else:
        height = rng.uniform(tip + 4.0, level - 55.0)
    azimuth, tilt = rng.uniform(0, 2 * np.pi), np.radians(draws("fracture_obliquity"))
    normal = np.array(
        [np.sin(tilt) * np.cos(azimuth), np.sin(tilt) * np.sin(azimuth), -np.cos(tilt)]
    )
    sideways = np.array([np.cos(rng.uniform(0, 2 * np.pi)), np.sin(rng.uniform(0, 2 * np.pi)), 0.0])
    shift = 0.7 * step * sideways + normal * gap
    turn = rotation("y", rng.choice([-1, 1]) * draws("fracture_angulation"))
    turn = turn @ rotation("x", rng.uniform(-0.6, 0.6) * draws("fracture_angulation"))
    point = np.array([x, 0.0, height])
    return Sign(size_mm=gap, fracture=Fracture(point, normal, gap, shift, turn))


def wear(draws: Draws, patient: Patient, prosthesis: Prosthesis) -> Sign:
    """The head eccentric in the cup, superolaterally; pelvic osteolysis when it is advanced."""
    rng = draws.rng
    distance = min(draws("wear_distance"), prosthesis.liner - 0.8)
    direction = np.array([rng.uniform(0.1, 0.7), rng.uniform(-0.2, 0.2), 1.0])
    shift = distance * direction / np.linalg.norm(direction)
    lytic: list[Ellipsoid] = []
    if distance > 3.5:
        for _ in range(int(rng.integers(1, 3))):
            radius = draws("wear_osteolysis")
            angle = np.radians(rng.uniform(60, 150))
            reach = prosthesis.cup_radius + 0.45 * radius
            centre = reach * np.array([np.cos(angle), rng.uniform(-0.4, 0.4), np.sin(angle)])
            semi = np.diag(radius * rng.uniform(0.75, 1.2, 3))
            lytic.append(Ellipsoid(centre, semi, detail=0.4, softness=0.4))
    return Sign(size_mm=distance, head_shift=shift, pelvic_osteolysis=tuple(lytic))


SIGNS: dict[Cause, Callable[[Draws, Patient, Prosthesis], Sign]] = {
    Cause.PJI: infection,
    Cause.ASEPTIC_LOOSENING: loosening,
    Cause.DISLOCATION: dislocation,
    Cause.PERIPROSTHETIC_FRACTURE: fracture,
    Cause.POLYETHYLENE_WEAR: wear,
}
