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
from .anatomy import FEMUR_Z, Patient, bone_around
from .dimensions import Draws, severity_of
from .prosthesis import Prosthesis
from .solids import ANGLES, Ellipsoid, Points, rotation, smooth_field, sphere
from .stems import STEM_NODES, stem


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
    """A plane through the femur; the fragment beyond it is displaced.

    Attributes:
        point, normal: the plane, in the frame of the bone; the normal points to the fragment.
        gap: width of the fracture line, mm.
        shift: displacement of the fragment, mm [3].
        turn: rotation of the fragment about `point` [3, 3].
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
        size_mm: the size of the cause's leading sign: width of the lucent line, outer face of the
            periosteal new bone, head centre from cup centre (dislocation and wear), fracture gap.
        severity: 0 to 1; where that size lies in its range, or the latent severity of infection.
    """

    size_mm: float = 0.0
    severity: float = 0.0
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
    pelvic_osteolysis: tuple[Ellipsoid, ...] = ()
    fracture: Fracture | None = None

    def joined(self, other: Sign) -> Sign:
        """Both signs in one hip; size and severity stay those of this one."""
        farther = max(self, other, key=lambda sign: float(np.linalg.norm(sign.head_shift)))
        return Sign(
            size_mm=self.size_mm,
            severity=self.severity,
            head_shift=farther.head_shift,
            femur_turn=farther.femur_turn,
            stem_tilt=self.stem_tilt @ other.stem_tilt,
            subsidence=self.subsidence + other.subsidence,
            lucencies=self.lucencies + other.lucencies,
            cup_lucency=max(self.cup_lucency, other.cup_lucency),
            cup_border=max(self.cup_border, other.cup_border),
            cup_shift=self.cup_shift + other.cup_shift,
            pedestal=self.pedestal or other.pedestal,
            lamellae=self.lamellae + other.lamellae,
            swelling=max(self.swelling, other.swelling),
            gas=self.gas + other.gas,
            pelvic_osteolysis=self.pelvic_osteolysis + other.pelvic_osteolysis,
            fracture=self.fracture or other.fracture,
        )


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
    """A continuous, sharply bordered lucent line; tilt, subsidence, pedestal, a loose cup."""
    width, extent = draws("loosening_width"), draws("loosening_extent")
    border = draws("sclerotic_line")
    t = np.linspace(0.0, 1.0, STEM_NODES)
    start = draws.rng.uniform(0.0, 1.0 - extent)
    rise = np.clip((t - start) / 0.04, 0, 1) * np.clip((start + extent - t) / 0.04, 0, 1)
    wave = 1.0 + 0.13 * smooth_field(draws.rng, STEM_NODES, 18.0)
    lucency = Lucency(width * rise[:, None] * np.clip(wave, 0.7, 1.4), border)
    with_cup, migration = draws.chance("cup_loosening"), draws("cup_migration")
    return Sign(
        size_mm=width,
        severity=severity_of("loosening_width", width),
        stem_tilt=rotation("y", draws.rng.choice([-1, 1]) * draws("loosening_tilt")),
        subsidence=draws("loosening_subsidence"),
        lucencies=(lucency,),
        cup_lucency=width if with_cup else 0.0,
        cup_border=border,
        cup_shift=migration * np.array([-0.55, 0.0, 0.83]) * with_cup,
        pedestal=draws.chance("pedestal"),
    )


def infection(draws: Draws, patient: Patient, prosthesis: Prosthesis) -> Sign:
    """Irregular ill-defined osteolysis, bites, lamellated periosteal bone, swelling, gas.

    One latent severity drives them all, each with a scatter of its own.
    """
    rng = draws.rng
    severity = 0.5 * (draws("infection_severity") + draws("infection_severity"))

    def strength() -> float:
        return float(np.clip(severity + draws("infection_scatter"), 0.0, 1.0))

    width = draws("infection_width", strength())
    patchy = smooth_field(rng, STEM_NODES, 12.0, lobes=4)
    t = np.linspace(0.0, 1.0, STEM_NODES)
    rise = np.clip(t / 0.06, 0, 1) * np.clip((1.02 - t) / 0.05, 0, 1)
    amount = np.clip((patchy + 0.35) / 1.6, 0.0, 1.0) * rise[:, None]
    count = round(draws("infection_bites", strength()))
    bites = _scalloping(draws, patient, prosthesis, width, count)
    reaction = draws("periosteal_reaction", strength())
    reaction *= draws.chance("periosteal_new_bone")
    gas: list[Ellipsoid] = []
    if draws.chance("gas", severity):
        for _ in range(int(rng.integers(2, 6))):
            spot = [patient.offset + rng.uniform(22, 40), rng.uniform(-20, 20), rng.uniform(-90, 0)]
            gas.append(sphere(np.array(spot), rng.uniform(1.5, 4.0), softness=0.4))
    return Sign(
        size_mm=reaction,
        severity=severity,
        lucencies=(Lucency(np.maximum(width * amount, bites), softness=0.8),),
        lamellae=_periosteal(draws, reaction) if reaction else (),
        swelling=draws("swelling", strength()),
        gas=tuple(gas),
    )


def _periosteal(draws: Draws, reaction: float) -> tuple[Lamella, ...]:
    """One to three lamellae, the outermost `reaction` mm off the cortex."""
    level, angle = draws.rng.uniform(-130, -60), draws.rng.uniform(0, 2 * np.pi)
    along = np.exp(-(((FEMUR_Z - level) / (0.5 * draws("periosteal_length"))) ** 4))
    around = np.clip(0.75 + 0.8 * np.cos(ANGLES - angle), 0.0, 1.0)
    presence = np.outer(along, around)
    count = min(max(round(reaction / 1.7), 1), 3)
    pitch, gap = reaction / count, draws("periosteal_gap")
    return tuple(
        Lamella(presence, pitch * (layer + gap), pitch * (layer + 1)) for layer in range(count)
    )


