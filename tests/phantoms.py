"""Quick drawn hip radiographs for tests: grey levels in [0, 1], bright is dense.

Nothing here is physics; the shapes, sizes (in millimetres) and contrasts are those that the
preprocessing has to cope with, and a phantom takes some ten milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.float32]


@dataclass(frozen=True)
class Phantom:
    """A drawn radiograph and what stands in it.

    Attributes:
        grey: [rows, columns] float32 grey levels.
        implants: boxes (top, left, bottom, right) of the prostheses in pixels, left to right.
        field: the part that collimation left open, (top, left, bottom, right).
    """

    grey: Grey
    implants: tuple[tuple[float, float, float, float], ...]
    field: tuple[int, int, int, int]


class _Canvas:
    """Draws in millimetres on a frame of `mm` a pixel; every layer only ever adds density."""

    def __init__(self, height_mm: float, width_mm: float, mm: float) -> None:
        self.mm = mm
        self.grey = np.full((round(height_mm / mm), round(width_mm / mm)), 0.06, np.float32)

    def polygon(self, points: list[tuple[float, float]], level: float, *, blur: float = 0.4):
        """Raise the inside of a polygon to `level`; `blur` mm of softness at its edge."""
        layer = np.zeros_like(self.grey)
        pixels = np.array([[x / self.mm * 16, y / self.mm * 16] for x, y in points])
        cv2.fillPoly(layer, [np.round(pixels).astype(np.int32)], 1.0, cv2.LINE_8, 4)
        self._raise(layer, level, blur)

    def ellipse(self, centre, axes, level, *, angle=0.0, blur=0.4, arc=(0, 360)):
        x, y = centre
        points = cv2.ellipse2Poly(
            (round(x * 100), round(y * 100)),
            (round(axes[0] * 100), round(axes[1] * 100)),
            round(angle),
            *arc,
            2,
        )
        self.polygon([(float(px) / 100, float(py) / 100) for px, py in points], level, blur=blur)

    def stroke(self, points: list[tuple[float, float]], width: float, level: float):
        layer = np.zeros_like(self.grey)
        pixels = np.array([[x / self.mm * 16, y / self.mm * 16] for x, y in points])
        thickness = max(1, round(width / self.mm))
        cv2.polylines(
            layer, [np.round(pixels).astype(np.int32)], False, 1.0, thickness, cv2.LINE_8, 4
        )
        self._raise(layer, level, 0.4)

    def _raise(self, layer: Grey, level: float, blur: float) -> None:
        layer = cv2.GaussianBlur(layer, (0, 0), max(0.3, blur / self.mm))
        self.grey += layer * np.maximum(level - self.grey, 0.0)


def _hip(
    canvas: _Canvas,
    x: float,
    y: float,
    lateral_sign: int,
    *,
    implant: bool,
    metal: float,
    bone: float,
    dislocated: bool = False,
    wires: int = 0,
) -> tuple[float, float, float, float]:
    """One hip with its joint centre at (x, y) mm; `lateral_sign` +1 where lateral is to the right.

    Returns the box of its prosthesis in millimetres.
    """
    s = lateral_sign
    # ilium, acetabulum, ischium
    canvas.polygon(
        [(x - s * 45, y - 90), (x + s * 35, y - 85), (x + s * 32, y - 10), (x - s * 10, y + 30),
         (x - s * 40, y + 70), (x - s * 52, y + 10)],
        bone - 0.08, blur=3.0,
    )  # fmt: skip
    shaft_x = x + s * 48
    # femur: shaft with cortex and canal, trochanter
    canvas.polygon(
        [(shaft_x - 14, y + 40), (shaft_x + 14, y + 30), (shaft_x + 13, y + 250),
         (shaft_x - 13, y + 250)], bone - 0.08, blur=1.0,
    )  # fmt: skip
    for side in (-1, 1):
        canvas.stroke([(shaft_x + side * 11, y + 60), (shaft_x + side * 11, y + 250)], 5.0, bone)
    canvas.ellipse((shaft_x + s * 6, y + 8), (18, 22), bone - 0.06, blur=1.5)
    if not implant:
        canvas.ellipse((x, y), (24, 24), bone, blur=1.0)
        canvas.polygon(
            [(x, y - 12), (shaft_x, y + 10), (shaft_x, y + 45), (x + s * 8, y + 18)],
            bone - 0.05, blur=1.0,
        )  # fmt: skip
        return (0.0, 0.0, 0.0, 0.0)
    hx, hy = (x + s * 30, y - 45) if dislocated else (x, y)
    canvas.ellipse((x, y), (26, 26), metal - 0.02, angle=45 if s > 0 else -45, arc=(180, 360))
    canvas.ellipse((hx, hy), (14, 14), metal)
    canvas.stroke([(hx, hy), (shaft_x, hy + 34)], 13.0, metal)
    tip = hy + 175
    canvas.polygon(
        [(shaft_x - 11, hy + 20), (shaft_x + 11, hy + 26), (shaft_x + 6, tip), (shaft_x - 6, tip)],
        metal,
    )
    for index in range(wires):
        level = y + 70 + 18 * index
        canvas.stroke([(shaft_x - 16, level - 2), (shaft_x + 16, level + 2)], 1.6, 0.97)
    left = min(hx - s * 14, shaft_x - 11, x - 26)
    right = max(hx - s * 14, shaft_x + 11, x + 26)
    return (min(hy - 14, y - 26), left, tip, right)


def hip_phantom(
    seed: int = 0,
    *,
    laterality: str = "left",
    mm: float = 0.3,
    implant: bool = True,
    pelvis: bool = False,
    implants: tuple[bool, bool] = (True, True),
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
    """Draw an AP hip, or an AP pelvis with both hips, as a person facing the viewer is shown.

    Args:
        seed: of the noise and of a few millimetres of displacement.
        laterality: "left" has its lateral side at the image's right.
        mm: millimetres a pixel.
        implant: a unilateral hip holds a prosthesis.
        pelvis: both hips; `implants` says which of (image left, image right) hold prostheses.
        implants: see `pelvis`.
        metal: grey level of the prosthesis.
        bone: grey level of cortical bone.
        noise: standard deviation of the noise in grey levels.
        dislocated: the head stands outside the cup.
        wires: number of cerclage wires.
        marker: lead side marker: "edge", "bone" (over the femur), or none.
        collimation: closed part of the frame at top, left, bottom, right as fractions.
        border: grey level of the collimated border.
        border_noise: standard deviation of its noise.
    """
    rng = np.random.default_rng(seed)
    height, width = (380.0, 430.0) if pelvis else (380.0, 300.0)
    canvas = _Canvas(height, width, mm)
    dx, dy = rng.uniform(-8, 8, 2)
    canvas.ellipse((width / 2, height / 2), (width * 0.56, height * 0.8), 0.40, blur=8.0)
    canvas.ellipse((width / 2, height * 0.3), (width * 0.4, height * 0.5), 0.46, blur=20.0)
    options = {"metal": metal, "bone": bone, "dislocated": dislocated, "wires": wires}
    boxes = []
    if pelvis:
        for sign, centre, has in (
            (-1, width / 2 - 92, implants[0]),
            (1, width / 2 + 92, implants[1]),
        ):
            box = _hip(canvas, centre + dx, 120 + dy, sign, implant=has, **options)
            if has:
                boxes.append(box)
    else:
        sign = 1 if laterality == "left" else -1
        box = _hip(canvas, width / 2 - sign * 18 + dx, 120 + dy, sign, implant=implant, **options)
        if implant:
            boxes.append(box)
    if marker is not None:
        at = (width - 45, 60.0) if marker == "edge" else (width / 2 + 32 + dx, 330.0 + dy)
        canvas.stroke([(at[0], at[1] - 18), at, (at[0] + 11, at[1])], 3.5, 1.0)
    grey = canvas.grey + rng.normal(0.0, noise, canvas.grey.shape).astype(np.float32)
    rows, columns = grey.shape
    top, left = round(collimation[0] * rows), round(collimation[1] * columns)
    bottom, right = rows - round(collimation[2] * rows), columns - round(collimation[3] * columns)
    outside = np.ones(grey.shape, bool)
    outside[top:bottom, left:right] = False
    grey[outside] = border + rng.normal(0.0, border_noise, int(outside.sum())).astype(np.float32)
    return Phantom(
        np.clip(grey, 0.0, 1.0),
        tuple((t / mm, lf / mm, b / mm, r / mm) for t, lf, b, r in boxes),
        (top, left, bottom, right),
    )


def stored_values(grey: Grey, bits: int = 14) -> NDArray[np.uint16]:
    """The phantom as a detector of `bits` bits would store it (MONOCHROME2, full range)."""
    return np.round(grey * (2**bits - 1)).astype(np.uint16)
