"""What the latency is measured on: two simulated radiographs as complete DICOM files.

One study in every transfer syntax that a PACS sends; each file decodes to exactly the same pixels.
"""

from __future__ import annotations

import copy
import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from hipnet_edge.radiograph import Radiograph
from hipnet_edge.simulation import SimulatedView, simulate_study
from hipnet_edge.simulation.radiography import FILM_MM, STORED_BITS
from hipnet_edge.vocabulary import Cause

SYNTAXES = ("raw", "rle", "jpeg_lossless", "jpeg_ls", "j2k", "htj2k")
"""Uncompressed; RLE; JPEG lossless, first order; JPEG-LS; JPEG 2000 and HTJ2K, lossless."""
SEED = 5
"""A digital AP and cross-table lateral that fill the frame: much to decode, as in most studies."""
CUT = 0.1
"""At most this part of a simulated film's height or width is cut away; what is short is padded."""

Pixels = NDArray[np.uint16]


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


def simulated_pair(shape: tuple[int, int] = (3000, 2500), seed: int = SEED) -> PairOfViews:
    """Two simulated radiographs of one study with an infected prosthesis, AP and lateral.

    The film is rendered at the pixel spacing at which it has about that size, then cut, or padded
    with what a closed collimator leaves: pixels are never resampled.

    Args:
        shape: rows and columns of each view, exactly.
        seed: of the simulation.

    Raises:
        ValueError: that seed's AP is a film of the whole pelvis, which has another shape.
    """
    film = FILM_MM["hip"]
    sides = [length / pixels for length, pixels in zip(film, shape, strict=True)]
    # Where the shapes differ: as fine as nothing is padded, but no finer than so much is cut.
    spacing = max(min(sides), (1.0 - CUT) * max(sides))
    study = simulate_study(Cause.PJI, seed, pixel_spacing_mm=spacing)
    if study.ap.projection != "ap":
        raise ValueError(f"seed {seed} is a film of the whole pelvis; take another")
    ap, lateral = (_framed(view, shape).to_dataset() for view in (study.ap, study.lateral))
    return PairOfViews(ap, lateral, seed)


def _framed(view: SimulatedView, shape: tuple[int, int]) -> SimulatedView:
    """The view cut or padded to a shape, from its middle."""
    stored = view.stored
    for axis, wanted in enumerate(shape):
        surplus = stored.shape[axis] - wanted
        if surplus > 0:
            stored = stored.take(range(surplus // 2, surplus // 2 + wanted), axis)
        else:
            margins = [(0, 0), (0, 0)]
            margins[axis] = (-surplus // 2, -surplus - -surplus // 2)
            stored = np.pad(stored, margins)
    return replace(view, stored=np.ascontiguousarray(stored), mask=np.zeros(shape, np.bool_))


def _run_length(pixels: Pixels) -> bytes:
    """RLE by pydicom: imagecodecs only decodes it."""
    rows, columns = pixels.shape
    stream = get_encoder(RLELossless).encode(
        pixels,
        rows=rows,
        columns=columns,
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=16,
        bits_stored=STORED_BITS,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
    )
    return bytes(stream)


_ENCODERS: dict[str, tuple[UID, Callable[[Pixels], bytes | bytearray]]] = {
    "rle": (RLELossless, _run_length),
    "jpeg_lossless": (
        JPEGLosslessSV1,
        lambda a: imagecodecs.jpeg8_encode(
            a, lossless=True, predictor=1, bitspersample=STORED_BITS
        ),
    ),
    "jpeg_ls": (JPEGLSLossless, imagecodecs.jpegls_encode),
    # One tile, one layer, five levels, code blocks of 64 x 64, progression LRCP: as PACS write it.
    "j2k": (
        JPEG2000Lossless,
        lambda a: imagecodecs.jpeg2k_encode(
            a, level=0, codecformat="j2k", reversible=True, resolutions=6, bitspersample=STORED_BITS
        ),
    ),
    "htj2k": (HTJ2KLossless, lambda a: imagecodecs.htj2k_encode(a, reversible=True)),
}


def encoded(pair: PairOfViews, syntax: str, cache: Path | None = None) -> tuple[bytes, bytes]:
    """Both views as complete DICOM files in a transfer syntax, AP first.

    Args:
        pair: the radiographs.
        syntax: one of `SYNTAXES`.
        cache: a folder that keeps the files from call to call; None to encode each time.

    Raises:
        Missing: there is no encoder for it here.
        ValueError: what was written does not decode to the same pixels.
    """
    return _encoded(pair.ap, syntax, cache), _encoded(pair.lateral, syntax, cache)


def _encoded(view: FileDataset, syntax: str, cache: Path | None) -> bytes:
    kept = None
    if cache is not None:
        # The pixels name the file: another simulation writes another one.
        digest = hashlib.sha256(f"{imagecodecs.__version__} {syntax}".encode())
        digest.update(_written(view))
        kept = cache / f"{syntax}-{digest.hexdigest()[:16]}.dcm"
        if kept.exists():
            return kept.read_bytes()
    content = _written(view if syntax == "raw" else _compressed(view, syntax))
    if not np.array_equal(Radiograph.from_dicom(content).stored, _pixels(view)):
        raise ValueError(f"{syntax} does not decode to the pixels it was made of")
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_bytes(content)
        part.replace(kept)
    return content


def _compressed(view: FileDataset, syntax: str) -> FileDataset:
    """A copy of the view with its pixels encoded."""
    uid, encode = _ENCODERS[syntax]
    dataset = copy.deepcopy(view)
    try:
        stream = encode(_pixels(view))
    # Which of these it is depends on imagecodecs' release.
    except (AttributeError, ImportError, NotImplementedError) as error:
        raise Missing(f"this imagecodecs has no encoder for {syntax}") from error
    dataset.PixelData = encapsulate([bytes(stream)])
    element: Any = dataset["PixelData"]
    element.VR, element.is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = uid
    return dataset


def _pixels(view: FileDataset) -> Pixels:
    return np.frombuffer(view.PixelData, "<u2").reshape(view.Rows, view.Columns)


def _written(dataset: FileDataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
