"""Lossless HTJ2K by OpenJPH, in half of OpenJPEG's time, and only where its answer is sure.

imagecodecs loses OpenJPH's errors: the rows from the damaged one to the last stay as they were
allocated, at 0, and no exception comes. Values beyond the range wrap around. Both are made visible
here, and whatever is not sure is left to OpenJPEG, which refuses or clips.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.codestreams import StreamHeader

_PRECISION = 42
"""Where a codestream of one component says its bits a sample, and whether they are signed."""
_SIGNED = 0x80


def decode(codestream: bytes, header: StreamHeader, highest: int) -> NDArray[np.uint16] | None:
    """Decode a whole grey image.

    Args:
        codestream: of one component, reversible, checked by `codestreams.jpeg2000_header`.
        header: what it says of itself.
        highest: the largest value that a sound image holds.

    Returns:
        uint16 [rows, columns], all of them from 0 to `highest`; None where OpenJPEG must decode:
        the stream may be damaged, this imagecodecs has no OpenJPH, or the image is of 8 bits, of 16
        or signed.
    """
    if header.signed or header.precision <= 8 or highest >= 0xFFFF:
        return None
    import imagecodecs

    # Declared signed, an image comes without the offset that makes it unsigned (T.800 annex G.1):
    # its black is far below the 0 of rows that were never written.
    declared = bytearray(codestream)
    declared[_PRECISION] |= _SIGNED
    try:
        values = imagecodecs.htj2k_decode(declared)
    except Exception:  # which of many it is depends on imagecodecs' release and on the damage
        return None
    if values.shape != (header.rows, header.columns) or not values[-1].any():
        return None
    image: NDArray[np.uint16] = values.view(np.uint16)
    image += np.uint16(1 << (header.precision - 1))
    return image if image.max() <= highest else None
