"""Encoded pixel data to stored values, in every transfer syntax that radiography uses.

The frame is decoded by imagecodecs straight from the encapsulated bytes, after the stream's own
header has been compared with the DICOM header.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge import codestreams, openjph
from hipnet_edge.codestreams import StreamHeader
from hipnet_edge.dicom_reader import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    DicomObject,
    integer,
    text,
)
from hipnet_edge.errors import InputRefused, Reason
from hipnet_edge.input_limits import check_image_size, refusing
from hipnet_edge.pixels import ReducedPixels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

NATIVE = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG})
RLE = "1.2.840.10008.1.2.5"
JPEG_FRAMES = {
    "1.2.840.10008.1.2.4.50": {codestreams.JPEG_BASELINE, codestreams.JPEG_EXTENDED},
    "1.2.840.10008.1.2.4.51": {codestreams.JPEG_BASELINE, codestreams.JPEG_EXTENDED},
    "1.2.840.10008.1.2.4.57": {codestreams.JPEG_LOSSLESS},
    "1.2.840.10008.1.2.4.70": {codestreams.JPEG_LOSSLESS},
}
"""JPEG baseline, extended, lossless (process 14) and lossless first-order: their frame markers."""
JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
JPEG_2000 = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"})
HTJ2K_LOSSLESS = frozenset({f"1.2.840.10008.1.2.4.{last}" for last in (201, 202)})
HTJ2K = HTJ2K_LOSSLESS | {"1.2.840.10008.1.2.4.203"}
TRANSFER_SYNTAXES = NATIVE | {RLE} | JPEG_FRAMES.keys() | JPEG_LS | JPEG_2000 | HTJ2K
"""All transfer syntaxes that can be read (PS3.5 annex A)."""

_ALWAYS_LOSSY = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
_MAYBE_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{last}" for last in (81, 91, 203))
_MAX_FRAGMENTS = 100_000

Stored = NDArray[Any]
"""Stored values [rows, columns]: uint8, uint16 or int16."""


@dataclass(frozen=True)
class PixelLayout:
    """How the header says that the pixels are stored."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def stored_dtype(self) -> type[np.uint8] | type[np.uint16] | type[np.int16]:
        """The type of the stored values, the same in every transfer syntax."""
        if self.signed:
            return np.int16
        return np.uint8 if self.bits_allocated == 8 else np.uint16

    @property
    def lowest(self) -> int:
        """The smallest stored value that the bits can hold."""
        return -(1 << (self.bits_stored - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """The largest stored value that the bits can hold."""
        return self.lowest + (1 << self.bits_stored) - 1


def read_layout(header: Dataset) -> PixelLayout:
    """Read the Image Pixel Module (PS3.3 C.7.6.3) and refuse what no radiograph has.

    Raises:
        InputRefused: `TOO_LARGE`, `TOO_SMALL` or `UNSUPPORTED_PIXELS`.
    """
    rows, columns = integer(header, "Rows", 0), integer(header, "Columns", 0)
    check_image_size(rows, columns)
    allocated = integer(header, "BitsAllocated", 0)
    stored = integer(header, "BitsStored", allocated)
    high_bit = integer(header, "HighBit", stored - 1)
    if allocated not in (8, 16) or not 1 < stored <= high_bit + 1 <= allocated:
        raise InputRefused(
            Reason.UNSUPPORTED_PIXELS, "The pixels are stored in a way that no radiograph uses."
        )
    signed = integer(header, "PixelRepresentation", 0) == 1
    return PixelLayout(rows, columns, allocated, stored, high_bit, signed)


def decode_pixels(dicom: DicomObject, layout: PixelLayout, *, threads: int = 1) -> Stored:
    """Decode the one frame to stored values, of the bits stored and sign extended.

    Args:
        dicom: the object.
        layout: how its header says that the pixels are stored.
        threads: how many may decode JPEG 2000 and HTJ2K; no other encoding lets several.

    Returns:
        uint8, uint16 or int16 [rows, columns], read-only.

    Raises:
        InputRefused: `UNSUPPORTED_TRANSFER_SYNTAX` or `CORRUPT_PIXELS`.
    """
    syntax = dicom.transfer_syntax
    if syntax not in TRANSFER_SYNTAXES or dicom.pixels is None:
        raise InputRefused(
            Reason.UNSUPPORTED_TRANSFER_SYNTAX,
            "The pixels are compressed in a way that is not supported for radiographs.",
        )
    with refusing(Reason.CORRUPT_PIXELS, "The pixel data is damaged and cannot be decoded."):
        if syntax in NATIVE:
            stored = _keep_stored_bits(_native(dicom, layout), layout, layout.high_bit)
        else:
            frame = _joined_fragments(dicom.pixels)
            if syntax == RLE:
                stored = _keep_stored_bits(_run_length(frame, layout), layout, layout.high_bit)
            else:
                stored = _compressed(frame, syntax, layout, threads)
    stored = np.ascontiguousarray(stored)
    stored.flags.writeable = False
    return stored


def reduced_pixels(
    dicom: DicomObject, layout: PixelLayout, *, threads: int = 1
) -> ReducedPixels | None:
    """The pixels of JPEG 2000 and HTJ2K, to be decoded in parts; None if only the whole will do.

    Raises:
        InputRefused: `CORRUPT_PIXELS`.
    """
    if dicom.transfer_syntax not in JPEG_2000 | HTJ2K or dicom.pixels is None:
        return None
    with refusing(Reason.CORRUPT_PIXELS, "The pixel data is damaged and cannot be decoded."):
        codestream = codestreams.jpeg2000_codestream(_joined_fragments(dicom.pixels))
        header = codestreams.jpeg2000_header(codestream)
        _check_stream(header, layout)
        if header.signed != layout.signed:
            return None
        return ReducedPixels.open(codestream, layout, threads=threads)


def encoded_sha256(dicom: DicomObject) -> str | None:
    """SHA-256 (hex) of a JPEG 2000 or HTJ2K stream; None in all other transfer syntaxes."""
    if dicom.transfer_syntax not in JPEG_2000 | HTJ2K or dicom.pixels is None:
        return None
    with refusing(Reason.CORRUPT_PIXELS, "The pixel data is damaged and cannot be decoded."):
        digest = hashlib.sha256()
        for fragment in _fragments(dicom.pixels):
            digest.update(fragment)
        return digest.hexdigest()


def is_lossy(dicom: DicomObject) -> bool:
    """Whether the pixels went through lossy compression, now or at any time before."""
    said = text(dicom.header, "LossyImageCompression")
    if said == "01" or dicom.transfer_syntax in _ALWAYS_LOSSY:
        return True
    return said != "00" and dicom.transfer_syntax in _MAYBE_LOSSY


def _native(dicom: DicomObject, layout: PixelLayout) -> Stored:
    """The values as they lie in an uncompressed file, unsigned."""
    count = layout.rows * layout.columns
    size = count * layout.bits_allocated // 8
    pixels = dicom.pixels
    # An odd length is padded to an even one (PS3.5 8.1.1).
    if pixels is None or dicom.declared_length not in (size, size + (size & 1)):
        raise InputRefused(
            Reason.CORRUPT_PIXELS, "The pixel data does not fit the size that the header declares."
        )
    if len(pixels) < size:
        raise InputRefused(Reason.CORRUPT_PIXELS, "The file is cut short.")
    if layout.bits_allocated == 16:
        values: Stored = np.frombuffer(pixels, "<u2" if dicom.little_endian else ">u2", count)
        values = values.astype(np.uint16, copy=False)
    else:
        values = np.frombuffer(pixels, np.uint8)
        if not dicom.little_endian and dicom.pixel_vr == "OW":
            # Two pixels share each big endian word, the first in its low byte (PS3.5 8.1.1).
            values = values[: len(values) // 2 * 2].reshape(-1, 2)[:, ::-1].reshape(-1)
        values = values[:count]
    return values.reshape(layout.rows, layout.columns)


def _joined_fragments(pixels: memoryview) -> bytes:
    """The one frame of encapsulated pixel data."""
    return b"".join(_fragments(pixels))


def _fragments(pixels: memoryview) -> list[memoryview]:
    """The one frame of encapsulated pixel data (PS3.5 A.4): all fragments after the offset table.

    As the object holds a single frame, its offset tables say nothing that matters.
    """
    fragments: list[memoryview] = []
    position = 0
    while position + 8 <= len(pixels):
        group, element, length = struct.unpack_from("<HHI", pixels, position)
        if (group, element) == (0xFFFE, 0xE0DD):
            break
        position += 8 + length
        if (group, element) != (0xFFFE, 0xE000) or position > len(pixels):
            raise InputRefused(Reason.CORRUPT_PIXELS, "The compressed pixel data is cut short.")
        fragments.append(pixels[position - length : position])
        if len(fragments) > _MAX_FRAGMENTS:
            raise InputRefused(Reason.CORRUPT_PIXELS, "The pixel data is cut into crumbs.")
    if len(fragments) < 2:
        raise InputRefused(Reason.CORRUPT_PIXELS, "The compressed pixel data is empty.")
    return fragments[1:]


def _run_length(frame: bytes, layout: PixelLayout) -> Stored:
    """RLE (PS3.5 annex G); the decoder refuses to write past the image."""
    import imagecodecs

    out = np.zeros(layout.rows * layout.columns * layout.bits_allocated // 8, np.uint8)
    dtype = np.uint8 if layout.bits_allocated == 8 else np.uint16
    if len(frame) < 64 or struct.unpack_from("<I", frame)[0] != dtype().itemsize:
        raise InputRefused(Reason.CORRUPT_PIXELS, "The compressed pixel data is damaged.")
    decoded = imagecodecs.dicomrle_decode(frame, dtype, out=out.data)
    if len(decoded) != len(out):
        raise InputRefused(Reason.CORRUPT_PIXELS, "The compressed pixel data is cut short.")
    return out.view(dtype).reshape(layout.rows, layout.columns)


def _compressed(frame: bytes, syntax: str, layout: PixelLayout, threads: int) -> Stored:
    """JPEG, JPEG-LS, JPEG 2000 and HTJ2K: check the stream's header, decode, fit the bits."""
    import imagecodecs

    decode: Callable[[bytes], Stored]
    if syntax in JPEG_2000 or syntax in HTJ2K:
        frame = codestreams.jpeg2000_codestream(frame)
        header = codestreams.jpeg2000_header(frame)
        decode = partial(imagecodecs.jpeg2k_decode, numthreads=threads)
    elif syntax in JPEG_LS:
        header = codestreams.jpeg_header(frame, frozenset({codestreams.JPEG_LS}))
        decode = imagecodecs.jpegls_decode
    else:
        header = codestreams.jpeg_header(frame, frozenset(JPEG_FRAMES[syntax]))
        decode = imagecodecs.jpeg8_decode
    _check_stream(header, layout)
    values: Stored | None = None
    if syntax in HTJ2K_LOSSLESS and codestreams.jpeg2000_coding(frame).plain:
        values = openjph.decode(frame, header, layout.highest)
    if values is None:
        values = decode(frame)
    if values.shape != (layout.rows, layout.columns) or values.dtype.kind not in "ui":
        raise InputRefused(
            Reason.CORRUPT_PIXELS, "The decoded image is not the one that the header declares."
        )
    if values.dtype.kind == "i":  # only JPEG 2000 streams carry a sign
        return np.clip(values, layout.lowest, layout.highest).astype(np.int16)
    if layout.signed:
        return _keep_stored_bits(values.astype(np.uint16), layout, layout.bits_stored - 1)
    # Lossy decoding can overshoot the bits stored; wrapping around would turn white to black.
    if values.dtype.itemsize * 8 > layout.bits_stored and values.max() > layout.highest:
        values = np.minimum(values, layout.highest)
    return values.astype(layout.stored_dtype, copy=False)


def _check_stream(header: StreamHeader, layout: PixelLayout) -> None:
    if (
        (header.rows, header.columns) != (layout.rows, layout.columns)
        or header.components != 1
        or not 1 < header.precision <= layout.bits_allocated
        or (header.signed and not layout.signed)
    ):
        raise InputRefused(
            Reason.CORRUPT_PIXELS, "The compressed image is not the one that the header declares."
        )


def _keep_stored_bits(values: Stored, layout: PixelLayout, high_bit: int) -> Stored:
    """Mask what lies outside the bits stored (old overlays) and extend the sign."""
    below = high_bit + 1 - layout.bits_stored
    if layout.signed:
        # To the top of the word and back: the arithmetic shift carries the sign down.
        words = values.astype(np.uint16, copy=False) << np.uint16(15 - high_bit)
        signed: NDArray[np.int16] = words.view(np.int16)
        signed >>= np.int16(16 - layout.bits_stored)
        return signed
    if below:
        values = values >> values.dtype.type(below)
    if values.dtype.itemsize * 8 > layout.bits_stored and values.max() > layout.highest:
        values = values & values.dtype.type(layout.highest)
    return values
