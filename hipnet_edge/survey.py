"""What a thumbnail of a radiograph shows: what collimation left open, and the prostheses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from hipnet_edge.collimation import Box, find_collimation
from hipnet_edge.errors import InputRefused, Reason
from hipnet_edge.implant import Implant, find_implants

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hipnet_edge.radiograph import Radiograph

THUMBNAIL = 320
"""Longer side in pixels of the thumbnail on which collimation and prosthesis are found."""


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


def survey_of(radiograph: Radiograph) -> Survey:
    """Look over a radiograph once, small: what the collimator left open, and the prostheses."""
    # Padding is no part of the radiograph: with it or without, the same thumbnail is read.
    frame = _shown(radiograph)
    stride = max(1, max(frame.height, frame.width) // (2 * THUMBNAIL))
    sampled = (
        slice(frame.top + stride // 2, frame.bottom, stride),
        slice(frame.left + stride // 2, frame.right, stride),
    )
    grey = radiograph.grey_levels(*sampled)
    scale = min(1.0, THUMBNAIL / max(grey.shape))
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    thumbnail: NDArray[np.float32] = cv2.resize(  # type: ignore[assignment]
        grey, size, interpolation=cv2.INTER_AREA
    )
    valid = None
    if radiograph.valid is not None:
        shown = radiograph.valid[sampled].astype(np.float32)
        valid = cv2.resize(shown, size, interpolation=cv2.INTER_AREA) > 0.5
    field = find_collimation(thumbnail, valid)
    whole = Box(0, 0, *thumbnail.shape)
    down, across = frame.height / thumbnail.shape[0], frame.width / thumbnail.shape[1]
    return Survey(
        Box(
            round(field.top * down),
            round(field.left * across),
            round(field.bottom * down),
            round(field.right * across),
        ).shifted(frame.top, frame.left),
        field != whole,
        tuple(
            implant.scaled(down, across).shifted(frame.top, frame.left)
            for implant in find_implants(thumbnail, field)
        ),
    )


def _shown(radiograph: Radiograph) -> Box:
    """The smallest box around all valid pixels."""
    if radiograph.valid is None:
        return Box(0, 0, *radiograph.stored.shape)
    left, top, width, height = cv2.boundingRect(radiograph.valid.view(np.uint8))
    if width == 0:
        raise InputRefused(Reason.EMPTY_IMAGE, "The radiograph holds nothing but padding.")
    return Box(top, left, top + height, left + width)
