"""The catalogue of acetabular cups, and a cup as solids in the pelvis's frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from .anatomy import Element
from .dimensions import Site
from .materials import Material
from .solids import Ellipsoid, Points, Tube, round_section, sphere

if TYPE_CHECKING:
    from .prosthesis import Prosthesis


@dataclass(frozen=True)
class CupFamily:
    """A kind of cup; kinds in common use, no product copied.

    Attributes:
        site: the one site that implants it, with `share` of its patients.
        metal: it has a metal shell.
        cemented: it stands in cement.
        shell, liner: factors of the table's thicknesses.
        screws: it may be screwed.
        threads: rings around its shell; `rim`: mm by which its rim stands out.
        overhang: mm of its wall beyond the hemisphere.
        wire: it has a wire ring as its marker.
        flange: it has a plate up the ilium.
    """

    name: str
    site: Site
    share: float
    metal: bool = True
    cemented: bool = False
    shell: float = 1.0
    liner: float = 1.0
    screws: bool = False
    threads: int = 0
    rim: float = 0.0
    overhang: float = 0.0
    wire: bool = False
    flange: bool = False


CUPS: tuple[CupFamily, ...] = (
    CupFamily("press-fit", Site.DEVELOPMENT, 0.5, screws=True),
    CupFamily(
        "cemented polyethylene",
        Site.DEVELOPMENT,
        0.3,
        metal=False,
        cemented=True,
        liner=1.25,
        wire=True,
    ),
    CupFamily("threaded", Site.DEVELOPMENT, 0.2, shell=1.3, threads=4),
    CupFamily("dual mobility", Site.SHIFTED, 0.4, shell=0.75, liner=1.3, overhang=3.0),
    CupFamily("flanged rim", Site.SHIFTED, 0.35, screws=True, rim=3.0),
    CupFamily(
        "reinforcement ring",
        Site.SHIFTED,
        0.25,
        cemented=True,
        shell=0.6,
        liner=1.1,
        screws=True,
        flange=True,
    ),
)


def hemisphere(prosthesis: Prosthesis, radius: float, detail: float = 0.25) -> Ellipsoid:
    """The part of a ball of `radius` behind the opening of the cup."""
    plane = (prosthesis.opening, prosthesis.cup.overhang)
    return replace(sphere(np.zeros(3), radius, detail=detail), planes=(plane,))


def _slab(prosthesis: Prosthesis, radius: float, low: float, high: float) -> Ellipsoid:
    """The slice of a ball between two distances from its centre along the opening's normal."""
    planes = ((prosthesis.opening, high), (-prosthesis.opening, -low))
    return replace(sphere(np.zeros(3), radius, detail=0.25), planes=planes)


def cup(prosthesis: Prosthesis) -> list[Element]:
    """Shell, cement, polyethylene, screws and what else the family has."""
    family, outer = prosthesis.cup, prosthesis.cup_radius
    layers = [(outer, Material.TITANIUM)] if family.metal else []
    inner = prosthesis.head_radius + prosthesis.liner
    if family.cemented:
        layers.append((inner + prosthesis.mantle, Material.BONE_CEMENT))
    layers += [(inner, Material.POLYETHYLENE), (prosthesis.head_radius, Material.SOFT_TISSUE)]
    elements, around = [], Material.CANCELLOUS_BONE
    for radius, material in layers:
        elements.append(Element(hemisphere(prosthesis, radius, 0.2), material, around))
        around = material
    for index in range(family.threads):
        middle = -outer * (0.12 + 0.17 * index)
        elements += _ridge(prosthesis, outer, 1.6, middle, 1.6)
    if family.rim:
        elements += _ridge(prosthesis, outer, family.rim, -1.2, 2.4)
    if family.wire:
        elements += _wire_ring(prosthesis, inner - 1.5)
    if family.flange:
        plate = np.array([[2.2, 0.0, 0.6], [0.0, 11.0, 0.0], [-5.0, 0.0, 17.0]])
        centre = np.array([0.7 * outer - 4.0, 0.0, 0.7 * outer + 15.0])
        elements.append(Element(Ellipsoid(centre, plate, detail=0.3), Material.TITANIUM))
    return elements + _screws(prosthesis)


def _ridge(
    prosthesis: Prosthesis, radius: float, height: float, middle: float, width: float
) -> list[Element]:
    """A ring of metal `height` mm high around the shell, `middle` mm along the opening."""
    low, high = middle - 0.5 * width, middle + 0.5 * width
    wide = float(np.hypot(np.sqrt(radius**2 - middle**2) + height, middle))
    metal, bone = Material.TITANIUM, Material.CANCELLOUS_BONE
    return [
        Element(_slab(prosthesis, wide, low, high), metal, bone),
        Element(_slab(prosthesis, radius, low, high), bone, metal),
    ]


def _wire_ring(prosthesis: Prosthesis, radius: float) -> list[Element]:
    """The wire in the rim of a polyethylene cup, as a chain of short tubes."""
    first = np.cross(prosthesis.opening, [0.0, 1.0, 0.0])
    first /= np.linalg.norm(first)
    second = np.cross(prosthesis.opening, first)
    turns = np.linspace(0.0, 2.0 * np.pi, 25)[:, None]
    loop = radius * (np.cos(turns) * first + np.sin(turns) * second) - 2.0 * prosthesis.opening
    return chain(loop, 0.6, "pelvis")


def chain(points: Points, radius: float, group: str) -> list[Element]:
    """A wire through `points` [K, 3]."""
    elements = []
    for a, b in pairwise(points):
        nodes = np.linspace(a - 0.1 * (b - a), b + 0.1 * (b - a), 4)
        wire = Tube(nodes, round_section(np.full(4, radius)), detail=0.25)
        elements.append(Element(wire, Material.COBALT_CHROME, group=group))
    return elements


def _screws(prosthesis: Prosthesis) -> list[Element]:
    """Screws through the shell into the ilium."""
    elements = []
    for index, length in enumerate(prosthesis.screws):
        angle = np.radians(70.0 + 25.0 * index)
        direction = np.array([-np.cos(angle), 0.25 * (index - 1), np.sin(angle)])
        direction /= np.linalg.norm(direction)
        outer = prosthesis.cup_radius
        nodes = np.linspace(direction * (outer - 2.0), direction * (outer + length), 24)
        thread = np.where(np.arange(24) % 2, 2.4, 1.8)
        solid = Tube(nodes, round_section(thread), detail=0.25)
        elements.append(Element(solid, Material.TITANIUM, Material.CANCELLOUS_BONE))
    return elements
