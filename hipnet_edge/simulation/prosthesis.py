"""The prosthesis: stem, neck and head in the femur's frame, cup and screws in the pelvis's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from .anatomy import Element, Patient, femur_axis, femur_radii
from .dimensions import Draws
from .materials import Material
from .solids import Ellipsoid, Points, Tube, round_section, section, sphere


@dataclass(frozen=True)
class Prosthesis:
    """The sizes of one prosthesis, mm."""

    stem_length: float
    tip_radius: float
    medial_top: float
    lateral_top: float
    depth_top: float
    neck_radius: float
    head_radius: float
    liner: float
    shell: float
    opening: Points
    cemented: bool
    mantle: float
    stem_metal: Material
    screws: tuple[float, ...]
    wires: tuple[float, ...]
    wire_radius: float

    @property
    def cup_radius(self) -> float:
        """Outer radius of the cup."""
        return self.head_radius + self.liner + self.shell

    @classmethod
    def draw(cls, draws: Draws) -> Prosthesis:
        """A prosthesis from the table of dimensions; nothing in it depends on the cause."""
        inclination, anteversion = np.radians([draws("cup_inclination"), draws("cup_anteversion")])
        opening = np.array(
            [
                np.sin(inclination) * np.cos(anteversion),
                -np.sin(anteversion),
                -np.cos(inclination) * np.cos(anteversion),
            ]
        )
        screws = int(draws.rng.integers(1, 4)) if draws.chance("screws") else 0
        wires = int(draws.rng.integers(1, 4)) if draws.chance("cerclage") else 0
        return cls(
            stem_length=draws("stem_length"),
            tip_radius=draws("stem_tip_radius"),
            medial_top=draws("stem_width_top"),
            lateral_top=draws("stem_lateral_top"),
            depth_top=draws("stem_depth"),
            neck_radius=draws("neck_radius"),
            head_radius=draws("head_radius"),
            liner=draws("liner_thickness"),
            shell=draws("shell_thickness"),
            opening=opening,
            cemented=draws.chance("cemented"),
            mantle=draws("cement_mantle"),
            stem_metal=(
                Material.COBALT_CHROME if draws.chance("cobalt_chrome_stem") else Material.TITANIUM
            ),
            screws=tuple(draws("screw_length") for _ in range(screws)),
            wires=tuple(float(x) for x in np.sort(draws.rng.uniform(-150, -30, wires))),
            wire_radius=draws("wire_radius"),
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
    def fraction(self) -> Points:
        """Position [K] along the stem, 0 at the shoulder and 1 at the tip."""
        return np.linspace(0.0, 1.0, len(self.nodes))


def stem(patient: Patient, prosthesis: Prosthesis, tilt: Points) -> Stem:
    """The stem, turned by `tilt` about its middle (a loose stem tilts in its canal)."""
    t = np.linspace(0.0, 1.0, 90)
    z = patient.neck_level + 9.0 - t * prosthesis.stem_length
    nodes = femur_axis(patient, z)
    nodes[:, 1] = np.linspace(nodes[0, 1], nodes[-1, 1], len(t))  # a stem is straight
    tip = prosthesis.tip_radius
    rounding = np.sqrt(np.clip(np.minimum(t / 0.03, (1.0 - t) / 0.035), 0.004, 1.0))
    lateral = np.interp(t, [0, 0.1, 0.5, 1], [0.8, 1.0, 0.8, tip / prosthesis.lateral_top])
    medial = np.interp(
        t, [0, 0.1, 0.22, 0.45, 1], [0.75, 1.0, 0.78, 0.6, tip / prosthesis.medial_top]
    )
    depth = np.interp(t, [0, 0.1, 0.5, 1], [0.9, 1.0, 0.85, tip / prosthesis.depth_top])
    radii = section(
        prosthesis.lateral_top * lateral * rounding,
        prosthesis.medial_top * medial * rounding,
        prosthesis.depth_top * depth * rounding,
        prosthesis.depth_top * depth * rounding,
    )
    if not prosthesis.cemented:  # press-fit: metal no wider than the canal that was reamed for it
        _, canal = femur_radii(patient, z)
        below = (t > 0.3)[:, None]
        radii = np.where(below, np.minimum(radii, canal - 0.3), radii)
    bed = (
        radii
        + (prosthesis.mantle * np.clip(t / 0.08, 0, 1) if prosthesis.cemented else 0 * t)[:, None]
    )
    middle = nodes[len(t) // 2]
    return Stem((nodes - middle) @ tilt.T + middle, radii, bed)


def femoral_component(
    patient: Patient, prosthesis: Prosthesis, body: Stem, bed_holds: Material
) -> list[Element]:
    """Cement, stem, neck and head; `bed_holds` is what the stem's bed replaces."""
    metal = prosthesis.stem_metal
    elements = []
    inside = bed_holds
    if prosthesis.cemented:
        elements.append(
            Element(Tube(body.nodes, body.bed, step=0.4), Material.BONE_CEMENT, bed_holds, "femur")
        )
        inside = Material.BONE_CEMENT
    elements.append(
        Element(Tube(body.nodes, body.radii, detail=0.2, step=0.3), metal, inside, group="femur")
    )
    start = np.array([patient.offset - 3.0, body.nodes[0, 1], patient.neck_level - 3.0])
    neck_nodes = np.linspace(start, [0.0, 0.0, 0.0], 30)
    taper = np.interp(np.linspace(0, 1, 30), [0, 0.25, 1], [1.5, 1.0, 0.95])
    neck = Tube(neck_nodes, round_section(prosthesis.neck_radius * taper), detail=0.2)
    head = sphere(np.zeros(3), prosthesis.head_radius, detail=0.2)
    elements.append(Element(neck, metal, group="femur"))
    elements.append(Element(head, Material.COBALT_CHROME, group="femur"))
    return elements


