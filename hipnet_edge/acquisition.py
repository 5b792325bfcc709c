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


@dataclass(frozen=True)
class Exposure:
    """What the detector says of its exposure (IEC 62494-1).

    Attributes:
        index: Exposure Index (0018,1411).
        target: Target Exposure Index (0018,1412).
        deviation: Deviation Index (0018,1413): 0 as aimed at, 3 is twice as much, -3 half.
    """

    index: float | None
    target: float | None
    deviation: float | None


def exposure_of(header: Dataset) -> Exposure | None:
    """What the header says of the exposure; None where it says nothing."""
    index, target, deviation = (
        _number_or_none(header, keyword)
        for keyword in ("ExposureIndex", "TargetExposureIndex", "DeviationIndex")
    )
    # An index is a dose and cannot be negative; 0 is what writers put where they know none.
    index = index if index is not None and index > 0 else None
    target = target if target is not None and target > 0 else None
    if index is None and target is None and deviation is None:
        return None
    return Exposure(index, target, deviation)


def _number_or_none(header: Dataset, keyword: str) -> float | None:
    """A number that no answer depends on: what is wrong with it refuses no radiograph."""
    try:
        values = numbers(header, keyword)
    except Exception:  # libraries raise nearly anything on bad bytes
        return None
    return values[0] if len(values) == 1 else None


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
