"""Identifiers as pseudonyms: what a log, an audit record or the queue may say of a patient.

A pseudonym is a keyed hash (HMAC-SHA256): equal identifiers are seen to be equal, and nobody who
lacks the salt can try all patient numbers until one fits. The salt never leaves the device.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from hipnet_edge.errors import Fault

_SALT_BYTES = 32
_LENGTH = 16
"""Hex digits kept, 64 bits: no two of a cart's identifiers will share them by chance."""


class Pseudonyms:
    """Turns identifiers into pseudonyms with the salt of this device.

    Args:
        salt: the secret; at least 16 bytes.
    """

    def __init__(self, salt: bytes) -> None:
        if len(salt) < 16:
            raise Fault("The salt for pseudonyms is too short; restore or remove the file.")
        self._salt = salt

    @classmethod
    def load(cls, data: Path) -> Pseudonyms:
        """Read the salt of a data folder, made there durably if it is missing.

        Raises:
            Fault: the salt is damaged, or others than this user may read it.
            OSError: it cannot be read or written.
        """
        path = data / "salt"
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _write_new(path, secrets.token_bytes(_SALT_BYTES))
        if path.stat().st_mode & 0o077:
            raise Fault(f"{path} can be read by other users; chmod 600 mends that.")
        return cls(path.read_bytes())

    def __call__(self, identifier: str) -> str:
        """The pseudonym of an identifier: 16 hex digits, always the same on this device."""
        digest = hmac.new(self._salt, identifier.encode("utf-8", "surrogateescape"), hashlib.sha256)
        return digest.hexdigest()[:_LENGTH]

    def __repr__(self) -> str:
        return "Pseudonyms(...)"


def _write_new(path: Path, content: bytes) -> None:
    """Write a file for its user alone, whole and durable; who comes first wins."""
    part = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            return
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
