"""Where the hip prosthesis is: metal is the brightest and sharpest-edged thing in a radiograph.

The detector reads a thumbnail of grey levels and follows five rules:

1. *Brighter than its surroundings, and sharp.* What is wider than any metal (soft tissue, the bulk
   of bone) is taken away, and so is what is much darker than the brightest of the rest; this relief
   is cut at a series of levels. Metal ends within a pixel or two all the way round, bone fades: an
   outline has to be steep on the average, and in all but its softest third. Of each nest of
   components the one is kept whose outline holds most such steepness.
2. *Large and compact.* A part must have a certain area and thickness: wires, screws, staples, thin
   cortex and the strokes of lead letters have not.
3. *A stem.* A prosthesis has one long part: a good part of the field long and slender.
4. *A head.* It is thicker at one place (head or cup) than the stem is along most of its length:
   nails and plates are not.
5. *What belongs to it.* Other large parts near the stem (a cup, a dislocated head) are of it.

No rule knows millimetres, so that images without pixel spacing are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from hipnet_edge.collimation import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEVELS = tuple(round(0.15 + 0.05 * step, 2) for step in range(11))
"""Heights above the surroundings at which is cut, as parts of the field's grey range."""
_WIDEST_METAL = 0.16
"""What is wider than this part of the field's diagonal counts as surroundings."""
_BLUR = 1.0
"""Sigma in thumbnail pixels of the smoothing before anything is measured."""
_DARKEST_METAL = (0.5, 0.6)
"""What is darker than this part of the metal's brightness is none; between the two it fades out,
so that no pixel's fate hangs on a hair.
"""
_THIN = 4
"""What is no wider than so many thumbnail pixels (wires, screws, letters) is left out at once."""
_LEAST_AREA = 0.002
"""Least area of a part as part of the field."""
_MOST_AREA = 0.25
"""Largest area of a part as part of the field."""
_LEAST_SHARPNESS = 0.03
"""Least steepness of two thirds of a part's outline: part of the grey range a pixel."""
_LEAST_STEEPNESS = 0.066
"""Least mean steepness of a prosthesis' outline; bare bone has 0.05, prostheses 0.07 to 0.2."""
_METAL_SHARPNESS = 0.72
"""What an outline's steepness counts from, as part of the sharpness of the sharpest of a nest."""
_STOUTEST = 1.25
"""Most half width in a nest, as part of the sharpest one's; beyond, bone is added to metal."""
_LEAST_RADIUS = 0.008
"""Least radius of the largest inscribed circle, as part of the field's diagonal."""
_STEM_LENGTH = 0.20
"""Least length of a stem as part of the field's longer side."""
_STEM_SLENDER = 3.5
"""Least length of a stem over its width."""
_HEAD_TO_STEM = 1.35
"""Least radius of head or cup over half the width of the stem."""
_HEAD_TO_LENGTH = 0.035
"""Least radius of head or cup over the length."""
_SAME_GAP = 0.15
"""Two stems closer than this part of their length are one prosthesis; two hips never are."""
_COMPANION_SHARPNESS = 0.4
"""Least sharpness of a further part, as part of the stem's."""
_COMPANION_AREA = 0.08
"""Least area of a further part, as part of the stem's area."""
_COMPANION_RADIUS = 0.6
"""Least radius of a further part over half the width of the stem."""
_COMPANION_GAP = 0.45
"""Farthest a further part may be from the stem's box, as part of the stem's length."""


@dataclass(frozen=True)
class Implant:
    """A hip prosthesis in a radiograph.

    Attributes:
        box: (top, left, bottom, right) of the metal in pixels of the array that was searched;
            edges, not centres: a prosthesis on rows 3 and 4 has top 3.0 and bottom 5.0.
        sharpness: steepness that all but the softest third of its outline has, in parts of the
            grey range a thumbnail pixel.
        area: its area in square pixels.
    """

    box: tuple[float, float, float, float]
    sharpness: float
    area: float

    @property
    def centre_x(self) -> float:
        """Column of the middle of the box."""
        return (self.box[1] + self.box[3]) / 2

    def scaled(self, rows: float, columns: float) -> Implant:
        """The same prosthesis in an array that is `rows` x `columns` times as large."""
        top, left, bottom, right = self.box
        return Implant(
            (top * rows, left * columns, bottom * rows, right * columns),
            self.sharpness,
            self.area * rows * columns,
        )

    def shifted(self, rows: float, columns: float) -> Implant:
        """The same prosthesis, moved."""
        top, left, bottom, right = self.box
        box = (top + rows, left + columns, bottom + rows, right + columns)
        return Implant(box, self.sharpness, self.area)


