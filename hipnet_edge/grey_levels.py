"""Stored values to grey levels: one look-up table, and where the radiograph's own pixels are.

Modality LUT, VOI LUT and polarity (PS3.3 C.11.1, C.11.2, C.11.6) act on each pixel alone, so they
compose into one table over all stored values that the bits allow. Grey levels are in [0, 1] and
bright is dense: bone and metal are white whatever the photometric interpretation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.dicom_reader import integer, items, numbers, text
from hipnet_edge.errors import InputRefused, Reason
from hipnet_edge.pixel_data import PixelLayout, Stored

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_GRID = 2.0**20
"""Grey levels lie on a grid that float32 holds exactly, so that 1 - x is exact too and the same
scene stored in either polarity gives the same bits."""


@dataclass(frozen=True)
class GreyTable:
    """The grey level of every stored value.

    Attributes:
        levels: float32 [n], in [0, 1], bright is dense, read-only; `levels[i]` is the grey level
            of stored value `first + i`.
        first: the stored value that the table begins with; negative for signed pixels.
        voi: which value of interest was used: "VOILUTSequence[0]", "Window[0] LINEAR" and the
            like, or "none: range of the pixels".
    """

    levels: NDArray[np.float32]
    first: int
    voi: str

    def apply(self, stored: Stored) -> NDArray[np.float32]:
        """The grey levels of stored values [rows, columns]: float32 of the same shape."""
        if stored.dtype.itemsize == 1 or stored.size == 0 or not _opencv_looks_up_words():
            return self._by_word.take(stored, mode="wrap")  # a negative value counts from the end
        import cv2

        levels: NDArray[np.float32] = cv2.LUT(  # type: ignore[assignment]
            stored.view(np.uint16), self._by_word
        )
        return levels

    @cached_property
    def _by_word(self) -> NDArray[np.float32]:
        """float32 [65536]: the levels by the 16 bits that a stored value is held in."""
        table = np.zeros(1 << 16, np.float32)
        table[(self.first + np.arange(len(self.levels))) & 0xFFFF] = self.levels
        return table


@cache
def _opencv_looks_up_words() -> bool:
    """Whether `cv2.LUT` takes tables of 16-bit values (OpenCV 5): half the time of NumPy's."""
    import cv2

    try:
        cv2.LUT(np.zeros((1, 1), np.uint16), np.zeros(1 << 16, np.float32))
    except cv2.error:
        return False
    return True


def table_from_header(
    header: Dataset, layout: PixelLayout, pixel_range: tuple[int, int], *, little_endian: bool
) -> GreyTable:
    """Compose modality LUT, VOI LUT and polarity as the header states them.

    Args:
        header: the object's attributes.
        layout: how the pixels are stored.
        pixel_range: the smallest and largest stored value of the valid pixels; without a value
            of interest their grey levels span [0, 1].
        little_endian: byte order of look-up tables stored as words.

    Raises:
        InputRefused: `CORRUPT_PIXELS` when a look-up table or a rescale cannot be used.
    """
    stored = np.arange(layout.lowest, layout.highest + 1, dtype=np.float64)
    outputs = _modality(header, stored, little_endian)
    lut = items(header, "VOILUTSequence")
    if lut:
        levels, voi = _look_up(lut[0], outputs, little_endian)[0], "VOILUTSequence[0]"
    else:
        windowed = _window(header, outputs)
        if windowed is None:
            low, high = (value - layout.lowest for value in pixel_range)
            levels, voi = _stretch(outputs, low, high), "none: range of the pixels"
        else:
            levels, voi = windowed
    shape = text(header, "PresentationLUTShape").upper()
    inverse = shape == "INVERSE"
    if shape not in ("INVERSE", "IDENTITY"):
        inverse = text(header, "PhotometricInterpretation").upper() == "MONOCHROME1"
    return _finish(levels, layout.lowest, voi, inverse)


def table_for_range(
    pixel_range: tuple[int, int], dtype: np.dtype[Any], *, inverted: bool
) -> GreyTable:
    """The table of an image that says nothing of its grey levels: its range of values spans [0, 1].

    Args:
        pixel_range: the smallest and largest value.
        dtype: uint8, uint16 or int16.
        inverted: bright is not dense: the image is shown like MONOCHROME1.
    """
    limits = np.iinfo(dtype)
    stored = np.arange(limits.min, limits.max + 1, dtype=np.float64)
    low, high = (value - int(limits.min) for value in pixel_range)
    levels = _stretch(stored, low, high)
    return _finish(levels, int(limits.min), "none: range of the pixels", inverted)


