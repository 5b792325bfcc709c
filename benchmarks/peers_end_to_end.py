"""Peers from two DICOM files to the network's outputs: the usual libraries, one view after another.

pydicom reads and windows the whole image in floating point, then comes the same definition of the
network's input as in `hipnet_edge.preprocessing`, at full resolution, and the same FP32 network in
ONNX Runtime with its defaults. `pydicom-pylibjpeg` decodes with what `pip install pydicom
pylibjpeg[all]` brings; `pydicom-imagecodecs` is a user who looked for faster decoders.

What the measured files never have is left out, to the peers' advantage: pixel padding, shutters,
films of the whole pelvis.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from benchmarks.peers import Loader, Peer, require, versions
from benchmarks.peers_engines import Session
from hipnet_edge.backends import Outputs
from hipnet_edge.backends.cores import available_cores
from hipnet_edge.bundle import Bundle
from hipnet_edge.collimation import Box, find_collimation
from hipnet_edge.geometry import Geometry
from hipnet_edge.implant import find_implants
from hipnet_edge.preprocessing import CLIP, MARGINS, InputSpec, fit_box
from hipnet_edge.survey import THUMBNAIL

PYLIBJPEG, IMAGECODECS = "pydicom-pylibjpeg", "pydicom-imagecodecs"

Image = NDArray[np.float32]
Decoder = Callable[[FileDataset], NDArray[Any]]


class Chain:
    """Decode, window, preprocess and infer."""

    def __init__(self, bundle: Bundle, threads: int | None, decode: Decoder) -> None:
        self._decode = decode
        self._spec = bundle.manifest.input
        self._network = Session(bundle.model("fp32"), threads)
        self._network.run(bundle.signature("fp32").test_pattern())

    def run(self, files: tuple[bytes, bytes]) -> Outputs:
        """One study, AP first."""
        return self._network.run(self.radiographs(files))

    def radiographs(self, files: tuple[bytes, bytes]) -> Image:
        """The network's input, float32 [1, 2, rows, columns], one view after the other."""
        views = [self._view(pydicom.dcmread(io.BytesIO(content))) for content in files]
        return np.stack(views)[np.newaxis]

    def _view(self, dataset: FileDataset) -> Image:
        grey = grey_levels(dataset, self._decode(dataset))
        return network_input(dataset, grey, self._spec)

    def close(self) -> None:
        """Release the network."""
        self._network.close()


def grey_levels(dataset: FileDataset, stored: NDArray[Any]) -> Image:
    """Modality LUT, VOI LUT and polarity by pydicom: float32 [rows, columns], 0 to 1."""
    shown = apply_voi_lut(apply_modality_lut(stored, dataset), dataset, index=0)
    grey: Image = shown.astype(np.float32) / np.float32(2**dataset.BitsStored - 1)
    if dataset.get("PresentationLUTShape") == "INVERSE":
        np.subtract(np.float32(1.0), grey, out=grey)
    return grey


def network_input(dataset: FileDataset, grey: Image, spec: InputSpec) -> Image:
    """The network's input of one view, from the whole image's grey levels.

    Raises:
        ValueError: it shows both hips, which no measured file does.
    """
    if dataset.ImageLaterality not in ("L", "R"):
        raise ValueError("a film of both hips is none of this benchmark's")
    flipped = dataset.ViewPosition == "AP" and dataset.PatientOrientation[0] == "R"
    at_left = (dataset.ImageLaterality == "R") != flipped
    field, needed = _survey(grey)
    shape = (spec.rows, spec.columns)
    geometry = Geometry(grey.shape, fit_box(needed, field, shape), at_left, shape)
    box = geometry.box
    seen = box.clip(field)
    part = geometry.covered(seen)
    cut = geometry.laid(grey[seen.slices], seen)
    resized = geometry.resized(cut) / np.maximum(part, np.float32(0.5))
    covered = part > 0.5
    low, high = np.percentile(resized[covered], (spec.low_percentile, spec.high_percentile))
    stretched = np.clip((resized - low) / max(high - low, 1e-6), *CLIP)
    stretched[~covered] = 0.0
    normalised: Image = ((stretched - spec.mean) / spec.std).astype(np.float32)
    return normalised


