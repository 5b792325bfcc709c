"""A folder, and files in it, that nobody but their user (and root) can change."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hipnet_edge.errors import EngineUnusable, Reason

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private(folder: Path) -> None:
    """Make a folder for its user alone, if it is missing.

    Raises:
        EngineUnusable: it cannot be made (PLAN_UNTRUSTED).
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineUnusable(
            f"The folder for plans, {folder}, cannot be made: {error.strerror or error}.",
            Reason.PLAN_UNTRUSTED,
        ) from error


def require_private(folder: Path) -> None:
    """Refuse a folder whose content another user could change or exchange.

    The folder must belong to this user and be writable for nobody else. Every folder above it
    must belong to this user or root; one that all may write (such as /tmp) must be sticky, or
    anybody could put another folder in the place of this one.

    Raises:
        EngineUnusable: PLAN_UNTRUSTED, with what is wrong and how to mend it.
    """
    try:
        real = folder.resolve(strict=True)
        own = real.stat()
        above = [(parent, parent.stat()) for parent in real.parents]
    except OSError as error:
        raise _untrusted(folder, f"cannot be examined ({error.strerror or error})") from error
    if not stat.S_ISDIR(own.st_mode):
        raise _untrusted(folder, "is no folder")
    if own.st_uid != os.geteuid():
        raise _untrusted(folder, "belongs to another user")
    if own.st_mode & _OTHERS_WRITE:
        raise _untrusted(folder, "can be written by others (chmod go-w mends that)")
    for parent, status in above:
        if status.st_uid not in (0, os.geteuid()):
            raise _untrusted(folder, f"lies in {parent}, which belongs to another user")
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            raise _untrusted(folder, f"lies in {parent}, which everybody can write")


def read_private(path: Path, limit: int) -> bytes:
    """The content of a regular file of this user that nobody else can write.

    Args:
        path: a file in a folder that `require_private` accepts.
        limit: how many bytes are read at most, and one more to show that there are more.

    Raises:
        FileNotFoundError: it is not there.
        EngineUnusable: PLAN_UNTRUSTED, it is a link, no regular file, or another user's.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _untrusted(path, f"cannot be opened ({error.strerror or error})") from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _untrusted(path, "is no regular file")
        if status.st_uid != os.geteuid():
            raise _untrusted(path, "belongs to another user")
        if status.st_mode & _OTHERS_WRITE:
            raise _untrusted(path, "can be written by others (chmod go-w mends that)")
        return file.read(limit + 1)


def _untrusted(path: Path, what: str) -> EngineUnusable:
    return EngineUnusable(
        f"{path} {what}; plans are code, and none is loaded from there.", Reason.PLAN_UNTRUSTED
    )