def _finish(levels: NDArray[np.float64], first: int, voi: str, inverse: bool) -> GreyTable:
    levels = np.rint(np.clip(levels, 0.0, 1.0) * _GRID) / _GRID
    table = (1.0 - levels if inverse else levels).astype(np.float32)
    table.flags.writeable = False
    return GreyTable(table, first, voi)


def _stretch(outputs: NDArray[np.float64], low: int, high: int) -> NDArray[np.float64]:
    """Outputs so scaled that those of entries low to high span [0, 1]."""
    part = outputs[low : high + 1]
    minimum, maximum = part.min(), part.max()
    scaled: NDArray[np.float64] = (outputs - minimum) / max(maximum - minimum, 1e-12)
    return scaled


def _modality(
    header: Dataset, stored: NDArray[np.float64], little_endian: bool
) -> NDArray[np.float64]:
    """Modality LUT or rescale (PS3.3 C.11.1); outputs in modality units."""
    lut = items(header, "ModalityLUTSequence")
    if lut:
        fractions, top = _look_up(lut[0], stored, little_endian)
        return fractions * top
    slope = (numbers(header, "RescaleSlope") or (1.0,))[0]
    intercept = (numbers(header, "RescaleIntercept") or (0.0,))[0]
    if slope == 0:
        raise InputRefused(Reason.CORRUPT_PIXELS, "The header rescales every pixel to one value.")
    return stored * slope + intercept


def _look_up(
    item: Dataset, inputs: NDArray[np.float64], little_endian: bool
) -> tuple[NDArray[np.float64], int]:
    """One look-up table (PS3.3 C.11.1.1.1, C.11.2.1.1) applied to inputs.

    Returns:
        its outputs as fractions of the largest that its bits allow, and that largest.
    """
    descriptor = _whole_numbers(item, "LUTDescriptor", little_endian)
    if len(descriptor) != 3:
        raise InputRefused(Reason.CORRUPT_PIXELS, "A look-up table in the header is damaged.")
    entries, first, bits = (int(value) for value in descriptor)
    entries = entries or 65536  # 65536 does not fit the attribute (PS3.3 C.11.1.1.1)
    if first > 0x7FFF and inputs.min() < 0:
        first -= 0x10000  # stored as unsigned although the inputs are signed
    data = _whole_numbers(item, "LUTData", little_endian, packed=entries if bits <= 8 else 0)
    if not 8 <= bits <= 16 or len(data) < entries:
        raise InputRefused(Reason.CORRUPT_PIXELS, "A look-up table in the header is damaged.")
    data = data[:entries] & 0xFFFF
    # Some tables hold more bits than they declare.
    top = (1 << max(bits, int(data.max()).bit_length())) - 1
    index = np.clip(np.rint(inputs) - first, 0, entries - 1).astype(np.intp)
    return data[index] / top, top