@dataclass(frozen=True)
class _Part:
    """A bright, sharply outlined component of the relief.

    Attributes:
        sharpness: steepness that all but the softest third of the outline has.
        steepness: sum over the outline's pixels.
        outline: number of the outline's pixels.
        area: number of pixels.
        radius: of the largest inscribed circle.
        length: along its long axis.
        half_width: half the median width across that axis.
        window: smallest rectangle around it.
        mask: [window.height, window.width], True on the part.
    """

    sharpness: float
    steepness: float
    outline: int
    area: float
    radius: float
    length: float
    half_width: float
    window: Box
    mask: NDArray[np.bool_]

    def metal_edge(self, least: float) -> float:
        """How much steepness beyond `least` the outline holds."""
        return self.steepness - least * self.outline


def find_implants(grey: NDArray[np.float32], field: Box | None = None) -> tuple[Implant, ...]:
    """Find the hip prostheses of a radiograph.

    Args:
        grey: [rows, columns] float32 grey levels of a thumbnail (a few hundred pixels), bright
            is dense.
        field: the part to search: what collimation left open; None for all of it.

    Returns:
        The prostheses found, from the image's left to its right.
    """
    rows, columns = grey.shape
    field = Box(0, 0, rows, columns) if field is None else field.clip(Box(0, 0, rows, columns))
    if min(field.height, field.width) < 32:
        return ()
    relief, steepness = _relief(np.ascontiguousarray(grey[field.slices]))
    groups = _groups(_parts(relief, steepness), relief.shape)
    implants = [_measure(relief, group, field) for group in groups]
    return tuple(sorted(implants, key=lambda implant: implant.centre_x))


