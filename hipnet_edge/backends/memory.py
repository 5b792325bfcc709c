"""Memory that loading an engine leaves behind."""

from __future__ import annotations

import ctypes


def return_freed_memory() -> None:
    """Give back to the operating system what was freed; glibc keeps it for later otherwise.

    An engine reads, transforms and packs a network before it runs it: some 15 MB of that stay with
    the process for good, and hundreds where several engines were loaded to be compared. Where the
    C library is another, nothing happens.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