def _whole_numbers(
    item: Dataset, keyword: str, little_endian: bool, packed: int = 0
) -> NDArray[np.int64]:
    """Values of US, SS or OW; `packed` is the number of entries if two may share a word."""
    value = item.get(keyword)
    if isinstance(value, (bytes, bytearray)):
        if packed and len(value) < 2 * packed:
            return np.frombuffer(value, np.uint8).astype(np.int64)
        words = np.frombuffer(value, "<u2" if little_endian else ">u2", len(value) // 2)
        return words.astype(np.int64)
    return np.asarray([] if value is None else value, np.int64).reshape(-1)


def _window(
    header: Dataset, outputs: NDArray[np.float64]
) -> tuple[NDArray[np.float64], str] | None:
    """The first window (PS3.3 C.11.2.1.2); None when there is none that can be used."""
    centers, widths = numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    if not centers or not widths:
        return None
    center, width = centers[0], widths[0]
    function = text(header, "VOILUTFunction").upper() or "LINEAR"
    if function == "SIGMOID" and width > 0:
        exponent = np.clip(-4.0 * (outputs - center) / width, -700.0, 700.0)
        return 1.0 / (1.0 + np.exp(exponent)), "Window[0] SIGMOID"
    if function == "LINEAR_EXACT" and width > 0:
        return (outputs - center) / width + 0.5, "Window[0] LINEAR_EXACT"
    if function == "LINEAR" and width >= 1:
        if width == 1:
            return (outputs > center - 0.5).astype(np.float64), "Window[0] LINEAR"
        return (outputs - (center - 0.5)) / (width - 1) + 0.5, "Window[0] LINEAR"
    return None


def valid_pixels(header: Dataset, stored: Stored) -> NDArray[np.bool_] | None:
    """Where the radiograph's own pixels are: not padding, and inside the display shutter.

    Padding (PS3.3 C.7.5.1.1.2) is found in the stored values, before any look-up table.

    Returns:
        bool [rows, columns], read-only; None when every pixel is valid.

    Raises:
        InputRefused: `EMPTY_IMAGE` when no pixel is.
    """
    valid: NDArray[np.bool_] | None = None
    padding = integer(header, "PixelPaddingValue", -1)
    if numbers(header, "PixelPaddingValue"):
        limit = integer(header, "PixelPaddingRangeLimit", padding)
        low, high = sorted(_as_stored(value, stored.dtype) for value in (padding, limit))
        valid = stored != low if low == high else (stored < low) | (stored > high)
        if valid.all():
            valid = None
    for shape in text(header, "ShutterShape").upper().split("\\"):
        opening = _shutter_opening(header, shape, *stored.shape)
        if opening is not None:
            valid = opening if valid is None else valid & opening
    if valid is not None:
        if not valid.any():
            raise InputRefused(Reason.EMPTY_IMAGE, "Every pixel is padding or behind a shutter.")
        valid.flags.writeable = False
    return valid


def _as_stored(value: int, dtype: np.dtype[Any]) -> int:
    """A padding value in the sign of the pixels; writers confuse US and SS."""
    word = value & 0xFFFF
    return word - 0x10000 if dtype == np.int16 and word > 0x7FFF else word


def _shutter_opening(
    header: Dataset, shape: str, rows: int, columns: int
) -> NDArray[np.bool_] | None:
    """The pixels a display shutter leaves visible (PS3.3 C.7.6.11); None if it hides nothing.

    A shutter that is described incompletely hides nothing.
    """
    row = np.arange(1, rows + 1)[:, None]  # shutters count rows and columns from 1
    column = np.arange(1, columns + 1)[None, :]
    if shape == "RECTANGULAR":
        left, right, upper, lower = (
            integer(header, f"Shutter{edge}Edge", 0)
            for edge in ("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal")
        )
        if right <= left or lower <= upper:
            return None
        return (row >= upper) & (row <= lower) & ((column >= left) & (column <= right))
    if shape == "CIRCULAR":
        center = numbers(header, "CenterOfCircularShutter")
        radius = numbers(header, "RadiusOfCircularShutter")
        if len(center) != 2 or len(radius) != 1 or radius[0] <= 0:
            return None
        # Half a chord for every row: no integer grid as large as the image is needed.
        squared = radius[0] ** 2 - (row - center[0]) ** 2
        half = np.where(squared >= 0, np.sqrt(np.maximum(squared, 0)), -1.0)
        # Whole numbers say the same as fractions, and compare many times as fast.
        first, last = np.ceil(center[1] - half), np.floor(center[1] + half)
        first, last = (np.clip(end, 0, columns + 1).astype(np.int16) for end in (first, last))
        column = column.astype(np.int16)
        return (column >= first) & (column <= last)
    if shape == "POLYGONAL":
        return _polygon(numbers(header, "VerticesOfThePolygonalShutter"), rows, columns)
    return None


def _polygon(vertices: tuple[float, ...], rows: int, columns: int) -> NDArray[np.bool_] | None:
    import cv2

    if len(vertices) < 6 or len(vertices) % 2:
        return None
    points = np.asarray(vertices).reshape(-1, 2)[:, ::-1] - 1  # (row, column) to (x, y)
    limit = 4 * max(rows, columns)
    mask = np.zeros((rows, columns), np.uint8)
    corners = np.clip(np.rint(points), -limit, limit).astype(np.int32)
    cv2.fillPoly(mask, [corners], (1,))
    return mask.view(np.bool_)
