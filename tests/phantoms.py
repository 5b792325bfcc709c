"""Quick drawn hip radiographs for tests: grey levels in [0, 1], bright is dense.

Nothing here is physics; the shapes, sizes (in millimetres) and contrasts are those that the
preprocessing has to cope with, and a phantom takes some ten milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.float32]
Point = tuple[float, float]


@dataclass(frozen=True)
class Phantom:
    """A drawn radiograph and what stands in it.

    Attributes:
        grey: [rows, columns] float32 grey levels.
        implants: boxes (top, left, bottom, right) of the prostheses in pixels, left to right.
        field: the part that collimation left open, (top, left, bottom, right).
    """

    grey: Grey
    implants: tuple[tuple[int, int, int, int], ...]
    field: tuple[int, int, int, int]


class _Canvas:
    """Draws in millimetres on a frame of `mm` a pixel; every layer only ever adds density."""

    def __init__(self, height: float, width: float, mm: float) -> None:
        self.mm = mm
        self.grey = np.full((round(height / mm), round(width / mm)), 0.06, np.float32)
        self.metal = np.zeros(self.grey.shape, bool)

    def polygon(self, points: list[Point], level: float, *, blur: float = 0.4, metal: bool = False):
        """Raise the inside of a polygon to `level`, with an edge `blur` mm soft."""
        sigma = max(0.3, blur / self.mm)
        pixels = np.array(points) / self.mm
        margin = int(4 * sigma) + 2
        left, top = (max(0, int(v) - margin) for v in pixels.min(axis=0))
        right, bottom = (int(v) + margin for v in pixels.max(axis=0))
        part = (slice(top, bottom), slice(left, right))
        layer = np.zeros_like(self.grey[part])
        if layer.size == 0:
            return
        fine = np.round((pixels - (left, top)) * 16).astype(np.int32)
        cv2.fillPoly(layer, [fine], 1.0, cv2.LINE_8, 4)
        if metal:
            self.metal[part] |= layer > 0
        layer = cv2.GaussianBlur(layer, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        self.grey[part] += layer * np.maximum(level - self.grey[part], 0.0)

    def ellipse(self, centre: Point, axes: Point, level: float, *, angle=0, arc=(0, 360), **how):
        outline = cv2.ellipse2Poly(
            (round(centre[0] * 100), round(centre[1] * 100)),
            (round(axes[0] * 100), round(axes[1] * 100)),
            angle,
            *arc,
            2,
        )
        self.polygon([(float(x) / 100, float(y) / 100) for x, y in outline], level, **how)

    def stroke(self, points: list[Point], width: float, level: float, **how):
        for (x0, y0), (x1, y1) in pairwise(points):
            length = np.hypot(x1 - x0, y1 - y0)
            across = np.array([y0 - y1, x1 - x0]) / length * width / 2
            ends = np.array([[x0, y0], [x1, y1]])
            corners = [*(ends + across), *(ends - across)[::-1]]
            self.polygon([(float(x), float(y)) for x, y in corners], level, **how)


@dataclass(frozen=True)
class _Hip:
    """A hip with its joint centre at (x, y) mm; `s` is +1 where lateral is to the right."""

    x: float
    y: float
    s: int

    def draw_bone(self, canvas: _Canvas, bone: float) -> None:
        x, y, s = self.x, self.y, self.s
        ilium = [(-45, -90), (35, -85), (32, -10), (-10, 30), (-40, 70), (-52, 10)]
        canvas.polygon([(x + s * a, y + b) for a, b in ilium], bone - 0.08, blur=5.0)
        shaft = [(34, 40), (62, 30), (61, 260), (35, 260)]
        canvas.polygon([(x + s * a, y + b) for a, b in shaft], bone - 0.08, blur=2.5)
        for side in (37, 59):
            line = [(x + s * side, y + 60), (x + s * side, y + 260)]
            canvas.stroke(line, 5.0, bone, blur=2.2)
        canvas.ellipse((x + s * 54, y + 8), (18, 22), bone - 0.06, blur=3.0)

    def draw_native_head(self, canvas: _Canvas, bone: float) -> None:
        x, y, s = self.x, self.y, self.s
        canvas.ellipse((x, y), (24, 24), bone, blur=2.5)
        neck = [(0, -12), (48, 10), (48, 45), (8, 18)]
        canvas.polygon([(x + s * a, y + b) for a, b in neck], bone - 0.05, blur=2.5)

    def draw_prosthesis(self, canvas: _Canvas, level: float, *, dislocated: bool):
        """Draw cup, head, neck and stem; gives their box in pixels."""
        x, y, s = self.x, self.y, self.s
        hx, hy = (x + s * 30, y - 45) if dislocated else (x, y)
        how = {"metal": True}
        canvas.metal[:] = False
        canvas.ellipse((x, y), (26, 26), level - 0.02, angle=s * 45, arc=(180, 360), **how)
        canvas.ellipse((hx, hy), (14, 14), level, **how)
        shaft = x + s * 48
        canvas.stroke([(hx, hy), (shaft, hy + 34)], 12.0, level, **how)
        stem = [(-9, 20), (9, 26), (5, 175), (-5, 175)]
        canvas.polygon([(shaft + s * a, hy + b) for a, b in stem], level, **how)
        rows, columns = np.flatnonzero(canvas.metal.any(1)), np.flatnonzero(canvas.metal.any(0))
        return (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)

    def draw_wires(self, canvas: _Canvas, count: int) -> None:
        x, y, s = self.x + self.s * 48, self.y, self.s
        for index in range(count):
            level = y + 70 + 18 * index
            canvas.stroke([(x - s * 16, level - 2), (x + s * 16, level + 2)], 1.6, 0.97)


def hip_phantom(
    seed: int = 0,
    *,
    laterality: str = "left",
    mm: float = 0.5,
    implants: tuple[bool, ...] = (True,),
    metal: float = 0.93,
    bone: float = 0.66,
    noise: float = 0.012,
    dislocated: bool = False,
    wires: int = 0,
    marker: str | None = "edge",
    collimation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
    border: float = 0.0,
    border_noise: float = 0.01,
) -> Phantom:
    """Draw an AP hip, or an AP pelvis, as a person facing the viewer is shown.

    Args:
        seed: of the noise and of a few millimetres of displacement.
        laterality: of a single hip; "left" has its lateral side at the image's right.
        mm: millimetres a pixel.
        implants: whether there is a prosthesis; two values make a pelvis (image left, right).
        metal: grey level of the prosthesis.
        bone: grey level of cortical bone.
        noise: standard deviation of the noise in grey levels.
        dislocated: the head stands outside the cup.
        wires: number of cerclage wires.
        marker: lead side marker: "edge", "bone" (over the femur), or none.
        collimation: closed part of the frame at top, left, bottom, right.
        border: grey level of the collimated border.
        border_noise: standard deviation of its noise.
    """
    rng = np.random.default_rng(seed)
    height, width = 380.0, 430.0 if len(implants) == 2 else 300.0
    canvas = _Canvas(height, width, mm)
    dx, dy = rng.uniform(-8, 8, 2)
    canvas.ellipse((width / 2, height / 2), (width * 0.56, height * 0.8), 0.40, blur=6.0)
    if len(implants) == 2:
        places = [_Hip(width / 2 - 92 + dx, 120 + dy, -1), _Hip(width / 2 + 92 + dx, 120 + dy, 1)]
    else:
        sign = 1 if laterality == "left" else -1
        places = [_Hip(width / 2 - sign * 18 + dx, 120 + dy, sign)]
    boxes = []
    for hip, replaced in zip(places, implants, strict=True):
        hip.draw_bone(canvas, bone)
        if replaced:
            boxes.append(hip.draw_prosthesis(canvas, metal, dislocated=dislocated))
        else:
            hip.draw_native_head(canvas, bone)
        hip.draw_wires(canvas, wires)
    if marker is not None:
        at = (width - 45, 60.0) if marker == "edge" else (places[0].x + places[0].s * 45, 320 + dy)
        canvas.stroke([(at[0], at[1] - 18), at, (at[0] + 11, at[1])], 3.5, 1.0)
    grey = canvas.grey + rng.normal(0.0, noise, canvas.grey.shape).astype(np.float32)
    rows, columns = grey.shape
    top, left = round(collimation[0] * rows), round(collimation[1] * columns)
    bottom, right = rows - round(collimation[2] * rows), columns - round(collimation[3] * columns)
    outside = np.ones(grey.shape, bool)
    outside[top:bottom, left:right] = False
    grey[outside] = border + rng.normal(0.0, border_noise, int(outside.sum())).astype(np.float32)
    return Phantom(np.clip(grey, 0.0, 1.0), tuple(boxes), (top, left, bottom, right))


def stored_values(grey: Grey, bits: int = 14) -> NDArray[np.uint16]:
    """The phantom as a detector of `bits` bits would store it (MONOCHROME2, full range)."""
    return np.round(grey * (2**bits - 1)).astype(np.uint16)