def _relief(seen: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What stands out of its surroundings, and the steepness of the grey levels.

    Returns:
        Height above the surroundings in parts of the field's grey range, 0 where it is too dark
        for metal; and the gradient in parts of that range a pixel.
    """
    smooth: NDArray[np.float32] = cv2.GaussianBlur(  # type: ignore[assignment]
        seen, (0, 0), _BLUR
    )
    darkest, high = np.percentile(smooth[::2, ::2], (2.0, 99.8))
    low = darkest / 2  # the darkest thing in a close field is soft tissue, not air
    scale = 1.0 / max(float(high - low), 0.02)
    across = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=scale / 32)
    down = cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=scale / 32)
    brightness = (smooth - np.float32(low)) * np.float32(scale)
    relief = (smooth - _surroundings(smooth)) * np.float32(scale)
    metal = np.median(brightness[relief >= 0.6 * np.percentile(relief[::2, ::2], 99.8)])
    if metal > 0.0:
        never, surely = (part * float(metal) for part in _DARKEST_METAL)
        relief *= np.clip((brightness - never) / (surely - never), 0.0, 1.0)
    return relief, np.hypot(across, down)


def _surroundings(smooth: NDArray[np.float32]) -> NDArray[np.float32]:
    """A morphological opening that is wider than metal; at half size, as it is smooth anyway."""
    width = max(3, int(_WIDEST_METAL * np.hypot(*smooth.shape) / 2))
    half = cv2.resize(smooth, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    kernel = np.ones((width, width), np.uint8)
    opened = cv2.morphologyEx(half, cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_REPLICATE)
    ground: NDArray[np.float32] = cv2.resize(  # type: ignore[assignment]
        cv2.blur(opened, (width // 2, width // 2)), smooth.shape[::-1]
    )
    return ground


def _parts(relief: NDArray[np.float32], steepness: NDArray[np.float32]) -> list[_Part]:
    """Rule 1 and 2: every component at every level that is sharp, large and compact enough."""
    compact = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_THIN + 1, _THIN + 1))
    parts = []
    for level in _LEVELS:
        bright = (relief > np.float32(level)).astype(np.uint8)
        bright = cv2.morphologyEx(bright, cv2.MORPH_OPEN, compact)
        x, y, width, height = cv2.boundingRect(bright)  # labelling is dear: only where needed
        bright = np.ascontiguousarray(bright[y : y + height, x : x + width])
        _, labels, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
        for label in range(1, len(stats)):
            left, top, width, height, area = (int(value) for value in stats[label])
            if not _LEAST_AREA * relief.size <= area <= _MOST_AREA * relief.size:
                continue
            window = Box(top, left, top + height, left + width)
            mask = labels[window.slices] == label
            part = _part(mask, window.shifted(y, x), steepness)
            if part is not None:
                parts.append(part)
    return parts


def _part(mask: NDArray[np.bool_], window: Box, steepness: NDArray[np.float32]) -> _Part | None:
    """Measure a component; None when it is not sharp or not compact."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    outline = steepness[window.slices][mask & (depth < 1.5)]
    third = outline.size // 3
    sharpness, radius = float(np.partition(outline, third)[third]), float(depth.max()) - 0.5
    if sharpness < _LEAST_SHARPNESS or radius < _LEAST_RADIUS * np.hypot(*steepness.shape):
        return None
    return _Part(
        sharpness,
        float(outline.sum(dtype=np.float64)),
        outline.size,
        float(np.count_nonzero(mask)),
        radius,
        *_length_and_half_width(mask),
        window,
        mask,
    )


def _length_and_half_width(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Extent of a part along its long axis, and half its median width across it."""
    y, x = np.nonzero(mask)
    x, y = x - x.mean(), y - y.mean()
    axis = 0.5 * np.arctan2(2 * np.dot(x, y), np.dot(x, x) - np.dot(y, y))
    along = x * np.cos(axis) + y * np.sin(axis)
    widths = np.bincount(np.floor(along - along.min()).astype(np.intp))
    return float(widths.size), max(float(np.median(widths)) / 2, 0.5)


def _overlap(one: _Part, other: _Part) -> bool:
    shared = one.window.clip(other.window)
    if shared.height == 0 or shared.width == 0:
        return False
    cuts = [
        part.mask[
            shared.top - part.window.top : shared.bottom - part.window.top,
            shared.left - part.window.left : shared.right - part.window.left,
        ]
        for part in (one, other)
    ]
    return bool((cuts[0] & cuts[1]).any())


def _groups(parts: list[_Part], shape: tuple[int, ...]) -> list[list[_Part]]:
    """Rules 3 to 5: each stem that has a head, with what belongs to it."""
    whole = sorted(
        (part for part in parts if _is_prosthesis(part, shape)), key=lambda part: -part.sharpness
    )
    groups: list[list[_Part]] = []
    taken: list[_Part] = []
    for sharpest in whole:
        if any(_close(sharpest, other) for other in taken):
            continue
        least = _METAL_SHARPNESS * sharpest.sharpness
        nest = [
            part
            for part in whole
            if part.half_width <= _STOUTEST * sharpest.half_width and _overlap(part, sharpest)
        ]
        groups.append([max(nest, key=lambda part: part.metal_edge(least))])
        taken.append(groups[-1][0])
    for part in sorted(parts, key=lambda part: -part.sharpness) if groups else ():
        if any(_overlap(part, other) for other in taken):
            continue
        group = min(groups, key=lambda group: _gap(group[0].window, part.window))
        stem = group[0]
        if (
            part.metal_edge(_LEAST_STEEPNESS) >= 0.0
            and part.sharpness >= _COMPANION_SHARPNESS * stem.sharpness
            and part.area >= _COMPANION_AREA * stem.area
            and part.radius >= _COMPANION_RADIUS * stem.half_width
            and _gap(stem.window, part.window) <= _COMPANION_GAP * stem.length
        ):
            taken.append(part)
            group.append(part)
    return groups


def _is_prosthesis(part: _Part, shape: tuple[int, ...]) -> bool:
    return (
        part.metal_edge(_LEAST_STEEPNESS) >= 0.0
        and part.length >= _STEM_LENGTH * max(shape)
        and part.length >= _STEM_SLENDER * 2 * part.half_width
        and part.radius >= _HEAD_TO_STEM * part.half_width
        and part.radius >= _HEAD_TO_LENGTH * part.length
    )


def _close(one: _Part, other: _Part) -> bool:
    """Whether two parts are of one prosthesis, such as a stem and the cup it came out of."""
    return _gap(one.window, other.window) <= _SAME_GAP * max(one.length, other.length)


def _gap(one: Box, other: Box) -> float:
    """Distance between two boxes; 0 when they touch or overlap."""
    vertical = max(one.top - other.bottom, other.top - one.bottom, 0)
    horizontal = max(one.left - other.right, other.left - one.right, 0)
    return float(np.hypot(vertical, horizontal))


def _measure(relief: NDArray[np.float32], group: list[_Part], field: Box) -> Implant:
    """The prosthesis' box at half height between metal and surroundings, to a part of a pixel.

    Measuring between pixels keeps the box from jumping a whole thumbnail pixel when a grey level
    changes by as little as another bit depth does.
    """
    metal = np.zeros(relief.shape, np.uint8)
    for part in group:
        metal[part.window.slices] |= part.mask
    near = cv2.dilate(metal, np.ones((7, 7), np.uint8))
    inner = float(np.median(relief[metal > 0]))
    outer = float(np.median(relief[(near > 0) & (metal == 0)]))
    height = np.where(near > 0, (relief - outer) / max(inner - outer, 1e-3), 0.0)
    top, bottom = _extent(height.max(axis=1))
    left, right = _extent(height.max(axis=0))
    area = sum(part.area for part in group)
    sharpness = sum(part.sharpness * part.area for part in group) / area
    return Implant(
        (top + field.top, left + field.left, bottom + field.top, right + field.left),
        sharpness,
        area,
    )


def _extent(profile: NDArray[np.floating]) -> tuple[float, float]:
    """Where the profile first and last crosses 0.5, as edges between pixels (0 to its length)."""
    inside = np.flatnonzero(profile >= 0.5)
    first, last = int(inside[0]), int(inside[-1])
    start, end = float(first), float(last + 1)
    if first > 0:
        start += 0.5 - (profile[first] - 0.5) / (profile[first] - profile[first - 1])
    if last + 1 < profile.size:
        end += (profile[last] - 0.5) / (profile[last] - profile[last + 1]) - 0.5
    return float(start), float(end)