def hemisphere(prosthesis: Prosthesis, radius: float, detail: float = 0.25) -> Ellipsoid:
    """The half ball of `radius` behind the opening plane of the cup."""
    return replace(sphere(np.zeros(3), radius, detail=detail), planes=((prosthesis.opening, 0.0),))


def cup(prosthesis: Prosthesis) -> list[Element]:
    """Metal shell with polyethylene liner, and screws into the ilium."""
    outer, inner = prosthesis.cup_radius, prosthesis.cup_radius - prosthesis.shell
    shell = hemisphere(prosthesis, outer, 0.2)
    liner = hemisphere(prosthesis, inner, 0.2)
    cavity = hemisphere(prosthesis, prosthesis.head_radius)
    elements = [
        Element(shell, Material.TITANIUM, Material.CANCELLOUS_BONE),
        Element(liner, Material.POLYETHYLENE, Material.TITANIUM),
        Element(cavity, Material.SOFT_TISSUE, Material.POLYETHYLENE),
    ]
    for index, length in enumerate(prosthesis.screws):
        angle = np.radians(70.0 + 25.0 * index)
        direction = np.array([-np.cos(angle), 0.25 * (index - 1), np.sin(angle)])
        direction /= np.linalg.norm(direction)
        nodes = np.linspace(direction * (outer - 2.0), direction * (outer + length), 24)
        thread = np.where(np.arange(24) % 2, 2.4, 1.8)
        solid = Tube(nodes, round_section(thread), detail=0.25)
        elements.append(Element(solid, Material.TITANIUM, Material.CANCELLOUS_BONE))
    return elements


def cerclage(patient: Patient, prosthesis: Prosthesis) -> list[Element]:
    """Wire loops around the shaft, as chains of short tubes."""
    elements = []
    for depth in prosthesis.wires:
        z = patient.neck_level + depth
        outer, _ = femur_radii(patient, np.array([z]))
        centre = femur_axis(patient, np.array([z]))[0]
        turns = np.linspace(0.0, 2.0 * np.pi, 33)
        reach = float(outer.mean()) + prosthesis.wire_radius
        loop = centre + reach * np.column_stack(
            [np.cos(turns), np.sin(turns), 0.08 * np.sin(turns)]
        )
        for a, b in pairwise(loop):
            nodes = np.linspace(a - 0.1 * (b - a), b + 0.1 * (b - a), 4)
            wire = Tube(nodes, round_section(np.full(4, prosthesis.wire_radius)), detail=0.25)
            elements.append(Element(wire, Material.COBALT_CHROME, group="femur"))
    return elements
