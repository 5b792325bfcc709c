"""What a thumbnail of a radiograph shows: what collimation left open, and the prostheses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from hipnet_edge.collimation import Box, find_collimation
from hipnet_edge.errors import InputRefused, Reason
from hipnet_edge.implant import Implant, find_implants
from hipnet_edge.pixels import ReducedPixels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hipnet_edge.pixel_data import Stored
    from hipnet_edge.radiograph import Radiograph

THUMBNAIL = 320
"""Longer side in pixels of the thumbnail on which collimation and prosthesis are found."""
_STEADY = 0.0005
"""How far a prosthesis' box may move, as part of the film's longer side, for a blur of the overview
that is about what differs between an overview and all pixels."""
_STRIP = 32
"""Rows of halved grey levels that are made at once."""


@dataclass(frozen=True)
class Survey:
    """What the thumbnail shows, in pixels of the radiograph.

    Attributes:
        field: what collimation, padding and shutter left open.
        collimated: a border was found.
        implants: prostheses from the image's left to its right.
    """

    field: Box
    collimated: bool
    implants: tuple[Implant, ...]

    @property
    def middle(self) -> float:
        """The column half-way across the field."""
        return (self.field.left + self.field.right) / 2

    @property
    def implants_in_both_halves(self) -> bool:
        """Whether prostheses stand left and right of the middle."""
        return len({implant.centre_x < self.middle for implant in self.implants}) == 2


def survey_of(
    radiograph: Radiograph, seen_through: Callable[[Stored], Stored] | None = None
) -> Survey:
    """Look over a radiograph once, small: what the collimator left open, and the prostheses.

    Args:
        radiograph: to look over.
        seen_through: a filter over the stored values of an overview.
    """
    # Padding is no part of the radiograph: with it or without, the same thumbnail is read.
    frame = _shown(radiograph)
    part = _whole_blocks(frame)
    scale = min(1.0, THUMBNAIL / max(part.height, part.width))
    rows, columns = (max(1, round(side * scale)) for side in (part.height, part.width))
    thumbnail = _thumbnail(radiograph, part, (rows, columns), seen_through)
    valid = None
    if radiograph.valid is not None:
        shown = radiograph.valid[part.slices].astype(np.float32)
        valid = cv2.resize(shown, (columns, rows), interpolation=cv2.INTER_AREA) > 0.5
    field = find_collimation(thumbnail, valid)
    down, across = part.height / rows, part.width / columns
    return Survey(
        Box(
            round(field.top * down),
            round(field.left * across),
            round(field.bottom * down) if field.bottom < rows else frame.height,
            round(field.right * across) if field.right < columns else frame.width,
        ).shifted(frame.top, frame.left),
        field != Box(0, 0, rows, columns),
        tuple(
            implant.scaled(down, across).shifted(frame.top, frame.left)
            for implant in find_implants(thumbnail, field)
        ),
    )


def steady_survey(radiograph: Radiograph) -> tuple[Radiograph, Survey]:
    """A survey that does not hang on how much was decoded, and the radiograph to go on with.

    In some films what counts as metal is decided by a hair. Where a slight blur of the overview
    moves the box around the prosthesis, all pixels are decoded and looked over instead.
    """
    survey = survey_of(radiograph)
    if not isinstance(radiograph.pixels, ReducedPixels):
        return radiograph, survey
    blurred = survey_of(radiograph, _blurred)
    if _moved(survey, blurred) <= _STEADY * max(radiograph.shape):
        return radiograph, survey
    whole = radiograph.decoded_whole()
    return whole, survey_of(whole)


def _blurred(stored: Stored) -> Stored:
    kernel = np.array([0.25, 0.5, 0.25], np.float32)
    blurred: Stored = cv2.sepFilter2D(stored, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
    return blurred


def _moved(one: Survey, other: Survey) -> float:
    """The farthest that an edge of the largest prosthesis' box moved, in pixels."""
    largest = [
        max(survey.implants, key=lambda implant: implant.area, default=None)
        for survey in (one, other)
    ]
    if largest[0] is None or largest[1] is None:
        return 0.0 if largest[0] is largest[1] else np.inf
    return float(np.abs(np.subtract(largest[0].box, largest[1].box)).max())


def _whole_blocks(frame: Box) -> Box:
    """What of a frame is a whole number of the blocks that its thumbnail is averaged from."""
    block = 1 << _halvings(frame)
    height, width = frame.height // block * block, frame.width // block * block
    return Box(frame.top, frame.left, frame.top + height, frame.left + width)


def _halvings(frame: Box) -> int:
    """How often a frame is halved before it is resized: twice the thumbnail is left at least."""
    return max(0, (max(frame.height, frame.width) // (2 * THUMBNAIL)).bit_length() - 1)


def _thumbnail(
    radiograph: Radiograph,
    part: Box,
    shape: tuple[int, int],
    seen_through: Callable[[Stored], Stored] | None,
) -> NDArray[np.float32]:
    """Grey levels averaged over all pixels of each of the thumbnail's.

    Every pixel counts: with every fourth alone, noise of one pixel could move the box.
    """
    rows, columns = shape
    if isinstance(radiograph.pixels, ReducedPixels):
        look_up = radiograph.grey_table.apply
        return radiograph.pixels.averaged(
            part,
            np.linspace(part.top, part.bottom, rows + 1),
            np.linspace(part.left, part.right, columns + 1),
            (lambda stored: look_up(seen_through(stored))) if seen_through else look_up,
        )
    halvings = _halvings(part)
    strips = []
    # Strip by strip: the grey levels of a whole film take 30 MB.
    for top in range(part.top, part.bottom, _STRIP << halvings):
        strip = slice(top, min(top + (_STRIP << halvings), part.bottom))
        grey = radiograph.grey_levels(strip, slice(part.left, part.right))
        for _ in range(halvings):
            half = (grey.shape[1] // 2, grey.shape[0] // 2)
            grey = cv2.resize(grey, half, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        strips.append(grey)
    thumbnail: NDArray[np.float32] = cv2.resize(  # type: ignore[assignment]
        np.vstack(strips), (columns, rows), interpolation=cv2.INTER_AREA
    )
    return thumbnail


def _shown(radiograph: Radiograph) -> Box:
    """The smallest box around all valid pixels."""
    if radiograph.valid is None:
        return Box(0, 0, *radiograph.shape)
    left, top, width, height = cv2.boundingRect(radiograph.valid.view(np.uint8))
    if width == 0:
        raise InputRefused(Reason.EMPTY_IMAGE, "The radiograph holds nothing but padding.")
    return Box(top, left, top + height, left + width)
