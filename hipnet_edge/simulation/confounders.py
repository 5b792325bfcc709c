"""What looks like something and is no disease: drawn with the patient, whatever the cause."""

from __future__ import annotations

import numpy as np

from .anatomy import Element, Patient
from .dimensions import Draws
from .materials import Material
from .solids import Ellipsoid, Points


def bedding_in(draws: Draws) -> Points:
    """Shift [3] of the head in a cup that is not worn, mm: the first months press it in."""
    direction = np.array([draws.rng.uniform(-0.2, 0.7), draws.rng.uniform(-0.3, 0.3), 1.0])
    return np.asarray(draws("bedding_in") * direction / np.linalg.norm(direction))


def heterotopic_bone(patient: Patient, draws: Draws) -> list[Element]:
    """Islands of bone in the muscles between greater trochanter and ilium."""
    if not draws.chance("heterotopic_bone"):
        return []
    rng, islands = draws.rng, []
    for _ in range(int(rng.integers(2, 6))):
        spot = [patient.offset + rng.uniform(-16, 6), rng.uniform(-18, 18), rng.uniform(2, 42)]
        axes = np.diag([draws("heterotopic_size") for _ in range(3)])
        island = Ellipsoid(np.array(spot), axes, softness=0.6)
        islands.append(Element(island, Material.CORTICAL_BONE, density=0.6 * patient.density))
    return islands


def vascular_calcification(patient: Patient, draws: Draws) -> list[Element]:
    """Plaques along both walls of the femoral artery, in front of the femur and medially."""
    if not draws.chance("vascular_calcification"):
        return []
    rng, plaques = draws.rng, []
    for _ in range(int(rng.integers(6, 16))):
        depth = rng.uniform(30, 190)
        wall = rng.choice([-3.5, 3.5])
        spot = [patient.offset - 34.0 + 0.09 * depth + wall, -30.0 + 0.12 * depth, -depth]
        axes = np.diag([0.8, 1.6, draws("calcification_size")])
        plaques.append(
            Element(
                Ellipsoid(np.array(spot), axes, detail=0.3), Material.CORTICAL_BONE, group="thigh"
            )
        )
    return plaques


def bowel_gas(patient: Patient, draws: Draws) -> list[Element]:
    """A few bubbles of bowel gas over the pelvis; normal, and no sign of infection."""
    rng, bubbles = draws.rng, []
    for _ in range(int(rng.integers(0, 6))):
        spot = [patient.midline + rng.uniform(-70, 70), rng.uniform(-30, 30), rng.uniform(40, 150)]
        bubble = Ellipsoid(np.array(spot), np.diag(rng.uniform(7, 18, 3)), softness=1.5)
        bubbles.append(Element(bubble, Material.AIR))
    return bubbles
