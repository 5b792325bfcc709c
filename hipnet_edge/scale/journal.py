"""What was answered, kept as it comes: a killed run goes on where it was.

A line of JSON for each study. It is handed to the system at once, so that a killed process loses
nothing, and forced to the disk every second, so that a power cut loses a second. A line that was
cut short is removed by the next run. In memory is only where each answer stands.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hipnet_edge.errors import Reason, UsageError
from hipnet_edge.scale.answers import Answer

SUFFIX = ".journal"
_SYNC_S = 1.0
_KIND = "hipnet_edge answers 1"
# They say something of the machine or the network, not of the study: worth another try.
_TRY_AGAIN = {Reason.WORKER_DIED.value, Reason.UNREADABLE_FILE.value}


class Journal:
    """The answers of one model, by the study's key.

    Args:
        path: of the file; made if missing.
        made_by: what the answers depend on; another run's must be the same.

    Raises:
        UsageError: it is another model's or no journal, another run writes it, or it cannot be
            written.
    """

    def __init__(self, path: Path, made_by: Mapping[str, object]) -> None:
        self._path = path
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error
        self._places: dict[str, int] = {}
        self._synced = time.monotonic()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(json.dumps({"kind": _KIND, **made_by}, sort_keys=True).encode() + b"\n")
        except BlockingIOError as error:
            self._file.close()
            raise UsageError(f"Another run is writing {path}; wait for its end.") from error
        except BaseException:
            self._file.close()
            raise

    def _read(self, header: bytes) -> None:
        """Find every whole line; take away what follows the last."""
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n") and header.startswith(first):  # new, or cut short at once
            self._file.truncate(0)
            self._file.write(header)
            self.sync()
            return
        if first != header:
            raise UsageError(
                f"{self._path} holds answers of another bundle, engine, precision or version: "
                "remove it, or name another output."
            )
        end = len(first)
        for line in self._file:
            if not line.endswith(b"\n"):
                self._file.truncate(end)
                break
            answer = json.loads(line)
            self._places[answer["key"]] = end
            if answer.get("code") in _TRY_AGAIN:
                del self._places[answer["key"]]
            end += len(line)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> dict[str, Any]:
        self._file.seek(self._places[key])
        answer: dict[str, Any] = json.loads(self._file.readline())
        return answer

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer."""
        line = json.dumps({"key": key, **answer}).encode() + b"\n"
        self._places[key] = self._file.seek(0, os.SEEK_END)
        self._file.write(line)
        self._file.flush()
        if time.monotonic() - self._synced >= _SYNC_S:
            self.sync()

    def sync(self) -> None:
        """Force to the disk what was kept."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Force to the disk, and let other runs write."""
        self.sync()
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
