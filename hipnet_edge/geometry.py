"""The exact way between a radiograph's pixels and the network's, and back.

Coordinates are (x, y) = (column, row) of pixel centres, in radiograph and network alike: (0, 0) is
the centre of the first pixel, whose area reaches from -0.5 to 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from hipnet_edge.collimation import Box
from hipnet_edge.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Geometry:
    """Where the network's pixels lie in a radiograph.

    Attributes:
        image_shape: (rows, columns) of the radiograph.
        box: what the network sees, in pixels of the radiograph; may reach outside the frame.
        mirrored: the network sees the box mirrored left to right.
        network_shape: (rows, columns) of the network's input.
    """

    image_shape: tuple[int, int]
    box: Box
    mirrored: bool
    network_shape: tuple[int, int]

    def to_network(self, points: ArrayLike) -> NDArray[np.float64]:
        """Carry points [..., 2] (x, y) from radiograph to network."""
        xy = _points(points)
        rows, columns = self.network_shape
        x = (xy[..., 0] + 0.5 - self.box.left) * (columns / self.box.width)
        y = (xy[..., 1] + 0.5 - self.box.top) * (rows / self.box.height)
        return np.stack([(columns - x if self.mirrored else x) - 0.5, y - 0.5], axis=-1)

    def to_image(self, points: ArrayLike) -> NDArray[np.float64]:
        """Carry points [..., 2] (x, y) from network to radiograph."""
        xy = _points(points)
        rows, columns = self.network_shape
        x, y = xy[..., 0] + 0.5, xy[..., 1] + 0.5
        x = (columns - x if self.mirrored else x) * (self.box.width / columns) + self.box.left
        y = y * (self.box.height / rows) + self.box.top
        return np.stack([x - 0.5, y - 0.5], axis=-1)

    def map_to_image(self, map2d: NDArray[np.floating]) -> NDArray[np.float32]:
        """Lay a map [h, w] of any stride over the radiograph.

        The map's cells tile the box; between their centres is interpolated linearly.

        Returns:
            [rows, columns] float32 in the radiograph's own pixels, 0 outside the box.
        """
        full = np.zeros(self.image_shape, np.float32)
        seen, part = self.map_in_box(map2d)
        full[seen.slices] = part
        return full

    def map_in_box(self, map2d: NDArray[np.floating]) -> tuple[Box, NDArray[np.float32]]:
        """The part of `map_to_image` that is not 0 everywhere, and where it lies.

        Returns:
            What the network saw of the radiograph, and float32 [height, width] in its pixels.
        """
        if map2d.ndim != 2:
            raise UsageError("A map has two axes: rows and columns.")
        seen = self.box.clip(self._frame)
        if seen.height == 0 or seen.width == 0:
            return seen, np.zeros((seen.height, seen.width), np.float32)
        cells = np.asarray(map2d, np.float32)
        cells = np.ascontiguousarray(cells[:, ::-1] if self.mirrored else cells)
        size = self.box.width, self.box.height
        laid = cv2.resize(cells, size, interpolation=cv2.INTER_LINEAR)
        part = laid[seen.shifted(-self.box.top, -self.box.left).slices]
        return seen, np.asarray(part, np.float32)

    def map_averaged(
        self, map2d: NDArray[np.floating], region: Box, shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        """A part of `map_to_image`, averaged over areas to a smaller picture of it.

        Laying a map over the radiograph and averaging are both linear and go by rows and columns,
        so the two together are two small matrices: no pixel of the radiograph is touched.

        Args:
            map2d: the map [h, w], of any stride.
            region: the part, in pixels of the radiograph.
            shape: rows and columns of the picture.

        Returns:
            float32 of that shape.
        """
        cells = np.asarray(map2d, np.float32)
        cells = cells[:, ::-1] if self.mirrored else cells
        box = self.box
        down = _averages(cells.shape[0], box.top, box.bottom, region.top, region.bottom, shape[0])
        across = _averages(cells.shape[1], box.left, box.right, region.left, region.right, shape[1])
        # Not numpy's product: its library starts threads that spin, which takes longer than this.
        nothing = np.empty(0, np.float32)
        rows = cv2.gemm(down, np.ascontiguousarray(cells), 1.0, nothing, 0.0)
        averaged = cv2.gemm(rows, across, 1.0, nothing, 0.0, flags=cv2.GEMM_2_T)
        return np.asarray(averaged, np.float32)

    def image_to_network(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Cut, resize and mirror any [rows, columns] array as the radiograph was.

        For truth masks: a bool mask becomes the part of each network pixel that it covers.

        Returns:
            network_shape float32, 0 outside the frame.
        """
        if image.shape != self.image_shape:
            raise UsageError("The array must have the radiograph's rows and columns.")
        seen = self.box.clip(self._frame)
        return self.resized(self.laid(np.asarray(image[seen.slices], np.float32), seen))

    def edges(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Upper edges of the network's rows and left ones of its columns, and the last's far ones.

        In pixels of the radiograph from its upper left corner; before mirroring.
        """
        rows, columns = self.network_shape
        return (
            np.linspace(self.box.top, self.box.bottom, rows + 1),
            np.linspace(self.box.left, self.box.right, columns + 1),
        )

    def laid(self, part: NDArray[np.float32], seen: Box) -> NDArray[np.float32]:
        """Lay what was seen of the box, [seen.height, seen.width], on a box of zeros."""
        return laid(part, seen, self.box)

    def covered(self, seen: Box, valid: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Which part of each network pixel lies in the part of the box that was seen.

        Args:
            seen: the part of the box, in pixels of the radiograph.
            valid: bool [seen.height, seen.width], False where it does not count.
        """
        if valid is not None and not valid.all():
            return self.resized(self.laid(valid.astype(np.float32), seen))
        # Averaging areas is separable: one column and one row say it all.
        inside = seen.shifted(-self.box.top, -self.box.left)
        down, across = np.zeros(self.box.height, np.float32), np.zeros(self.box.width, np.float32)
        down[inside.top : inside.bottom] = 1.0
        across[inside.left : inside.right] = 1.0
        rows, columns = self.network_shape
        part = np.outer(
            cv2.resize(down[:, None], (1, rows), interpolation=self._interpolation),
            cv2.resize(across[None, :], (columns, 1), interpolation=self._interpolation),
        )
        return self.oriented(part)

    def resized(self, cut: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resize (averaging areas) and mirror what was cut from the box, [height, width]."""
        rows, columns = self.network_shape
        resized = cv2.resize(cut, (columns, rows), interpolation=self._interpolation)
        return self.oriented(resized)

    def resized_from(self, cut: Callable[[Box], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Resize and mirror what `cut` gives of the box, strip by strip.

        The same bits as `resized` gives of the whole, in a fraction of the memory.

        Args:
            cut: [strip.height, strip.width] of a strip of the box.
        """
        rows, columns = self.network_shape
        strips = self._strips()
        size = (columns, rows // len(strips))
        parts = [
            cv2.resize(cut(strip), size, interpolation=self._interpolation) for strip in strips
        ]
        return self.oriented(np.vstack(parts))

    def _strips(self) -> list[Box]:
        """The box in strips that are whole rows of the radiograph and of the network."""
        rows, columns = self.network_shape
        count = rows // math.gcd(rows, columns)  # as `fit_box` makes boxes
        height, left = self.box.height // count, self.box.height % count
        if left or self._interpolation != cv2.INTER_AREA:
            return [self.box]
        tops = range(self.box.top, self.box.bottom, height)
        return [Box(top, self.box.left, top + height, self.box.right) for top in tops]

    def oriented(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Pixels on the network's grid, mirrored if the network sees the box mirrored."""
        return np.ascontiguousarray(pixels[:, ::-1] if self.mirrored else pixels)

    @property
    def _interpolation(self) -> int:
        rows, columns = self.network_shape
        smaller = rows <= self.box.height and columns <= self.box.width
        return cv2.INTER_AREA if smaller else cv2.INTER_LINEAR

    @property
    def _frame(self) -> Box:
        return Box(0, 0, *self.image_shape)


def laid(part: NDArray[np.float32], seen: Box, box: Box) -> NDArray[np.float32]:
    """Lay what was seen of a box, [seen.height, seen.width], on a box of zeros."""
    if seen == box:
        return part
    cut = np.zeros((box.height, box.width), np.float32)
    cut[seen.shifted(-box.top, -box.left).slices] = part
    return cut


def _averages(
    cells: int, start: int, end: int, first: int, last: int, shown: int
) -> NDArray[np.float32]:
    """What each cell of a line adds to each pixel of its picture: float32 [shown, cells].

    Args:
        cells: how many of them tile the line.
        start: where it starts, in pixels of the radiograph.
        end: where it ends.
        first: where the part that is shown starts.
        last: where that ends.
        shown: to how many pixels it is averaged.
    """
    laid = cv2.resize(
        np.eye(cells, dtype=np.float32), (cells, end - start), interpolation=cv2.INTER_LINEAR
    )
    part = np.zeros((last - first, cells), np.float32)
    low = max(start, first)
    high = max(low, min(end, last))
    part[low - first : high - first] = laid[low - start : high - start]
    averaged = cv2.resize(part, (cells, shown), interpolation=cv2.INTER_AREA)
    return np.asarray(averaged, np.float32)


def _points(points: ArrayLike) -> NDArray[np.float64]:
    xy = np.asarray(points, np.float64)
    if xy.ndim == 0 or xy.shape[-1] != 2:
        raise UsageError("Points are given as [..., 2]: x (column), y (row).")
    return xy
