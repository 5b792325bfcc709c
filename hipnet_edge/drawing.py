"""Drawing on a page of pixels: text, bars and the colours that stand for probability.

OpenCV and numpy only, so that a cart without a display or a font can draw. OpenCV 5 brings a
TrueType face of its own; before it there are only the stroke fonts, which read worse but say the
same. Pictures are uint8 [rows, columns, 3] in RGB order; colours are (red, green, blue).
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]
P = TypeVar("P", np.uint8, np.float32)

BACKGROUND: Colour = (15, 17, 20)
FRAME: Colour = (120, 128, 138)
TRACK: Colour = (38, 42, 48)
TEXT: Colour = (236, 238, 241)
MUTED: Colour = (158, 165, 174)
NEUTRAL: Colour = (126, 138, 153)
ACCENT: Colour = (251, 164, 79)

REGULAR, BOLD = 400, 600
"""Weights of the TrueType face."""


def probability_colours() -> NDArray[np.uint8]:
    """The 256 colours of probability 0 to 1 as uint8 [256, 3], RGB.

    Plasma: its lightness rises evenly with the value, and no colour in it is a grey, so it can
    be told from the radiograph under it at every level.
    """
    ramp = np.arange(256, dtype=np.uint8).reshape(-1, 1)
    coloured = cv2.cvtColor(cv2.applyColorMap(ramp, cv2.COLORMAP_PLASMA), cv2.COLOR_BGR2RGB)
    return np.asarray(coloured, dtype=np.uint8).reshape(256, 3)


def new_page(rows: int, columns: int) -> Picture:
    """An empty page in the background colour."""
    return np.tile(np.array(BACKGROUND, np.uint8), (rows, columns, 1))


class Pen:
    """Writes text of one face at given pixel sizes, with anti-aliasing."""

    def __init__(self) -> None:
        # A face is not shared: drawing with one changes it, and pages may be drawn in threads.
        self._face: Any = cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None

    def width(self, text: str, size: int, weight: int = REGULAR) -> int:
        """How many pixels wide the text will be."""
        if self._face is not None:
            box = cv2.getTextSize((1, 1), text, (0, 0), self._face, size, weight)
            return int(box[0] + box[2])
        (pixels, _), _ = cv2.getTextSize(text, *self._stroke(size, weight))
        return int(pixels)

    def write(
        self,
        page: Picture,
        text: str,
        at: tuple[int, int],
        size: int,
        *,
        colour: Colour = TEXT,
        weight: int = REGULAR,
        align_right: bool = False,
    ) -> None:
        """Write one line; `at` is (x, y) of the baseline's left end, or right end."""
        x, y = at
        if align_right:
            x -= self.width(text, size, weight)
        if self._face is not None:
            cv2.putText(page, text, (x, y), colour, self._face, size, weight)
            return
        face, scale, thickness = self._stroke(size, weight)
        cv2.putText(page, text, (x, y), face, scale, colour, thickness, cv2.LINE_AA)

    def wrap(self, text: str, size: int, width: int) -> list[str]:
        """The text broken at spaces into lines of at most `width` pixels."""
        lines: list[str] = []
        for word in text.split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.width(longer, size) <= width:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines

    def shorten(self, text: str, size: int, width: int) -> str:
        """The text cut at its end, with two dots, to at most `width` pixels."""
        if self.width(text, size) <= width:
            return text
        while text and self.width(text + "..", size) > width:
            text = text[:-1]
        return text + ".."

    @staticmethod
    def _stroke(size: int, weight: int) -> tuple[int, float, int]:
        """OpenCV's stroke font nearest to a size: face, scale, thickness."""
        thickness = 2 if weight >= BOLD and size > 30 else 1
        scale = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_DUPLEX, round(size * 0.66), thickness)
        return cv2.FONT_HERSHEY_DUPLEX, float(scale), thickness


def bar(
    page: Picture, at: tuple[int, int], size: tuple[int, int], value: float, colour: Colour
) -> None:
    """A horizontal bar filled to `value` of its width; `at` is (left, top), `size` (width, height).

    What is filled is exact to the pixel: a probability of 0 fills nothing.
    """
    (x, y), (width, height) = at, size
    cv2.rectangle(page, (x, y), (x + width - 1, y + height - 1), TRACK, cv2.FILLED)
    filled = round(min(max(value, 0.0), 1.0) * width)
    if filled:
        cv2.rectangle(page, (x, y), (x + filled - 1, y + height - 1), colour, cv2.FILLED)


def frame(page: Picture, at: tuple[int, int], size: tuple[int, int]) -> None:
    """A thin outline; `at` is (left, top), `size` (width, height)."""
    (x, y), (width, height) = at, size
    cv2.rectangle(page, (x, y), (x + width - 1, y + height - 1), FRAME, 1)


def fit(picture: NDArray[P], width: int, height: int) -> NDArray[P]:
    """The picture resized, in its own proportions, to the largest that fits in the box."""
    rows, columns = picture.shape[:2]
    scale = min(width / columns, height / rows)
    target = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cast(NDArray[P], cv2.resize(picture, target, interpolation=method))


def paste(page: Picture, picture: Picture, at: tuple[int, int], size: tuple[int, int]) -> None:
    """Put a picture in the middle of a black box whose left top is `at`; it must fit."""
    (x, y), (width, height) = at, size
    rows, columns = picture.shape[:2]
    left, top = x + (width - columns) // 2, y + (height - rows) // 2
    page[y : y + height, x : x + width] = 0
    page[top : top + rows, left : left + columns] = picture
