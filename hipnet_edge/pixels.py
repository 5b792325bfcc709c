"""The pixels of a radiograph: all of them, or no more than what the network needs.

A survey looks at a thumbnail, and the network's pixels are half a millimetre wide, three or four of
the detector's. Both are taken from the resolutions that JPEG 2000 and HTJ2K store anyway: all of a
usual film at a quarter, the box around the prosthesis at a half. What that changes
is judged by the gate like any other network (`benchmarks/shortcuts.py`); where the bundle has no
verdict that passed, or `exact=True` is asked for, images are decoded whole.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hipnet_edge import codestreams, openjpeg
from hipnet_edge.collimation import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hipnet_edge.pixel_data import PixelLayout, Stored

SHORTCUT = "jpeg-2000-resolutions"
"""What a verdict of the gate calls this way of reading."""

COARSE = (slice(None, None, 4), slice(None, None, 4))
"""The rows and columns of all pixels that a glance looks at."""
LEAST_OVERSAMPLING = 1.1
"""How many decoded pixels a side there must be for each of the network's, at least."""
_LEAST_OVERVIEW = 640
"""Least longer side of the overview in pixels: twice that of the survey's thumbnail."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class WholePixels:
    """Pixels that are all decoded.

    Attributes:
        stored: uint8, uint16 or int16 [rows, columns], read-only: the stored values.
    """

    stored: Stored

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.stored.shape
        return rows, columns

    @property
    def coarse(self) -> Stored:
        """Every fourth pixel of every fourth row: what a glance needs."""
        return self.stored[COARSE]


class ReducedPixels:
    """Pixels in a codestream, decoded where and as finely as they are asked for. Thread-safe.

    Attributes:
        shape: rows and columns of the image.
        coarse: stored values of all of it at a half, a quarter or an eighth of its resolution.
    """

    def __init__(
        self,
        codestream: bytes,
        layout: PixelLayout,
        overview: int,
        *,
        regions: bool,
        threads: int,
    ) -> None:
        self.shape = (layout.rows, layout.columns)
        self._codestream, self._layout = codestream, layout
        self._regions, self._threads = regions, threads
        self._overview = overview
        self.coarse = self._decode(self._overview, None)
        self._whole: Stored | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, codestream: bytes, layout: PixelLayout, *, threads: int = 1
    ) -> ReducedPixels | None:
        """The pixels, if they can be decoded in parts; None if they must be decoded whole.

        Args:
            codestream: whose headers `codestreams.jpeg2000_header` has checked against `layout`.
            layout: how the DICOM header says that the pixels are stored.
            threads: how many decode it.
        """
        coding = codestreams.jpeg2000_coding(codestream)
        halvings = _halvings(max(layout.rows, layout.columns) / _LEAST_OVERVIEW)
        overview = min(halvings, coding.levels)
        if not coding.plain or overview < 1 or not openjpeg.available():
            return None
        try:
            # OpenJPEG 2.5 decodes regions of HTJ2K to grey.
            regions = not coding.high_throughput
            return cls(codestream, layout, overview, regions=regions, threads=threads)
        except openjpeg.DecodingFailed as error:
            _LOG.info("decoded whole: %s", error)
            return None

    @property
    def decoded_whole(self) -> bool:
        """Whether somebody asked for all of them."""
        return self._whole is not None

    @property
    def stored(self) -> Stored:
        """All stored values, decoded when they are first asked for."""
        with self._lock:
            if self._whole is None:
                self._whole = self._decode(0, None)
                self._whole.flags.writeable = False
            return self._whole

    def averaged(
        self,
        seen: Box,
        rows: NDArray[np.float64],
        columns: NDArray[np.float64],
        grey_levels: Callable[[Stored], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """Grey levels averaged over a grid of rectangles.

        Args:
            seen: the part of the full image that is averaged over.
            rows: [n + 1] edges of the grid, in pixels of the full image from its upper edge.
            columns: [m + 1] likewise.
            grey_levels: of stored values.

        Returns:
            float32 [n, m]; 0 where a rectangle lies outside `seen`.
        """
        discards = self._discards(float(rows[1] - rows[0]))
        step = 1 << discards
        near = Box(seen.top - step, seen.left - step, seen.bottom + step, seen.right + step)
        region = near.clip(Box(0, 0, *self.shape))
        part = grey_levels(self._part(discards, region))
        averages: NDArray[Any] = part
        for edges, first, last, start in (
            (rows, seen.top, seen.bottom, region.top),
            (columns, seen.left, seen.right, region.left),
        ):
            inside = np.clip(edges, first, last)
            # The first pixel of the part lies on the first multiple of `step` in the region.
            on_part = (inside - 0.5) / step + 0.5 + start // -step
            averages = _averages(averages, on_part).T
        return np.ascontiguousarray(averages, np.float32)

    def _discards(self, oversampling: float) -> int:
        """How many doublings are left out where so many pixels a side make one of the network's."""
        return min(_halvings(oversampling / LEAST_OVERSAMPLING), self._overview)

    def _part(self, discards: int, region: Box) -> Stored:
        """Stored values of a region, from the least that must be decoded for it."""
        if self._regions and discards != self._overview:
            return self._decode(discards, region)
        whole = self.coarse if discards == self._overview else self._decode(discards, None)
        ends = (region.top, region.bottom, region.left, region.right)
        top, bottom, left, right = (-(-end // (1 << discards)) for end in ends)
        return whole[top:bottom, left:right]

    def _decode(self, discards: int, region: Box | None) -> Stored:
        values = openjpeg.decode(self._codestream, discards, region, threads=self._threads)
        np.clip(values, self._layout.lowest, self._layout.highest, out=values)
        return values.astype(self._layout.stored_dtype)


def _halvings(times: float) -> int:
    """How often something may be halved that is so many times as large as it must be."""
    return int(np.log2(max(times, 1.0)))


def _averages(values: NDArray[Any], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of rows between neighbouring edges, parts of a row counted as parts: [n, m]."""
    total = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, dtype=np.float64, out=total[1:])
    edges = np.clip(edges, 0.0, len(values))
    row = np.minimum(edges.astype(np.intp), len(values) - 1)
    reached = total[row] + (edges - row)[:, None] * values[row]
    width = np.diff(edges)[:, None]
    means: NDArray[np.float64] = np.diff(reached, axis=0) / np.where(width > 0.0, width, np.inf)
    return means
