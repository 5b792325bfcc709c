"""Collimation: the uniform white or black border that the X-ray beam's shutters leave.

The rule works on a thumbnail of grey levels, side by side. A collimated border is a run of lines
(rows or columns), beginning at the frame, each of which is uniform along its length; it is at the
white or the black end of the image, and it ends in a step that a good part of the line shows.
Borders may be noisy, lit by scatter, or fade over a penumbra: the innermost step ends them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

WIDEST_BORDER = 0.42
"""A border takes at most this part of the frame; beyond, it is the radiograph itself."""
_STEP_LINES = 4
"""A step is looked for between lines this far apart (about five millimetres of a hip film)."""
_STEP = 0.10
"""Least height of the step that ends a border, as part of the grey range."""
_STEP_EXTENT = 0.30
"""Least part of the line that shows the step."""
_UNIFORM = 0.14
"""Largest 5-95 % spread along a border's line, as part of the grey range."""
_EXTREME = 0.12
"""How far from the end of the grey range the frame's outermost line may be."""
_SKEW = 0.05
"""A border set askew may leave a wedge; up to this part of the frame is searched for it."""


@dataclass(frozen=True)
class Box:
    """A rectangle of whole pixels, half open: rows top to bottom - 1, columns left to right - 1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the rectangle in an array; it must lie inside."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def shifted(self, rows: int, columns: int) -> Box:
        """The same rectangle, moved."""
        return Box(self.top + rows, self.left + columns, self.bottom + rows, self.right + columns)

    def clip(self, other: Box) -> Box:
        """The part of this rectangle inside `other`; empty (not negative) when there is none."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        return Box(
            top,
            left,
            max(top, min(self.bottom, other.bottom)),
            max(left, min(self.right, other.right)),
        )


def find_collimation(grey: NDArray[np.float32], valid: NDArray[np.bool_] | None = None) -> Box:
    """Find the part of a radiograph that collimation left open.

    Args:
        grey: [rows, columns] float32 grey levels of a thumbnail (a few hundred pixels).
        valid: [rows, columns] bool, False where padding or the display shutter covers the
            radiograph; None means everywhere valid.

    Returns:
        The open field in thumbnail pixels; the whole thumbnail where no border is found.
    """
    field = _bounds(valid, grey.shape)
    seen = grey[field.slices]
    if min(seen.shape) < 16:
        return field
    high = float(np.percentile(seen[::2, ::2], 99.5))
    if high < 1e-3:
        return field
    # White is what is whitest here; black is black, or a close field's soft tissue would be.
    scaled = grey * np.float32(1.0 / high)
    outer = field
    while True:
        found = _narrow(scaled, field, outer, _border_lines)
        if found == field:
            return _narrow(scaled, field, outer, _wedge_lines) if field != outer else field
        field = found


def _bounds(valid: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> Box:
    """The smallest rectangle that holds every valid pixel."""
    if valid is None:
        return Box(0, 0, shape[0], shape[1])
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    if rows.size == 0:
        return Box(0, 0, shape[0], shape[1])
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def _narrow(
    scaled: NDArray[np.float32],
    field: Box,
    outer: Box,
    count: Callable[[NDArray[np.float32], int], int],
) -> Box:
    """One round over the four sides. Corners hide a side's step until its neighbour is cut.

    `count` says how many lines to cut, given the whole frame's lines across the present field,
    outermost first, and how many of them are cut already.
    """
    top, left, bottom, right = field.top, field.left, field.bottom, field.right
    rows, columns = slice(outer.top, outer.bottom), slice(outer.left, outer.right)
    top = outer.top + count(scaled[rows, left:right], top - outer.top)
    bottom = outer.bottom - count(scaled[rows, left:right][::-1], outer.bottom - bottom)
    left = outer.left + count(scaled[top:bottom, columns].T, left - outer.left)
    right = outer.right - count(scaled[top:bottom, columns].T[::-1], outer.right - right)
    return Box(top, left, bottom, right)


def _border_lines(lines: NDArray[np.float32], cut: int) -> int:
    """How many of the first lines are border; the first `cut` are known to be."""
    limit = int(WIDEST_BORDER * lines.shape[0])
    outermost = float(np.median(lines[cut]))
    if cut >= limit or _EXTREME < outermost < 1.0 - _EXTREME:
        return cut
    head = lines[cut : limit + _STEP_LINES]
    ordered = np.sort(head, axis=1)
    tail = head.shape[1] // 20
    uneven = np.flatnonzero(ordered[:, -1 - tail] - ordered[:, tail] > _UNIFORM)
    run = min(int(uneven[0]) if uneven.size else limit - cut, limit - cut)
    steps = np.abs(head[_STEP_LINES : run + _STEP_LINES] - head[:run]) > _STEP
    ends = np.flatnonzero(steps.mean(axis=1) >= _STEP_EXTENT)
    # The line after the last border line mixes border and field.
    return cut + int(ends[-1]) + 2 if ends.size else cut


def _wedge_lines(lines: NDArray[np.float32], cut: int) -> int:
    """A border set askew leaves a wedge: cut on while it covers more than half of the line."""
    if cut == 0:
        return 0
    level = np.median(lines[max(0, cut - 2)])
    limit = cut + int(_SKEW * lines.shape[0])
    while cut < limit and np.mean(np.abs(lines[cut] - level) < _STEP / 2) > 0.5:
        cut += 1
    return cut
