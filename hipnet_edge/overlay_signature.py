"""A site's signature under its overlay: Ed25519 (RFC 8032) over the overlay's digest.

Keys are PEM files as `openssl genpkey -algorithm ed25519` makes them. A private key is read where
it is used and never copied anywhere.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hipnet_edge.errors import MissingExtra, OverlayUnusable, Reason, UsageError

if TYPE_CHECKING:
    from types import ModuleType

    from hipnet_edge.fields import Fields

ALGORITHM = "Ed25519"
_PURPOSE = "hipnet_edge overlay "
"""Goes before the digest, so that no signature made for something else fits."""


def signed(digest: str, key: str | os.PathLike[str]) -> dict[str, str]:
    """The signature of an overlay with this digest, as it stands in the file.

    Raises:
        UsageError: the key cannot be read, or is no Ed25519 private key without a passphrase.
        MissingExtra: `cryptography` is not installed.
    """
    serialization, ed25519 = _cryptography()
    try:
        private = serialization.load_pem_private_key(_read(key), password=None)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{key} is no private key as PEM, or has a passphrase, which is not asked for here."
        ) from error
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{key} is a private key, but none for {ALGORITHM}.")
    signature = private.sign(_message(digest))
    return {"algorithm": ALGORITHM, "value": base64.b64encode(signature).decode("ascii")}


def check_signature(overlay: Fields, key: str | os.PathLike[str]) -> None:
    """Refuse an overlay (whose digest was verified) that the owner of the key has not signed.

    Raises:
        OverlayUnusable: OVERLAY_UNTRUSTED.
        UsageError: the key cannot be read, or is no Ed25519 public key.
        MissingExtra: `cryptography` is not installed.
    """
    serialization, ed25519 = _cryptography()
    from cryptography.exceptions import InvalidSignature

    try:
        public = serialization.load_pem_public_key(_read(key))
    except ValueError as error:
        raise UsageError(f"{key} is no public key as PEM.") from error
    if not isinstance(public, ed25519.Ed25519PublicKey):
        raise UsageError(f"{key} is a public key, but none for {ALGORITHM}.")
    if overlay.raw("signature") is None:
        raise OverlayUnusable("The overlay is not signed.", Reason.OVERLAY_UNTRUSTED)
    signature = overlay.child("signature")
    try:
        if signature.text("algorithm") != ALGORITHM:
            raise ValueError("another algorithm")
        value = base64.b64decode(signature.text("value"), validate=True)
        public.verify(value, _message(overlay.text("digest")))
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise OverlayUnusable(
            "The overlay's signature is not one by the given key.", Reason.OVERLAY_UNTRUSTED
        ) from error


def _message(digest: str) -> bytes:
    return (_PURPOSE + digest).encode("ascii")


def _read(key: str | os.PathLike[str]) -> bytes:
    try:
        return Path(key).read_bytes()
    except (OSError, ValueError) as error:
        raise UsageError(f"The key {key} cannot be read.") from error


def _cryptography() -> tuple[ModuleType, ModuleType]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtra("sign", "Signing an overlay, or checking its signature,") from error
    return serialization, ed25519
