"""RLE Lossless (PS3.5 annex G), the one compression that every reader of DICOM undoes.

Each row is encoded by itself, as the annex asks.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_LONGEST_RUN = 128


def rle_frame(segments: Sequence[bytes]) -> bytes:
    """One frame from its encoded planes: header and segments, each of even length."""
    padded = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    offsets, start = [], 64
    for segment in padded:
        offsets.append(start)
        start += len(segment)
    header = struct.pack("<16I", len(padded), *offsets, *[0] * (15 - len(padded)))
    return b"".join([header, *padded])


def pack_picture(picture: NDArray[np.uint8]) -> bytes:
    """A frame [rows, columns, 3] of a picture, plane by plane."""
    import imagecodecs

    return rle_frame(
        [
            bytes(imagecodecs.packbits_encode(picture[..., plane].copy(), axis=-1))
            for plane in range(picture.shape[2])
        ]
    )


def pack_part(part: NDArray[np.uint8], at: tuple[int, int], shape: tuple[int, int]) -> bytes:
    """A frame that is 0 but for one part of it; only what is not 0 costs time.

    Every run is written as a run, those of one pixel too: a map has hardly any of them, and so it
    takes a tenth of the time that looking for literal stretches takes.

    Args:
        part: uint8 [height, width].
        at: row and column of its first pixel.
        shape: rows and columns of the frame.
    """
    rows, columns = shape
    empty = _runs(np.zeros((1, 1), np.uint8), 0, columns - 1)
    x, y, width, height = cv2.boundingRect(part)
    if not width:
        return rle_frame([empty * rows])
    top, left = at[0] + y, at[1] + x
    drawn = _runs(part[y : y + height, x : x + width], left, columns - left - width)
    return rle_frame([b"".join([empty * top, drawn, empty * (rows - top - height)])])


def _runs(part: NDArray[np.uint8], left: int, right: int) -> bytes:
    """The rows of a part with so many zeros left and right of it, run by run."""
    height, width = part.shape
    before, after = min(left, 1), min(right, 1)
    pixels = np.zeros((height, before + width + after), np.uint8)
    pixels[:, before : before + width] = part
    flat = pixels.reshape(-1)
    begins = np.empty(flat.size, np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[:: pixels.shape[1]] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=flat.size)
    # One zero stands for all at either end of a row.
    first = np.flatnonzero(starts % pixels.shape[1] == 0)
    lengths[first] += left - before
    lengths[np.append(first[1:], starts.size) - 1] += right - after
    pieces = -(-lengths // _LONGEST_RUN)
    counts = np.full(pieces.sum(), _LONGEST_RUN, np.int16)
    counts[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * _LONGEST_RUN
    packets = np.empty((counts.size, 2), np.uint8)
    # A header of 0 is one literal byte, one of 257 - n is a run of n.
    packets[:, 0] = np.where(counts == 1, 0, 257 - counts)
    packets[:, 1] = np.repeat(flat[starts], pieces)
    return packets.tobytes()
