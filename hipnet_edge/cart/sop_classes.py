"""What the receiver offers in negotiation: SOP classes, and transfer syntaxes in its order.

`docs/conformance.md` states the same; a test compares the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hipnet_edge.pixel_data import TRANSFER_SYNTAXES

if TYPE_CHECKING:
    from hipnet_edge.cart.settings import Receive

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"
DIGITAL_XRAY_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

PREFERRED_SYNTAXES = (
    # As it is costs the least to read; then what loses nothing, the quickest decoder first.
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.201",  # HTJ2K Lossless Only
    "1.2.840.10008.1.2.4.202",  # HTJ2K Lossless RPCL
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless, process 14
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless Only
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian (retired)
    # What loses, or may: only from a sender that offers nothing else.
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.51",  # JPEG Extended, 12 bit
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline, 8 bit
)
"""Every transfer syntax that can be decoded, in the order in which one is chosen."""

assert set(PREFERRED_SYNTAXES) == TRANSFER_SYNTAXES

VERIFICATION_SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
"""Of Storage Commitment too."""


def storage_classes(receive: Receive) -> tuple[str, ...]:
    """The storage SOP classes that a configuration accepts.

    Digitised film has come as Computed Radiography and, from film scanners, as Secondary Capture
    (PS3.3 C.8.6.1, Conversion Type DF), both with modality RG: there is no class of its own.
    """
    captures = receive.secondary_capture or receive.scanned_film
    always = (COMPUTED_RADIOGRAPHY, DIGITAL_XRAY_FOR_PRESENTATION)
    return (*always, SECONDARY_CAPTURE) if captures else always
