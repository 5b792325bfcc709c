"""What frames a film: the lead letter for the side and the shutters of the collimator."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .dimensions import Draws
from .solids import Array

LEAD_MM = 0.5
"""Thickness of a letter's lead."""
_EDGE_MM = 5.0
"""A letter keeps this far from the edge of the film."""


@dataclass(frozen=True)
class Marker:
    """A letter of lead beside the hip it names.

    Attributes:
        across: 0 where the side that it names begins (or the film), 1 at the film's right edge.
        down: 0 at the top of the film, 1 at its bottom.
        height: of the letter, mm.
        framed: there is a frame of lead around it.
    """

    across: float
    down: float
    height: float
    framed: bool

    @classmethod
    def draw(cls, draws: Draws) -> Marker | None:
        """A letter, or none."""
        present = draws.chance("marker")
        marker = cls(
            draws("marker_across"),
            draws("marker_down"),
            draws("marker_height"),
            draws.chance("marker_frame"),
        )
        return marker if present else None

    def lay(
        self, letter: str, shape: tuple[int, int], spacing: float, begins: float
    ) -> tuple[slice, slice, Array]:
        """Lead on the film of a left hip: rows, columns, mm of lead.

        Args:
            letter: "L" or "R"; a right hip's film is mirrored in the end, so R is laid mirrored.
            shape: rows and columns of the film.
            spacing: pixel size, mm.
            begins: where on the film, mm, the side begins that the letter names.
        """
        sheet = self._sheet(letter, spacing)
        height, width = sheet.shape
        edge = round(_EDGE_MM / spacing)
        low = max(round(begins / spacing), edge)
        high = max(shape[1] - width - edge, low)
        column = round(low + self.across * (high - low))
        row = round(edge + self.down * (shape[0] - height - 2 * edge))
        return slice(row, row + height), slice(column, column + width), sheet

    def _sheet(self, letter: str, spacing: float) -> Array:
        font = cv2.FONT_HERSHEY_SIMPLEX
        (_, unit), _ = cv2.getTextSize(letter, font, 1.0, 1)
        thick = max(round(1.6 / spacing), 1)
        scale = self.height / spacing / unit
        (width, height), _ = cv2.getTextSize(letter, font, scale, thick)
        pad = thick * (4 if self.framed else 2)
        sheet = np.zeros((height + 2 * pad, width + 2 * pad), np.uint8)
        cv2.putText(sheet, letter, (pad, pad + height), font, scale, 255, thick, cv2.LINE_AA)
        if letter == "R":
            sheet = np.fliplr(sheet).copy()
        if self.framed:
            inset = thick // 2
            corner = (sheet.shape[1] - 1 - inset, sheet.shape[0] - 1 - inset)
            cv2.rectangle(sheet, (inset, inset), corner, 255, max(thick // 2, 1))
        return np.asarray(sheet.astype(np.float32) * np.float32(LEAD_MM / 255.0))


@dataclass(frozen=True)
class Shutters:
    """Which part of the frame each side of the collimator covers: top, bottom, left, right.

    Attributes:
        covered: parts of the height (top, bottom) and of the width (left, right).
        white: the covered border is shown white, else black.
    """

    covered: tuple[float, float, float, float]
    white: bool

    @classmethod
    def draw(cls, draws: Draws, bilateral: bool) -> Shutters:
        """Shutters closed on some sides; towards a hip that stands near them they close less."""
        covered = []
        sideways = 0.35 if bilateral else 1.0
        for reach in (0.45, 0.45, sideways, sideways):
            closed = draws.chance("collimated_side")
            covered.append(reach * draws("collimation") * closed)
        top, bottom, left, right = covered
        return cls((top, bottom, left, right), draws.chance("white_collimation"))

    def window(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns that are left open."""
        top, bottom, left, right = self.covered
        rows = slice(int(top * shape[0]), shape[0] - int(bottom * shape[0]))
        return rows, slice(int(left * shape[1]), shape[1] - int(right * shape[1]))

    def border(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """What is covered [rows, columns]."""
        border = np.ones(shape, bool)
        border[self.window(shape)] = False
        return border
