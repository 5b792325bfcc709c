"""PNG, JPEG and TIFF radiographs: their headers are read first, then they are decoded.

An image file says nothing of view, side, spacing or meaning of its grey values: the operator does.
"""

from __future__ import annotations

import struct

import numpy as np

from hipnet_edge import codestreams
from hipnet_edge.errors import InputRefused, Reason
from hipnet_edge.input_limits import MAX_PIXELS, ByteSource, check_image_size, read_bytes, refusing
from hipnet_edge.pixel_data import Stored

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
"""Files read as plain images; everything else is read as DICOM, whatever its name."""
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}
_TIFF_COMPRESSIONS = frozenset((1, 5, 8, 32773, 32946))
"""None, LZW, deflate, PackBits, Adobe's deflate."""


def decode_image(source: ByteSource) -> tuple[Stored, bool]:
    """Decode an 8- or 16-bit grey image file.

    A colour file is accepted when its channels are equal, as in many exports of radiographs.

    Returns:
        the values, uint8 or uint16 [rows, columns], and whether the file says that 0 is white.

    Raises:
        InputRefused: `UNREADABLE_FILE`, `NOT_AN_IMAGE`, `TOO_LARGE`, `TOO_SMALL`,
            `UNSUPPORTED_PIXELS`, `MULTI_FRAME` or `CORRUPT_PIXELS`.
    """
    import imagecodecs

    data = read_bytes(source)
    with refusing(Reason.NOT_AN_IMAGE, "The image file is damaged and cannot be decoded."):
        white_is_zero = False
        if data.startswith(_PNG):
            _check_png(data)
            pixels = imagecodecs.png_decode(data)
        elif data.startswith(b"\xff\xd8"):
            _check_jpeg(data)
            pixels = imagecodecs.jpeg8_decode(data)
        elif data[:4] in (b"II*\0", b"MM\0*"):
            white_is_zero = _check_tiff(data)
            pixels = imagecodecs.tiff_decode(data)
        else:
            raise InputRefused(Reason.NOT_AN_IMAGE, "The file is not a PNG, JPEG or TIFF image.")
        return _one_channel(np.asarray(pixels)), white_is_zero


def _check_png(data: bytes) -> None:
    columns, rows, depth, _ = struct.unpack_from(">IIBB", data, 16)
    _check_depth(depth)
    check_image_size(rows, columns)


def _check_jpeg(data: bytes) -> None:
    frames = (codestreams.JPEG_BASELINE, codestreams.JPEG_EXTENDED, codestreams.JPEG_PROGRESSIVE)
    header = codestreams.jpeg_header(data, frozenset(frames))
    _check_depth(header.precision)
    check_image_size(header.rows, header.columns)


def _check_tiff(data: bytes) -> bool:
    """Check the first directory (TIFF 6.0 section 2); whether 0 is white."""
    order = "<" if data[:2] == b"II" else ">"
    (position,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, position)
    tags: dict[int, int] = {}
    for entry in range(position + 2, position + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", data, entry)
        letter = _TIFF_TYPES.get(kind)
        if letter is None or values == 0:
            continue
        at = entry + 8
        if values * struct.calcsize(letter) > 4:
            (at,) = struct.unpack_from(order + "I", data, at)
        (tags[tag],) = struct.unpack_from(order + letter, data, at)
    (following,) = struct.unpack_from(order + "I", data, position + 2 + 12 * count)
    if following:
        raise InputRefused(Reason.MULTI_FRAME, "The TIFF file holds more than one image.")
    check_image_size(tags.get(257, 0), tags.get(256, 0))
    _check_depth(tags.get(258, 1))
    tile = tags.get(322, 0) * tags.get(323, 0)
    if tags.get(259, 1) not in _TIFF_COMPRESSIONS or tags.get(339, 1) != 1 or tile > MAX_PIXELS:
        raise InputRefused(
            Reason.UNSUPPORTED_PIXELS, "The TIFF file is stored in a way that is not supported."
        )
    return tags.get(262) == 0


def _check_depth(bits: int) -> None:
    if bits not in (8, 16):
        raise InputRefused(
            Reason.UNSUPPORTED_PIXELS, "Image files are read with 8 or 16 bits a pixel."
        )


def _one_channel(pixels: Stored) -> Stored:
    """The grey values of a decoded image, whose colours are equal and whose alpha is opaque."""
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3):
        raise InputRefused(Reason.UNSUPPORTED_PIXELS, "The image is no grey 8- or 16-bit image.")
    if pixels.ndim == 2:
        return pixels
    channels = pixels.shape[2]
    if channels in (2, 4) and (pixels[..., -1] != np.iinfo(pixels.dtype).max).any():
        raise InputRefused(Reason.UNSUPPORTED_PIXELS, "The image is partly transparent.")
    grey = pixels[..., 0]
    colours = channels - (channels in (2, 4))
    if any((pixels[..., i] != grey).any() for i in range(1, colours)):
        raise InputRefused(Reason.UNSUPPORTED_PIXELS, "The image is in colour.")
    return np.ascontiguousarray(grey)
