"""What a compressed image says of itself, read before a decoder takes memory for it.

The headers of JPEG (ITU-T T.81), JPEG-LS (T.87) and JPEG 2000 / HTJ2K (T.800, T.814) state the size
and depth of the image that a decoder will allocate. They are read here in a few lines each and
compared with the limits; streams that are cut short are refused, because several decoders fill what
is missing with grey and say nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from hipnet_edge.errors import InputRefused, Reason

JPEG_BASELINE, JPEG_EXTENDED, JPEG_PROGRESSIVE, JPEG_LOSSLESS, JPEG_LS = 0, 1, 2, 3, 0x37
"""Start-of-frame markers, less 0xC0."""

_MAX_JPEG_SCANS = 64
"""A grey radiograph needs one; a progressive stream of thousands only costs time."""
_MAX_TILES = 4_096
_MAX_PACKETS = 1_000_000
"""JPEG 2000: layers x precincts of a tile; decoders allocate for each."""
_MIN_CODE_BLOCK_EXPONENT = 8
"""JPEG 2000: code blocks of at least 16 x 16 (32 x 32 and 64 x 64 are what encoders write)."""


@dataclass(frozen=True)
class StreamHeader:
    """Size and depth that a compressed image declares; precision in bits a sample."""

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False


def _corrupt(detail: str) -> InputRefused:
    return InputRefused(Reason.CORRUPT_PIXELS, f"The compressed pixel data {detail}.")


def jpeg_header(data: bytes, frames: frozenset[int]) -> StreamHeader:
    """Read the header of a JPEG or JPEG-LS stream.

    Args:
        data: the stream, from its start-of-image marker.
        frames: the start-of-frame markers that are acceptable, less 0xC0.

    Raises:
        InputRefused: `CORRUPT_PIXELS`.
    """
    if data[:2] != b"\xff\xd8":
        raise _corrupt("is not a JPEG stream")
    if not data[-4096:].rstrip(b"\x00").endswith(b"\xff\xd9"):
        raise _corrupt("is cut short")
    # In entropy-coded data 0xFF is always followed by 0x00 or, in JPEG-LS, by less than 0x80.
    if _count_pairs(data, b"\xff\xda") > _MAX_JPEG_SCANS:
        raise _corrupt("has more scans than any radiograph")
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:  # fill
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        kind = marker - 0xC0
        if (0 <= kind <= 15 and kind not in (4, 8, 12)) or kind == JPEG_LS:
            if kind not in frames or length < 8 or position + 10 > len(data):
                break
            precision, rows, columns, components = struct.unpack_from(">BHHB", data, position + 4)
            return StreamHeader(rows, columns, components, precision)
        if length < 2 or marker == 0xDA:
            break
        position += 2 + length
    raise _corrupt("has no header that can be read")


def _count_pairs(data: bytes, pair: bytes) -> int:
    """How often two bytes follow each other; `bytes.count` takes ten times as long.

    A pair of equal bytes would be counted where it overlaps itself.
    """
    (word,) = struct.unpack("<H", pair)
    return sum(
        int(np.count_nonzero(np.frombuffer(data, "<u2", (len(data) - start) // 2, start) == word))
        for start in (0, 1)
    )


def jpeg2000_codestream(data: bytes) -> bytes:
    """The bare JPEG 2000 codestream, taken out of a JP2 wrapper where some writers leave one."""
    if not data.startswith(b"\x00\x00\x00\x0cjP  "):
        return data
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"jp2c":
            return data[position + (16 if length == 1 else 8) :]
        if length < 8:
            break
        position += length
    raise _corrupt("is a JP2 file without an image")


def jpeg2000_header(data: bytes) -> StreamHeader:
    """Read and check the headers of a JPEG 2000 or HTJ2K codestream (T.800 annex A).

    Tiles, precincts, layers and code blocks are bounded because decoders allocate for each of them;
    tile-parts are followed to the end to see that none is cut short.

    Raises:
        InputRefused: `CORRUPT_PIXELS`.
    """
    try:
        return _jpeg2000_header(data)
    except (struct.error, IndexError) as error:
        raise _corrupt("is cut short") from error


def _jpeg2000_header(data: bytes) -> StreamHeader:
    if data[:4] != b"\xff\x4f\xff\x51":
        raise _corrupt("is not a JPEG 2000 stream")
    (right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, components) = (
        struct.unpack_from(">8IH", data, 8)
    )
    depth, step_x, step_y = struct.unpack_from(">3B", data, 42)
    if not tile_width or not tile_height or (step_x, step_y) != (1, 1):
        raise _corrupt("has a layout that no radiograph has")
    header = StreamHeader(
        bottom - top, right - left, components, (depth & 0x7F) + 1, bool(depth & 0x80)
    )
    across = -(-(right - tile_left) // tile_width)
    down = -(-(bottom - tile_top) // tile_height)
    if header.rows <= 0 or header.columns <= 0 or not 0 < across * down <= _MAX_TILES:
        raise _corrupt("has more tiles than any radiograph")
    tile = (min(tile_width, header.columns), min(tile_height, header.rows))
    (length,) = struct.unpack_from(">H", data, 4)
    position = _walk_markers(data, 4 + length, tile, end=0x90)  # the first start of tile-part
    while True:
        marker = struct.unpack_from(">H", data, position)[0] if position < len(data) else 0xFFD9
        if marker != 0xFF90:
            break
        (part_length,) = struct.unpack_from(">I", data, position + 6)
        if part_length == 0:  # reaches to the end of the codestream
            if not data[-4096:].rstrip(b"\x00").endswith(b"\xff\xd9"):
                raise _corrupt("is cut short")
            part_length = len(data) - position
        if part_length < 14 or position + part_length > len(data):
            raise _corrupt("is cut short")
        _walk_markers(data, position + 12, tile, end=0x93)  # start of data
        position += part_length
    if marker != 0xFFD9 and data[position:].strip(b"\x00"):
        raise _corrupt("is damaged")
    return header


def _walk_markers(data: bytes, position: int, tile: tuple[int, int], end: int) -> int:
    """Check the coding styles in a main or tile-part header; the position of marker `end`."""
    while True:
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == 0xFF00 | end:
            return position
        if marker >> 8 != 0xFF or length < 2:
            raise _corrupt("has a damaged header")
        body = data[position + 4 : position + 2 + length]
        if marker == 0xFF52:  # COD: style, progression, layers, transform, then the parameters
            style, _, layers = struct.unpack_from(">BBH", body)
            _check_coding(body[5:], bool(style & 1), layers, tile)
        elif marker == 0xFF53:  # COC: component, style, then the parameters
            _check_coding(body[2:], bool(body[1] & 1), 1, tile)
        position += 2 + length


def _check_coding(body: bytes, precincts: bool, layers: int, tile: tuple[int, int]) -> None:
    levels, block_width, block_height = struct.unpack_from(">3B", body)
    # The exponents are stored less two.
    if levels > 32 or block_width + block_height + 4 < _MIN_CODE_BLOCK_EXPONENT:
        raise _corrupt("is cut into smaller blocks than any radiograph")
    packets = 0
    for level in range(levels + 1):
        exponents = body[5 + level] if precincts and 5 + level < len(body) else 0xFF
        shift = levels - level
        across = (tile[0] >> shift >> (exponents & 15)) + 2
        down = (tile[1] >> shift >> (exponents >> 4)) + 2
        packets += across * down * layers
    if packets > _MAX_PACKETS:
        raise _corrupt("is cut into more packets than any radiograph")
