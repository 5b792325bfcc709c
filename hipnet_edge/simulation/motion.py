"""Rigid motions of parts of a group, and the mirror image of a part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .anatomy import Element
from .solids import ANGLES, Points, Pose, Solid, Tube


def about(pivot: Points, turn: Points, shift: Points) -> Pose:
    """The motion that turns about `pivot` [3] by `turn` [3, 3], then shifts [3]."""
    return Pose(turn, pivot - turn @ pivot + shift)


def moved(solid: Solid, motion: Pose) -> Solid:
    """The solid after a motion within its group.

    A tube's directions stay those of the group, so the turn of a tube must be small.
    """
    if isinstance(solid, Tube):
        cut = solid.cut
        return replace(
            solid,
            nodes=motion.apply(solid.nodes),
            cut=None if cut is None else (lambda points: cut(motion.undo(points))),
        )
    return replace(
        solid,
        centre=motion.apply(solid.centre),
        axes=solid.axes @ motion.rotation.T,
        planes=tuple((motion.rotation @ normal, offset) for normal, offset in solid.planes),
    )


def all_moved(elements: list[Element], motion: Pose) -> list[Element]:
    """Every element after the motion."""
    return [replace(element, solid=moved(element.solid, motion)) for element in elements]


def mirrored(element: Element, midline: float) -> Element:
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
