"""What the latency is measured on: two simulated radiographs as complete DICOM files.

One study in every transfer syntax that a PACS sends; each file decodes to exactly the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import FileDataset

SYNTAXES = ("raw", "rle", "jpeg_lossless", "jpeg_ls", "j2k", "htj2k")
"""Uncompressed; RLE; JPEG lossless, first order; JPEG-LS; JPEG 2000 and HTJ2K, lossless."""


class Missing(Exception):
    """What this environment lacks to make an input, in words."""


@dataclass(frozen=True)
class PairOfViews:
    """The two radiographs of one simulated study, uncompressed.

    Attributes:
        ap: the AP view as a DX object, explicit little endian, 14 bits.
        lateral: the lateral view.
        seed: of the simulation.
    """

    ap: FileDataset
    lateral: FileDataset
    seed: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of each view."""
        return int(self.ap.Rows), int(self.ap.Columns)


def simulated_pair(shape: tuple[int, int] = (3000, 2500), seed: int = 0) -> PairOfViews:
    """Two simulated radiographs of one study, AP and lateral, of exactly rows x columns."""
    raise NotImplementedError


def encoded(pair: PairOfViews, syntax: str, cache: Path | None = None) -> tuple[bytes, bytes]:
    """Both views as complete DICOM files in a transfer syntax, AP first.

    Args:
        pair: the radiographs.
        syntax: one of `SYNTAXES`.
        cache: a folder that keeps the files from call to call; None to encode each time.

    Raises:
        Missing: there is no encoder for it here.
    """
    raise NotImplementedError
