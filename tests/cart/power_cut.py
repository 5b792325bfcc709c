"""A power cut for tests: a killed process also loses what it did not sync.

    power = PowerCut(data, tmp_path / "shadow")
    process = subprocess.Popen(command, env={**os.environ, **power.environment()})
    ...
    process.kill(); process.wait()
    power.cut()          # now `data` holds what a power cut would have left; start again

Every process that writes to the folder must run with that environment, and be dead when the power
is cut. What is in the folder at first, and what a cut has left, counts as durable. With a seed, any
part of what was not synced may survive too, as real disks write in any order: each changed name and
each changed block of 4 KiB is kept or lost by a coin.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

_BLOCK = 4096
_SOURCE = Path(__file__).with_name("lost_writes.c")

Entries = dict[str, tuple[str, bool]]
"""Of a directory: name -> (key, whether it is a directory)."""


@cache
def shim() -> Path:
    """The compiled lost_writes.c; skips the test where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler (cc) is not installed")
    library = Path(tempfile.mkdtemp(prefix="lost_writes")) / "lost_writes.so"
    command = [compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run([*command, "-o", str(library), str(_SOURCE)], check=True)
    return library


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory where there is one: nothing in these tests needs the disk to sync."""
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="power_cut", dir=in_memory) as folder:
        yield Path(folder)


class PowerCut:
    """Cuts the power of one folder.

    Args:
        root: the folder; made if missing.
        shadow: where the records of what is durable lie; on the same file system is fastest.
        seed: for parts of what was not synced to survive; None lets nothing of it survive.
    """

    def __init__(self, root: Path, shadow: Path, *, seed: int | None = None) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root, self.shadow = root.resolve(), shadow
        self._coins = None if seed is None else random.Random(seed)
        self._unchanged: dict[str, tuple[int, int]] = {}
        self._library = shim()
        for folder in (shadow / "files", shadow / "dirs"):
            folder.mkdir(parents=True)
        for path in (self.root, *self.root.rglob("*")):
            if path.is_dir():
                self._write_entries(_key(path), _entries(path))
            else:
                shutil.copyfile(path, self._record(_key(path)))

    def environment(self) -> dict[str, str]:
        """What to add to the environment of every process that writes to the folder."""
        others = os.environ.get("LD_PRELOAD")
        return {
            "LD_PRELOAD": f"{self._library}:{others}" if others else str(self._library),
            "LOST_WRITES_ROOT": str(self.root),
            "LOST_WRITES_SHADOW": str(self.shadow),
        }

    def cut(self) -> None:
        """Leave of the folder what a power cut would have left."""
        before = self.root.with_name(self.root.name + ".before-the-cut")
        self.root.rename(before)
        live: dict[str, Path] = {}
        for path in (before, *before.rglob("*")):
            live.setdefault(_key(path), path)
        kept: set[str] = set()
        listed = self._rebuild(_key(before), live, self.root, kept)
        for old in (*(self.shadow / "dirs").iterdir(), *(self.shadow / "files").iterdir()):
            if old.name not in kept:
                old.unlink()
        for key, entries in listed.items():
            self._write_entries(key, entries)
        shutil.rmtree(before)

    def _rebuild(
        self, key: str, live: dict[str, Path], to: Path, kept: set[str]
    ) -> dict[str, Entries]:
        """Make one folder anew; returns the entries of it and those in it, by their new keys."""
        to.mkdir(mode=0o700)
        listed: dict[str, Entries] = {}
        for name, (entry, is_folder) in sorted(self._survivors(key, live.get(key)).items()):
            if is_folder:
                listed.update(self._rebuild(entry, live, to / name, kept))
            else:
                self._restore_file(entry, live.get(entry), to / name, kept)
        listed[_key(to)] = _entries(to)
        return listed

    def _survivors(self, key: str, folder: Path | None) -> Entries:
        """The names that a folder has after the cut."""
        synced = self._read_entries(key)
        if self._coins is None or folder is None:
            return synced
        now = _entries(folder)
        chosen: Entries = {}
        for name in sorted(synced.keys() | now.keys()):
            state = (synced if self._coins.random() < 0.5 else now).get(name)
            if state is not None:
                chosen[name] = state
        return chosen

    def _restore_file(self, key: str, live: Path | None, to: Path, kept: set[str]) -> None:
        """Make one file, out of its own inode where that is still there."""
        if live is not None:
            os.link(live, to)
        if key in kept or (live is not None and self._unchanged.get(key) == self._state(key, to)):
            kept.add(key)
            return
        record = self._record(key)
        durable = record.read_bytes() if record.exists() else None
        content = durable or b""
        if live is not None:
            now = live.read_bytes()
            if self._coins is not None:
                content = _mixed(content, now, self._coins)
            if content != now:
                to.write_bytes(content)
        else:
            to.write_bytes(content)
            to.chmod(0o600)
            key, durable = _key(to), None
        if content != durable:
            self._record(key).write_bytes(content)
        self._unchanged[key] = self._state(key, to)
        kept.add(key)

    def _state(self, key: str, path: Path) -> tuple[int, int]:
        """Changes when a file or its record is written to; cuts find no process that writes."""
        record = self._record(key)
        return path.stat().st_mtime_ns, record.stat().st_mtime_ns if record.exists() else 0

    def _record(self, key: str) -> Path:
        return self.shadow / "files" / key

    def _write_entries(self, key: str, entries: Entries) -> None:
        lines = (f"{k} {'d' if d else 'f'} {name}\n" for name, (k, d) in entries.items())
        (self.shadow / "dirs" / key).write_text("".join(lines))

    def _read_entries(self, key: str) -> Entries:
        try:
            lines = (self.shadow / "dirs" / key).read_text().splitlines()
        except FileNotFoundError:
            return {}
        split = (line.split(" ", 2) for line in lines)
        return {name: (entry, kind == "d") for entry, kind, name in split}


def _entries(folder: Path) -> Entries:
    return {path.name: (_key(path), path.is_dir()) for path in folder.iterdir()}


def _key(path: Path) -> str:
    """Inode and time of birth, as lost_writes.c writes them."""
    key = ctypes.create_string_buffer(64)
    if not _loaded().lost_writes_key(os.fsencode(path), key, ctypes.c_size_t(64)):
        raise FileNotFoundError(path)
    return key.value.decode()


@cache
def _loaded() -> ctypes.CDLL:
    return ctypes.CDLL(str(shim()))


def _mixed(durable: bytes, now: bytes, coins: random.Random) -> bytes:
    """A file of which some changed blocks were written and some were not."""
    size = len(durable if coins.random() < 0.5 else now)
    content = bytearray()
    for at in range(0, size, _BLOCK):
        old, new = durable[at : at + _BLOCK], now[at : at + _BLOCK]
        block = old if old == new or coins.random() < 0.5 else new
        content += block.ljust(_BLOCK, b"\0")
    return bytes(content[:size])