def _survey(grey: Image) -> tuple[Box, Box | tuple[float, float, float, float]]:
    """What the collimator left open, and what of it the network must see."""
    rows, columns = grey.shape
    stride = max(1, max(rows, columns) // (2 * THUMBNAIL))
    sampled = grey[stride // 2 :: stride, stride // 2 :: stride]
    scale = min(1.0, THUMBNAIL / max(sampled.shape))
    size = (round(sampled.shape[1] * scale), round(sampled.shape[0] * scale))
    thumbnail = np.asarray(cv2.resize(sampled, size, interpolation=cv2.INTER_AREA), np.float32)
    small = find_collimation(thumbnail, None)
    down, across = rows / thumbnail.shape[0], columns / thumbnail.shape[1]
    field = Box(
        round(small.top * down),
        round(small.left * across),
        round(small.bottom * down),
        round(small.right * across),
    )
    implants = [implant.scaled(down, across) for implant in find_implants(thumbnail, small)]
    if not implants:
        return field, field
    top, left, bottom, right = max(implants, key=lambda implant: implant.area).box
    height, width = bottom - top, right - left
    return field, (
        top - MARGINS[0] * height,
        left - MARGINS[1] * width,
        bottom + MARGINS[2] * height,
        right + MARGINS[3] * width,
    )


def _by_pylibjpeg(dataset: FileDataset) -> NDArray[Any]:
    """Stored values by pydicom, with no plugin but pylibjpeg where the pixels are compressed."""
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.pixel_array_options(decoding_plugin="pylibjpeg")
    return dataset.pixel_array


def _by_imagecodecs(dataset: FileDataset) -> NDArray[Any]:
    """Stored values by imagecodecs' decoder for the transfer syntax."""
    import imagecodecs

    decoders: dict[str, Callable[[bytes], NDArray[Any]]] = {
        RLELossless: lambda frame: np.frombuffer(
            imagecodecs.dicomrle_decode(frame, np.dtype("<u2")), "<u2"
        ),
        JPEGLosslessSV1: imagecodecs.jpeg8_decode,
        JPEGLSLossless: imagecodecs.jpegls_decode,
        JPEG2000Lossless: lambda frame: imagecodecs.jpeg2k_decode(
            frame, numthreads=available_cores()
        ),
        HTJ2KLossless: getattr(imagecodecs, "htj2k_decode", imagecodecs.jpeg2k_decode),
    }
    if not dataset.file_meta.TransferSyntaxUID.is_compressed:
        return dataset.pixel_array
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    decoded = decoders[dataset.file_meta.TransferSyntaxUID](frame)
    return decoded.reshape(dataset.Rows, dataset.Columns)


def _pylibjpeg(bundle: Bundle, threads: int | None) -> Peer:
    require("onnxruntime", "pylibjpeg", "libjpeg", "openjpeg", "rle")
    chain = Chain(bundle, threads, _by_pylibjpeg)
    description = (
        "pydicom; pixels by pylibjpeg (JPEG 2000 and HTJ2K by its openjpeg, JPEG and JPEG-LS by "
        "its libjpeg, RLE by its rle), full-resolution preprocessing, ONNX Runtime FP32 merged"
    )
    packages = ("pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle")
    found = versions(*packages, "numpy", "onnxruntime")
    return Peer(PYLIBJPEG, description, "fp32", found, chain.run, chain.close)


def _imagecodecs(bundle: Bundle, threads: int | None) -> Peer:
    require("onnxruntime")
    chain = Chain(bundle, threads, _by_imagecodecs)
    description = (
        "pydicom; pixels by imagecodecs (JPEG 2000 on all cores), full-resolution preprocessing, "
        "ONNX Runtime FP32 merged"
    )
    found = versions("pydicom", "imagecodecs", "numpy", "onnxruntime")
    return Peer(IMAGECODECS, description, "fp32", found, chain.run, chain.close)


PEERS: dict[str, Loader] = {PYLIBJPEG: _pylibjpeg, IMAGECODECS: _imagecodecs}
"""By name, how each is loaded."""
