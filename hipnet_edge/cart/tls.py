"""TLS as DICOM asks for it: both sides show a certificate (PS3.15 B.9, B.10: TLS 1.2 and later)."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from hipnet_edge.errors import UsageError

if TYPE_CHECKING:
    from hipnet_edge.cart.settings import Tls


def server_context(tls: Tls) -> ssl.SSLContext:
    """For the receiver: who connects must show a certificate that `peer_ca` signed.

    Raises:
        UsageError: certificate, key or CA cannot be used.
    """
    return _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls)


def client_context(tls: Tls) -> ssl.SSLContext:
    """For deliveries: the PACS must show a certificate for its host that `peer_ca` signed.

    Raises:
        UsageError: certificate, key or CA cannot be used.
    """
    return _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), tls)


def _loaded(context: ssl.SSLContext, tls: Tls) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # TLS 1.2 with forward secrecy and authenticated encryption only (PS3.15 B.12 as BCP 195).
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM")
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"{tls.certificate} and {tls.key} are no certificate with its unencrypted key in PEM."
        ) from error
    try:
        context.load_verify_locations(tls.peer_ca)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"{tls.peer_ca} holds no CA certificate in PEM.") from error
    return context
