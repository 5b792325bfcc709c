"""The watch folder: files that somebody copies there are taken like images that were sent.

A file in the folder, or a sub-folder with all that is in it, is taken once nothing about it has
changed for a while. An image that was admitted is removed, since the store has it; what is refused
moves to `refused/` with a text file that names the reason. An image is removed only after it is
kept, and the same image twice is one image: a crash between any two steps loses nothing and
doubles nothing.

Symbolic links are neither taken nor followed, not even one that takes a folder's place while it is
being read: every step down is made from an open folder.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hipnet_edge.cart.admission import NO_SPACE, QUEUE_FULL, Admission
from hipnet_edge.cart.store import sync_folder
from hipnet_edge.errors import HipNetError, Reason

if TYPE_CHECKING:
    from hipnet_edge.cart.settings import Receive, Watch

logger = logging.getLogger(__name__)

REFUSED = "refused"
_MAX_FILES = 10_000
_CHUNK = 1 << 20
_MIB = 1024**2
_TRY_AGAIN_S = 30.0


@dataclass(frozen=True)
class _Seen:
    """A file as it was seen; equal as long as nobody writes to it."""

    parts: tuple[str, ...]
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, parts: tuple[str, ...], status: os.stat_result) -> _Seen:
        return cls(parts, status.st_ino, status.st_size, status.st_mtime_ns)


class _Later(Exception):
    """A file cannot be taken now; it stays where it is."""


class Watcher:
    """Takes what lies in the watch folder.

    Args:
        watch: the folder, made if it is missing, and how long a file must be quiet.
        receive: whose limit on the size of an image holds here too.
        admission: takes the images in.
        incoming: the folder of the store in which files are written before they are kept.
        clock: gives seconds that never jump.
    """

    def __init__(
        self,
        watch: Watch,
        receive: Receive,
        admission: Admission,
        incoming: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._quiet_s = watch.folder, watch.quiet_s
        self._max_bytes = receive.max_object_mib * _MIB
        self._admission, self._incoming, self._clock = admission, incoming, clock
        self._entries: dict[str, tuple[frozenset[_Seen], float]] = {}
        self._not_before: dict[str, float] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch-folder", daemon=True)

    def start(self) -> None:
        """Begin to watch.

        Raises:
            OSError: the folder cannot be made.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; returns when the file that is being taken is done."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = min(1.0, self._quiet_s / 2)
        while not self._closing.wait(pause):
            try:
                self.look()
            except Exception as error:  # noqa: PERF203 - a share that went away comes back
                logger.error("watch folder not read: %s", type(error).__name__)

    def look(self) -> None:
        """Look once: remember what changed, take what was quiet long enough.

        Raises:
            OSError: the folder cannot be read.
        """
        now = self._clock()
        found = self._found()
        self._entries = {
            name: (
                seen,
                before[1] if (before := self._entries.get(name)) and before[0] == seen else now,
            )
            for name, seen in found.items()
        }
        self._not_before = {n: t for n, t in self._not_before.items() if n in found}
        for name, (seen, since) in self._entries.items():
            due = max(since + self._quiet_s, self._not_before.get(name, now))
            if now < due or self._closing.is_set():
                continue
            try:
                for file in sorted(seen, key=lambda file: file.parts):
                    self._take(file)
            except (_Later, OSError, HipNetError) as error:
                logger.warning("watch folder: taken later: %s", type(error).__name__)
                self._not_before[name] = now + _TRY_AGAIN_S

    def _found(self) -> dict[str, frozenset[_Seen]]:
        """All regular files, by the entry of the watch folder in which they lie."""
        found: dict[str, set[_Seen]] = {}
        count = 0
        for root, folders, names, descriptor in os.fwalk(self._folder, follow_symlinks=False):
            parents = Path(root).relative_to(self._folder).parts
            folders[:] = [n for n in folders if not n.startswith(".") and (parents or n != REFUSED)]
            for name in names:
                if name.startswith("."):
                    continue
                try:
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                except FileNotFoundError:  # it was a part that has got its name just now
                    continue
                if not stat.S_ISREG(status.st_mode):
                    continue
                seen = _Seen.of((*parents, name), status)
                found.setdefault(seen.parts[0], set()).add(seen)
                count += 1
            if count > _MAX_FILES:  # the rest is found once these are taken
                break
        return {name: frozenset(files) for name, files in found.items()}

    def _take(self, file: _Seen) -> None:
        """Admit one file and remove it, or move it to `refused`."""
        with self._opened(file.parts[:-1]) as folder:
            reason = self._admit(file, folder)
            if _Seen.of(file.parts, _status(file, folder)) != file:
                raise _Later  # somebody writes it anew: it will be quiet again
            if reason is None:
                os.unlink(file.parts[-1], dir_fd=folder)
            else:
                self._put_aside(file, folder, reason)
        self._remove_empty(file.parts[:-1])

    def _admit(self, file: _Seen, folder: int) -> str | None:
        """Why a file is refused; None if it was admitted.

        Raises:
            _Later: it changes, or there is no room for it now.
        """
        if file.size > self._max_bytes:
            return self._refused(Reason.TOO_LARGE.value)
        copy = self._copy(file, folder)
        if isinstance(copy, str):
            return self._refused(copy)
        outcome = self._admission.admit(copy, source="watch")
        if outcome.reason in (NO_SPACE, QUEUE_FULL) and not outcome.accepted:
            raise _Later
        return None if outcome.accepted else outcome.reason

    def _refused(self, reason: str) -> str:
        self._admission.refusals.add("image_refused", reason, source="watch", always=True)
        return reason

    def _copy(self, file: _Seen, folder: int) -> Path | str:
        """A copy in the store's folder, or why there is none; only that one can be synced."""
        if self._admission.shortage() is not None:
            raise _Later
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        copy = self._incoming / f"{uuid.uuid4().hex}.part"
        try:
            with os.fdopen(os.open(file.parts[-1], flags, dir_fd=folder), "rb") as source:
                head = source.read(132)
                if head[128:] != b"DICM":
                    return Reason.NOT_DICOM.value
                with copy.open("xb") as target:
                    target.write(head)
                    while part := source.read(_CHUNK):
                        target.write(part)
                if _Seen.of(file.parts, os.fstat(source.fileno())) != file:
                    raise _Later
        except BaseException:
            copy.unlink(missing_ok=True)
            raise
        return copy

    def _put_aside(self, file: _Seen, folder: int, reason: str) -> None:
        """Move a file to `refused`, with its reason beside it; the reason comes first."""
        aside = self._folder / REFUSED
        aside.mkdir(mode=0o700, exist_ok=True)
        if aside.is_symlink():
            raise _Later
        name = file.parts[-1][:200]
        while (aside / name).exists() or (aside / name).is_symlink():
            name = f"{uuid.uuid4().hex[:8]}-{file.parts[-1]}"[:200]
        (aside / f"{name}.txt").write_text(f"{reason}\n", encoding="ascii")
        os.rename(file.parts[-1], aside / name, src_dir_fd=folder)
        sync_folder(aside)

    @contextmanager
    def _opened(self, parts: tuple[str, ...]) -> Iterator[int]:
        """A folder inside the watch folder, opened step by step."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        folder = os.open(self._folder, flags)
        try:
            for part in parts:
                inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    def _remove_empty(self, parts: tuple[str, ...]) -> None:
        """Remove the folders out of which everything was taken."""
        for depth in range(len(parts), 0, -1):
            with suppress(OSError), self._opened(parts[: depth - 1]) as folder:
                os.rmdir(parts[depth - 1], dir_fd=folder)


def _status(file: _Seen, folder: int) -> os.stat_result:
    return os.stat(file.parts[-1], dir_fd=folder, follow_symlinks=False)
