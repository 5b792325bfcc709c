"""The sizes that no input may pass, and the reading of bytes within them.

Everything a file declares is compared with these limits before memory is taken for it, so that a
hostile header costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Union

from hipnet_edge.errors import HipNetError, InputRefused, Reason, UsageError

MAX_FILE_BYTES = 512 * 1024**2
"""The largest file that is read, and the largest data set that is inflated."""
MAX_SIDE = 12_000
"""The most rows or columns; a 43 x 43 cm detector at 0.04 mm has 10,750."""
MAX_PIXELS = 64_000_000
"""The most pixels of one radiograph."""
MIN_SIDE = 64
"""The fewest rows or columns that can show a hip."""

_PART_BYTES = 32 * 1024**2

ByteSource = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, BinaryIO]
"""Where a file's bytes come from: a path, the bytes, or an open binary file."""


@contextmanager
def refusing(code: Reason, message: str) -> Iterator[None]:
    """Turn whatever a library raises on bad bytes into `InputRefused`, the cause chained."""
    try:
        yield
    except HipNetError:
        raise
    except Exception as error:  # libraries raise nearly anything on bad bytes
        raise InputRefused(code, message) from error


def read_bytes(source: ByteSource) -> bytes:
    """The bytes of a file, read within `MAX_FILE_BYTES`.

    Raises:
        InputRefused: `UNREADABLE_FILE` or `TOO_LARGE`.
        UsageError: the source is none of the documented kinds.
    """
    if isinstance(source, (str, os.PathLike)):
        with refusing(Reason.UNREADABLE_FILE, "The file does not exist or cannot be opened."):
            path = Path(source)
            # A pipe or a device has no size to check and may never end.
            if not path.is_file():
                raise InputRefused(Reason.UNREADABLE_FILE, "There is no such regular file.")
            size = path.stat().st_size
            _check_file_size(size)
            with path.open("rb") as file:
                data = file.read(size)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        _check_file_size(memoryview(source).nbytes)
        data = bytes(source)
    elif hasattr(source, "read"):
        with refusing(Reason.UNREADABLE_FILE, "The open file cannot be read."):
            data = _read_file(source)
    else:
        raise UsageError("A radiograph is read from a path, from bytes or from a binary file.")
    return data


def _read_file(file: BinaryIO) -> bytes:
    """All of an open file, in parts, as a single read of the limit would allocate the limit."""
    parts: list[bytes] = []
    size = 0
    while part := file.read(_PART_BYTES):
        if not isinstance(part, bytes):
            raise UsageError("A radiograph's file must be opened in binary mode.")
        parts.append(part)
        size += len(part)
        _check_file_size(size)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_file_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise InputRefused(
            Reason.TOO_LARGE, f"The file is larger than {MAX_FILE_BYTES // 1024**2} MiB."
        )


def check_image_size(rows: int, columns: int) -> None:
    """Refuse an image whose declared size is beyond the limits.

    Raises:
        InputRefused: `TOO_LARGE` or `TOO_SMALL`.
    """
    if max(rows, columns) > MAX_SIDE or rows * columns > MAX_PIXELS:
        raise InputRefused(
            Reason.TOO_LARGE,
            f"The image declares {rows} x {columns} pixels; "
            f"at most {MAX_SIDE} a side and {MAX_PIXELS // 10**6} million are read.",
        )
    if min(rows, columns) < MIN_SIDE:
        raise InputRefused(
            Reason.TOO_SMALL,
            f"The image declares {rows} x {columns} pixels; at least {MIN_SIDE} a side are needed.",
        )
