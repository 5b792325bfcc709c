"""Files kept durably, each named by what is in it.

What `ObjectStore.keep` has returned survives a power cut: the bytes are synced, then renamed into
place, then the folder that names them is synced. The name is the sha256 of the content, so the same
bytes twice are one file, a damaged file is noticed when it is read, and nothing that came from
outside ever becomes part of a path.

A file on its own means nothing here: the queue's rows say which are needed. Files are therefore
removed by `retention.sweep` alone, which asks the queue inside a transaction.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hipnet_edge.errors import Fault

_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}\.[a-z]{1,8}")
_CHUNK = 1 << 20


class StoreDamaged(Fault):
    """A kept file is missing, or its bytes are no longer those that were kept."""


@dataclass(frozen=True)
class StoredFile:
    """A file that is kept.

    Attributes:
        name: "ab/abcd….dcm", for `ObjectStore.read` and the queue's rows.
        sha256: of the whole file, in hexadecimal.
        size: in bytes.
    """

    name: str
    sha256: str
    size: int


class ObjectStore:
    """The folder of kept files.

    Args:
        root: made if missing, with a folder for each first byte of a digest.
        empty_incoming: remove what lies unfinished in `incoming` and was never acknowledged; not
            for a second process, beside a service that is receiving.

    Attributes:
        incoming: where a file is written before it is kept; on the same file system.
    """

    def __init__(self, root: Path, *, empty_incoming: bool = True) -> None:
        self.root = root
        self.incoming = root / "incoming"
        make_folder(root)
        for folder in (self.incoming, *(root / f"{first:02x}" for first in range(256))):
            folder.mkdir(mode=0o700, exist_ok=True)
        for left_over in self.incoming.iterdir() if empty_incoming else ():
            left_over.unlink()
        # Once for all of them: no later file depends on a folder that a power cut could take.
        sync_folder(root)

    def keep(self, content: bytes | Path, suffix: str = ".dcm") -> StoredFile:
        """Keep bytes, or a finished file in `incoming`, which is moved.

        Content that is kept already is written once more: that costs little, heals a damaged
        file, and makes it young again for the sweep.

        Raises:
            OSError: nothing was kept, and the file in `incoming` is gone.
        """
        if isinstance(content, Path) and content.parent != self.incoming:
            raise Fault("Only a file that was written in the store's own folder can be kept.")
        path = content if isinstance(content, Path) else self.incoming / uuid.uuid4().hex
        try:
            if isinstance(content, Path):
                digest = _sync(content)
            else:
                digest = hashlib.sha256(content).hexdigest()
                _write(path, content)
            size = path.stat().st_size
            name = f"{digest[:2]}/{digest}{suffix}"
            kept = self.path(name)
            path.replace(kept)
            sync_folder(kept.parent)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return StoredFile(name, digest, size)

    def path(self, name: str) -> Path:
        """Where a file of this name lies, whether it is there or not.

        Raises:
            StoreDamaged: this is not a name that `keep` gives.
        """
        if _NAME.fullmatch(name) is None:
            raise StoreDamaged("A kept file was asked for by a name that no kept file has.")
        return self.root / name

    def read(self, name: str) -> bytes:
        """The bytes of a kept file, as they were when it was kept.

        Raises:
            StoreDamaged: the file cannot be read, or is not what was kept.
        """
        path = self.path(name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreDamaged(f"The kept file {name} cannot be read.") from error
        if hashlib.sha256(content).hexdigest() != path.stem:
            raise StoreDamaged(f"The kept file {name} is damaged.")
        return content

    def remove(self, name: str) -> None:
        """Remove a file that no row of the queue names; for `retention.sweep`.

        Not synced: a file that comes back after a power cut is swept again.
        """
        self.path(name).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        """The names of all kept files, in no order."""
        for first in range(256):
            folder = f"{first:02x}"
            for entry in os.scandir(self.root / folder):
                name = f"{folder}/{entry.name}"
                if _NAME.fullmatch(name):
                    yield name

    def free_bytes(self) -> int:
        """What is free on the file system for this user."""
        return shutil.disk_usage(self.root).free


def make_folder(folder: Path) -> None:
    """Make a folder for this user alone, so that a power cut does not take it again."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    # A service's user may not read what its own folder lies in; then that was made by another.
    with suppress(PermissionError):
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a synced file is lost with a name that was not."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> str:
    """Make a written file durable; returns the sha256 of its content."""
    digest = hashlib.sha256()
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        os.utime(file.fileno())
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