def _scalloping(
    draws: Draws, patient: Patient, prosthesis: Prosthesis, depth: float, count: int
) -> Points:
    """Bites out of the endosteum, as width [K, angles] of the lucency from the stem's bed."""
    body = stem(patient, prosthesis)
    _, canal = bone_around(patient, body.nodes)
    width = np.zeros_like(canal)
    z = body.nodes[:, 2:]
    for _ in range(count):
        level, angle = draws.rng.uniform(*z[[-10, 20], 0]), draws.rng.uniform(0, 2 * np.pi)
        aside = canal * (1.0 - np.cos(ANGLES - angle))
        far = ((z - level) / draws("infection_bite_length")) ** 2 + (aside / 4.0) ** 2
        shape = np.sqrt(np.clip(1.0 - far, 0.0, 1.0))
        width = np.maximum(width, shape * (canal - body.bed + 0.6 * depth))
    return np.asarray(width)


def dislocation(draws: Draws, patient: Patient, prosthesis: Prosthesis) -> Sign:
    """The head outside the cup: posterior-superior most often, anterior-inferior less."""
    rng = draws.rng
    distance = max(draws("dislocation_distance"), prosthesis.head_radius + 8.0)
    if draws.chance("posterior_superior_dislocation"):
        direction = np.array([rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.8), rng.uniform(0.5, 1.0)])
        turn = rotation("z", rng.uniform(-30, -5)) @ rotation("y", rng.uniform(0, 12))
    else:
        direction = np.array([rng.uniform(-0.3, 0.4), rng.uniform(-0.8, -0.3), -1.0])
        turn = rotation("z", rng.uniform(5, 35)) @ rotation("y", rng.uniform(-15, 0))
    return Sign(
        size_mm=distance,
        severity=severity_of("dislocation_distance", distance),
        head_shift=distance * direction / np.linalg.norm(direction),
        femur_turn=turn,
    )


LOWEST_FRACTURE = -190.0
"""Height of the lowest fracture, mm under the head: every film shows it."""


def fracture(draws: Draws, patient: Patient, prosthesis: Prosthesis) -> Sign:
    """A line through the cortex at the trochanter, around the stem or below it (Vancouver A-C)."""
    rng, gap, step = draws.rng, draws("fracture_gap"), draws("fracture_step")
    severity = severity_of("fracture_gap", gap)
    x, level = patient.offset, patient.neck_level
    if draws.chance("trochanter_fracture"):
        normal = np.array([0.85, 0.0, 0.53]) / np.hypot(0.85, 0.53)
        point = np.array([x + 8.0, 4.0, level + 2.0])
        shift = gap * normal + 0.5 * step * np.array([-normal[2], 0.0, normal[0]])
        broken = Fracture(point, normal, gap, shift, np.eye(3), trochanter=True)
        return Sign(size_mm=gap, severity=severity, fracture=broken)
    tip = level + 9.0 - prosthesis.stem_length
    below = draws.chance("fracture_below_stem") and tip - 4.0 > LOWEST_FRACTURE
    if below:
        height = rng.uniform(max(tip - 22.0, LOWEST_FRACTURE), tip - 4.0)
    else:
        height = rng.uniform(max(tip + 4.0, LOWEST_FRACTURE), level - 62.0)
    azimuth, tilt = rng.uniform(0, 2 * np.pi), np.radians(draws("fracture_obliquity"))
    normal = np.array(
        [np.sin(tilt) * np.cos(azimuth), np.sin(tilt) * np.sin(azimuth), -np.cos(tilt)]
    )
    aside = rng.uniform(0, 2 * np.pi)
    sideways = np.array([np.cos(aside), np.sin(aside), 0.0])
    sideways -= (sideways @ normal) * normal
    # The fragments touch on one side at most: a wider gap lets them be bent further.
    most = np.degrees(np.arctan(0.8 * gap / patient.shaft_radius))
    bend, twist = draws("fracture_angulation"), rng.uniform(-0.6, 0.6)
    bend = min(bend, most) / np.hypot(1.0, twist)
    turn = rotation("y", rng.choice([-1, 1]) * bend) @ rotation("x", twist * bend)
    shift = step * sideways / np.linalg.norm(sideways) + gap * normal
    point = np.array([x, -patient.bow * np.sin(np.pi * (level - height) / 300.0), height])
    broken = Fracture(point, normal, gap, shift, turn)
    return Sign(size_mm=gap, severity=severity, fracture=broken)


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
            angle = np.radians(rng.uniform(75, 145))
            reach = prosthesis.cup_radius + 0.45 * radius
            centre = reach * np.array([np.cos(angle), rng.uniform(-0.4, 0.4), np.sin(angle)])
            semi = np.diag(radius * rng.uniform(0.75, 1.2, 3))
            lytic.append(Ellipsoid(centre, semi, detail=0.4, softness=0.4))
    return Sign(
        size_mm=distance,
        severity=severity_of("wear_distance", distance),
        head_shift=shift,
        pelvic_osteolysis=tuple(lytic),
    )


SIGNS: dict[Cause, Callable[[Draws, Patient, Prosthesis], Sign]] = {
    Cause.PJI: infection,
    Cause.ASEPTIC_LOOSENING: loosening,
    Cause.DISLOCATION: dislocation,
    Cause.PERIPROSTHETIC_FRACTURE: fracture,
    Cause.POLYETHYLENE_WEAR: wear,
}
