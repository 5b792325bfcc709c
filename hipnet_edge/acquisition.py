"""How and when a radiograph was taken, and what its header warns of."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from hipnet_edge.dicom_reader import numbers, text
from hipnet_edge.errors import UsageError
from hipnet_edge.vocabulary import Flag

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SPACING_KEYWORDS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")

Spacing: TypeAlias = "float | Sequence[float]"
"""One distance in mm, or that of rows and that of columns."""


@dataclass(frozen=True)
class PixelSpacing:
    """Distance between pixel centres, in mm.

    Attributes:
        row_mm: between neighbouring rows.
        column_mm: between neighbouring columns.
        source: where it was read: "PixelSpacing" (may be calibrated to the patient),
            "ImagerPixelSpacing" (at the detector), "NominalScannedPixelSpacing" (of a film
            scanner) or "operator". They differ in meaning and are never put in each other's place.
    """

    row_mm: float
    column_mm: float
    source: str


def spacing_of(header: Dataset) -> PixelSpacing | None:
    """The first usable spacing that the header states; zeros, as some writers leave, are none."""
    for keyword in _SPACING_KEYWORDS:
        values = numbers(header, keyword)
        if len(values) == 2 and min(values) > 0:
            return PixelSpacing(values[0], values[1], keyword)
    return None


def stated_spacing(spacing_mm: Spacing) -> PixelSpacing:
    """The spacing that the operator states.

    Raises:
        UsageError: it is not one or two positive numbers.
    """
    try:
        values = [float(v) for v in spacing_mm] if isinstance(spacing_mm, Sequence) else []
        row, column = values or [float(spacing_mm)] * 2  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise UsageError("The pixel spacing is one number in mm, or two.") from error
    if not (math.isfinite(row) and math.isfinite(column) and row > 0 and column > 0):
        raise UsageError("The pixel spacing must be positive.")
    return PixelSpacing(row, column, "operator")


def acquired_at(header: Dataset) -> datetime | None:
    """When the image was taken, in the device's local time; None when the header does not say."""
    for stamp in (
        text(header, "AcquisitionDateTime"),
        text(header, "AcquisitionDate") + text(header, "AcquisitionTime"),
        text(header, "ContentDate") + text(header, "ContentTime"),
    ):
        # Two digits at least of the time: a date alone cannot order the images of a study.
        found = re.match(r"(\d{8})(\d{2})(\d{2})?(\d{2})?(\.\d{1,6})?", stamp)
        if found is None:
            continue
        date, hour, minute, second, fraction = found.groups()
        plain = f"{date}{hour}{minute or '00'}{second or '00'}{fraction or '.0'}"
        try:
            return datetime.strptime(plain, "%Y%m%d%H%M%S.%f")
        except ValueError:
            continue
    return None


def header_flags(header: Dataset, *, lossy: bool) -> tuple[Flag, ...]:
    """What the header says of burned-in text, compression and simulation.

    A radiograph says that it is simulated by Image Comments (0020,4000) or Derivation Description
    (0008,2111) beginning with "SIMULATED".
    """
    flags = []
    if text(header, "BurnedInAnnotation").upper() == "YES":
        flags.append(Flag.BURNED_IN_ANNOTATION)
    if lossy:
        flags.append(Flag.LOSSY_COMPRESSION)
    comments = (text(header, "ImageComments"), text(header, "DerivationDescription"))
    if any(comment.upper().startswith("SIMULATED") for comment in comments):
        flags.append(Flag.SIMULATED_INPUT)
    return tuple(flags)
