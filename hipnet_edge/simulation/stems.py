"""The catalogue of femoral stems, and a stem as centreline and radii.

Shapes are fractions of the sizes that the table draws, at fractions of the stem's length from the
shoulder (0) to the tip (1); they follow kinds of stems in common use and copy no product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .anatomy import Patient, bone_around, femur_axis
from .dimensions import Site
from .solids import ANGLES, Points, section

if TYPE_CHECKING:
    from .prosthesis import Prosthesis

Profile = tuple[tuple[float, ...], tuple[float, ...]]
"""Fractions of the length, and of the size at the neck there."""


@dataclass(frozen=True)
class StemFamily:
    """A kind of stem.

    Attributes:
        site: the one site that implants it, with `share` of its patients.
        length: the table's row of its length.
        lateral, medial, depth: its profiles.
        tip: radius at the tip over the table's.
        bow: part of the femur's anterior bow that it follows (0: straight).
        curve: mm by which its middle lies in front of its ends.
        anterior: how much deeper its front is than its back at the top.
        flutes: depth of its flutes over the radius.
        collar, centraliser: whether it has one.
    """

    name: str
    site: Site
    share: float
    cemented: bool
    length: str
    lateral: Profile
    medial: Profile
    depth: Profile
    tip: float = 1.0
    bow: float = 0.0
    curve: float = 0.0
    anterior: float = 0.0
    flutes: float = 0.0
    collar: bool = False
    centraliser: bool = False


_TAPER: Profile = ((0, 0.1, 0.5), (0.8, 1.0, 0.8))
_MEDIAL: Profile = ((0, 0.1, 0.22, 0.45), (0.75, 1.0, 0.78, 0.6))
_DEPTH: Profile = ((0, 0.1, 0.5), (0.9, 1.0, 0.85))

STEMS: tuple[StemFamily, ...] = (
    StemFamily(
        "straight taper", Site.DEVELOPMENT, 0.3, False, "stem_length", _TAPER, _MEDIAL, _DEPTH
    ),
    StemFamily(
        "anatomic",
        Site.DEVELOPMENT,
        0.2,
        False,
        "stem_length",
        ((0, 0.12, 0.4, 0.7), (0.75, 0.9, 0.8, 0.75)),
        ((0, 0.12, 0.3, 0.5, 0.75), (0.85, 1.15, 0.95, 0.66, 0.5)),
        ((0, 0.12, 0.45), (1.0, 1.25, 0.85)),
        tip=1.05,
        bow=1.0,
        curve=2.5,
        anterior=0.25,
    ),
    StemFamily(
        "polished taper",
        Site.DEVELOPMENT,
        0.3,
        True,
        "stem_length",
        ((0, 0.06), (0.8, 0.9)),
        ((0, 0.06, 0.3), (0.7, 0.85, 0.66)),
        ((0, 0.06), (0.75, 0.85)),
        tip=0.7,
        centraliser=True,
    ),
    StemFamily(
        "long revision",
        Site.DEVELOPMENT,
        0.2,
        False,
        "long_stem_length",
        ((0, 0.08, 0.35, 0.6), (0.9, 1.05, 1.0, 1.1)),
        ((0, 0.08, 0.2, 0.4, 0.6), (0.8, 1.0, 0.8, 0.68, 0.66)),
        ((0, 0.08, 0.6), (0.95, 1.1, 1.1)),
        tip=1.35,
        bow=1.0,
        flutes=0.07,
    ),
    StemFamily(
        "collared",
        Site.SHIFTED,
        0.3,
        False,
        "stem_length",
        ((0, 0.05, 0.3), (0.95, 1.0, 0.75)),
        ((0, 0.08, 0.3, 0.5), (0.9, 1.05, 0.72, 0.55)),
        ((0, 0.1, 0.5), (1.0, 1.05, 0.8)),
        tip=0.9,
        collar=True,
    ),
    StemFamily(
        "short metaphyseal",
        Site.SHIFTED,
        0.2,
        False,
        "short_stem_length",
        ((0, 0.2, 0.6), (0.6, 0.85, 0.8)),
        ((0, 0.15, 0.4, 0.7), (1.0, 1.25, 0.95, 0.6)),
        ((0, 0.2, 0.6), (0.95, 1.15, 0.9)),
        tip=0.95,
        curve=1.5,
    ),
    StemFamily(
        "composite beam",
        Site.SHIFTED,
        0.35,
        True,
        "stem_length",
        ((0, 0.05, 0.15, 0.4), (1.2, 1.25, 0.95, 0.8)),
        ((0, 0.08, 0.2, 0.5), (0.9, 0.95, 0.7, 0.52)),
        ((0, 0.08, 0.4), (0.7, 0.75, 0.7)),
        tip=0.85,
        collar=True,
    ),
    StemFamily(
        "modular revision",
        Site.SHIFTED,
        0.15,
        False,
        "long_stem_length",
        ((0, 0.04, 0.34, 0.345, 0.36, 0.365), (1.2, 1.35, 1.35, 1.0, 1.0, 1.15)),
        ((0, 0.04, 0.34, 0.345, 0.36, 0.365), (0.75, 0.85, 0.8, 0.58, 0.58, 0.68)),
        ((0, 0.04, 0.34, 0.345, 0.36, 0.365), (1.25, 1.35, 1.35, 1.0, 1.0, 1.15)),
        tip=1.2,
        bow=0.6,
        flutes=0.1,
    ),
)


@dataclass(frozen=True)
class Stem:
    """The stem's body as centreline and radii, which its mantle and its lucencies enlarge.

    Attributes:
        nodes: [K, 3], from shoulder to tip.
        radii: [K, angles] of the metal.
        bed: [K, angles] of metal and cement: the surface that bone touches.
    """

    nodes: Points
    radii: Points
    bed: Points

    @property
    def tip(self) -> Points:
        """The lowest point of the centreline [3]."""
        return np.asarray(self.nodes[-1])


STEM_NODES = 120


def _fraction(t: Points, profile: Profile, end: float) -> Points:
    return np.asarray(np.interp(t, [*profile[0], 1.0], [*profile[1], end]))


def stem(patient: Patient, prosthesis: Prosthesis) -> Stem:
    """The stem in the canal that was reamed for it."""
    family, tip = prosthesis.stem, prosthesis.tip_radius * prosthesis.stem.tip
    t = np.linspace(0.0, 1.0, STEM_NODES)
    nodes = femur_axis(patient, patient.neck_level + 9.0 - t * prosthesis.stem_length)
    straight = np.linspace(nodes[0, 1], nodes[-1, 1], len(t))
    nodes[:, 1] = straight + family.bow * (nodes[:, 1] - straight)
    nodes[:, 1] -= family.curve * np.sin(np.pi * t)
    lateral, medial, depth = prosthesis.lateral_top, prosthesis.medial_top, prosthesis.depth_top
    front = 1.0 + family.anterior * np.clip(1.0 - 2.5 * t, 0.0, 1.0)
    deep = depth * _fraction(t, family.depth, tip / depth)
    radii = section(
        lateral * _fraction(t, family.lateral, tip / lateral),
        medial * _fraction(t, family.medial, tip / medial),
        deep * front,
        deep / front,
    )
    if family.flutes:
        ribs = 1.0 - family.flutes * (1.0 + np.cos(8.0 * ANGLES))
        fluted = np.clip((t - 0.4) / 0.05, 0, 1) * np.clip((0.97 - t) / 0.05, 0, 1)
        radii = radii * (1.0 + fluted[:, None] * (ribs - 1.0))
    end = np.sqrt(np.clip(np.minimum(t / 0.03, (1.0 - t) / 0.035), 0.004, 1.0))[:, None]
    _, canal = bone_around(patient, nodes)
    inside = np.where((t > 0.3)[:, None], np.maximum(canal, 3.0), np.inf)
    if not family.cemented:
        radii = np.minimum(radii, inside - prosthesis.press_fit_gap) * end
        return Stem(nodes, radii, radii)
    mantle = prosthesis.mantle * np.clip(t / 0.08, 0, 1)[:, None]
    bed = np.minimum(radii + mantle, np.maximum(inside, 5.0))
    return Stem(nodes, np.minimum(radii, bed - 0.5 * mantle) * end, bed)
