"""One prosthesis: its sizes, and the femoral component as solids in the femur's frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .anatomy import Element, Patient, femur_axis, femur_radii
from .cups import CUPS, CupFamily, chain
from .dimensions import Draws
from .materials import Material
from .solids import Ellipsoid, Points, Tube, round_section, sphere
from .stems import STEMS, Stem, StemFamily

Family = TypeVar("Family", StemFamily, CupFamily)


@dataclass(frozen=True)
class Prosthesis:
    """The kind and the sizes of one prosthesis, mm; `shell` and `liner` as this cup has them."""

    stem: StemFamily
    cup: CupFamily
    stem_length: float
    tip_radius: float
    medial_top: float
    lateral_top: float
    depth_top: float
    press_fit_gap: float
    neck_radius: float
    head_radius: float
    liner: float
    shell: float
    opening: Points
    mantle: float
    plug: float
    stem_metal: Material
    head_material: Material
    screws: tuple[float, ...]
    wires: tuple[float, ...]
    wire_radius: float

    @property
    def cemented(self) -> bool:
        """Whether the stem is cemented."""
        return self.stem.cemented

    @property
    def cup_radius(self) -> float:
        """Outer radius of the cup, its cement included where that touches bone."""
        mantle = self.mantle if self.cup.cemented else 0.0
        return self.head_radius + self.liner + mantle + self.shell

    @classmethod
    def draw(cls, draws: Draws) -> Prosthesis:
        """A prosthesis of the site's catalogue; nothing in it depends on the cause."""
        stem, cup = _one_of(STEMS, draws), _one_of(CUPS, draws)
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
        shell = draws("shell_thickness") * cup.shell
        titanium, cobalt_chrome = Material.TITANIUM, Material.COBALT_CHROME
        return cls(
            stem=stem,
            cup=cup,
            stem_length=_length(stem, draws),
            tip_radius=draws("stem_tip_radius"),
            medial_top=draws("stem_width_top"),
            lateral_top=draws("stem_lateral_top"),
            depth_top=draws("stem_depth"),
            press_fit_gap=draws("press_fit_gap"),
            neck_radius=draws("neck_radius"),
            head_radius=draws("head_radius"),
            liner=draws("liner_thickness") * cup.liner,
            shell=shell if cup.metal else 0.0,
            opening=opening,
            mantle=draws("cement_mantle"),
            plug=draws("cement_plug"),
            stem_metal=cobalt_chrome if draws.chance("cobalt_chrome_stem") else titanium,
            head_material=Material.CERAMIC if draws.chance("ceramic_head") else cobalt_chrome,
            screws=tuple(draws("screw_length") for _ in range(screws)) if cup.screws else (),
            wires=tuple(float(x) for x in np.sort(draws.rng.uniform(-150, -30, wires))),
            wire_radius=draws("wire_radius"),
        )


def _one_of(catalogue: tuple[Family, ...], draws: Draws) -> Family:
    """A family of the site, each with its share."""
    own = [family for family in catalogue if family.site is draws.site]
    shares = np.array([family.share for family in own])
    return own[int(draws.rng.choice(len(own), p=shares / shares.sum()))]


def _length(family: StemFamily, draws: Draws) -> float:
    lengths = {
        "stem_length": draws("stem_length"),
        "long_stem_length": draws("long_stem_length"),
        "short_stem_length": draws("short_stem_length"),
    }
    return lengths[family.length]


def femoral_component(patient: Patient, prosthesis: Prosthesis, body: Stem) -> list[Element]:
    """Cement, stem, neck and head."""
    family, metal, bone = prosthesis.stem, prosthesis.stem_metal, Material.CANCELLOUS_BONE
    elements = []
    inside = bone
    if family.cemented:
        inside = Material.BONE_CEMENT
        elements.append(Element(Tube(body.nodes, body.bed, step=0.4), inside, bone, "femur"))
        elements += _cement_plug(prosthesis, body)
    solid = Tube(body.nodes, body.radii, detail=0.2, step=0.3)
    elements.append(Element(solid, metal, inside, group="femur"))
    start = np.array([patient.offset - 3.0, body.nodes[0, 1], patient.neck_level - 3.0])
    neck_nodes = np.linspace(start, [0.0, 0.0, 0.0], 30)
    taper = np.interp(np.linspace(0, 1, 30), [0, 0.04, 0.25, 1], [0.8, 1.2, 1.0, 0.95])
    neck = Tube(neck_nodes, round_section(prosthesis.neck_radius * taper), detail=0.2)
    head = sphere(np.zeros(3), prosthesis.head_radius, detail=0.2)
    elements.append(Element(neck, metal, group="femur"))
    elements.append(Element(head, prosthesis.head_material, group="femur"))
    if family.collar:
        centre = [patient.offset - 11.0, body.nodes[0, 1], patient.neck_level - 2.5]
        plate = np.array([[7.0, 0.0, 6.2], [0.0, 8.5, 0.0], [-1.1, 0.0, 1.25]])
        elements.append(
            Element(Ellipsoid(np.array(centre), plate, detail=0.25), metal, group="femur")
        )
    return elements


def _cement_plug(prosthesis: Prosthesis, body: Stem) -> list[Element]:
    """Cement below the tip, and the hollow of a centraliser in it."""
    depths = np.linspace(0.6, prosthesis.plug, 12)
    direction = body.nodes[-1] - body.nodes[-2]
    nodes = body.tip + depths[:, None] * direction / np.linalg.norm(direction)
    taper = np.sqrt(np.clip((prosthesis.plug - depths) / 4.0, 0.02, 1.0))
    plug = Tube(nodes, body.bed[-1] * taper[:, None])
    elements = [Element(plug, Material.BONE_CEMENT, Material.FAT, "femur")]
    if prosthesis.stem.centraliser:
        bullet = 0.55 * float(body.bed[-1].min()) * np.array([0.5, 0.9, 1.0, 0.9, 0.6, 0.1])
        hollow = Tube(nodes[1:7], round_section(bullet), softness=0.4)
        elements.append(Element(hollow, Material.POLYETHYLENE, Material.BONE_CEMENT, "femur"))
    return elements


def cerclage(patient: Patient, prosthesis: Prosthesis) -> list[Element]:
    """Wire loops around the shaft."""
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
        elements += chain(loop, prosthesis.wire_radius, "femur")
    return elements
