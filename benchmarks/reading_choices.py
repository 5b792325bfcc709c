"""The alternatives behind the choices made for reading, measured in turns.

    python -m benchmarks.reading_choices --out benchmarks/results/reading_choices.json

Decoders by transfer syntax, threads for two views, OpenCV's own threads, hashes; and what decoders
say of damage. All whole decoders must give the same pixels. `docs/performance.md` shows the table.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import get_frame

from benchmarks.latency_inputs import SYNTAXES, Missing, PairOfViews, encoded, simulated_pair
from benchmarks.latency_interleave import REST_S, orders
from benchmarks.latency_made_here import PACKAGES, installed
from export.provenance import made_here, write
from hipnet_edge import InputRefused, Radiograph, Study, openjpeg, openjph
from hipnet_edge.codestreams import jpeg2000_header
from hipnet_edge.collimation import Box
from hipnet_edge.opencv import in_calling_thread
from hipnet_edge.preprocessing import InputSpec, preprocess_study
from hipnet_edge.simulation.radiography import STORED_BITS
from hipnet_edge.workers import Workers

HIGHEST = (1 << STORED_BITS) - 1
"""Of the simulated views."""

Image = NDArray[Any]
Frames = Mapping[str, tuple[bytes, bytes]]
"""The streams of both views, by transfer syntax."""


@dataclass(frozen=True)
class Alternative:
    """A way to do something.

    Attributes:
        what: that is done.
        name: of this way.
        call: does it.
        used: by the package.
        whole: `call` gives all pixels of the first view.
    """

    what: str
    name: str
    call: Callable[[], Any]
    used: bool = False
    whole: bool = False


def simple_decoders(frames: Frames, shape: tuple[int, int]) -> Iterator[Alternative]:
    """RLE, JPEG lossless and JPEG-LS."""
    for syntax, what, name, used, decode in (
        ("rle", "RLE", "imagecodecs", True, partial(_run_length, shape=shape)),
        ("rle", "RLE", "pylibjpeg-rle", False, partial(_pylibjpeg_rle, shape=shape)),
        ("jpeg_lossless", "JPEG lossless", "imagecodecs, `jpeg8`", True, _by("jpeg8_decode")),
        ("jpeg_lossless", "JPEG lossless", "imagecodecs, `ljpeg`", False, _by("ljpeg_decode")),
        ("jpeg_lossless", "JPEG lossless", "pylibjpeg-libjpeg", False, _libjpeg),
        ("jpeg_ls", "JPEG-LS", "imagecodecs", True, _by("jpegls_decode")),
        ("jpeg_ls", "JPEG-LS", "pyjpegls", False, _pyjpegls),
        ("jpeg_ls", "JPEG-LS", "pylibjpeg-libjpeg", False, _libjpeg),
    ):
        if syntax in frames:
            yield Alternative(what, name, partial(decode, frames[syntax][0]), used, whole=True)


def wavelet_decoders(frames: Frames, shape: tuple[int, int]) -> Iterator[Alternative]:
    """JPEG 2000 and HTJ2K, whole and in part."""
    height, width = shape
    middle = Box(height // 6, width // 6, height - height // 6, width - width // 6)
    whole: tuple[tuple[str, str, str, bool, Callable[[bytes], Image]], ...] = (
        ("j2k", "JPEG 2000", "imagecodecs (OpenJPEG)", True, _openjpeg),
        ("j2k", "JPEG 2000", "pylibjpeg-openjpeg", False, _openjpeg_of_pylibjpeg),
        ("j2k", "JPEG 2000", "OpenJPEG called directly", False, _part),
        ("htj2k", "HTJ2K", "OpenJPH, its answer checked", True, _checked),
        ("htj2k", "HTJ2K", "OpenJPH, unchecked", False, _by("htj2k_decode")),
        ("htj2k", "HTJ2K", "imagecodecs (OpenJPEG)", False, _openjpeg),
    )
    for syntax, what, name, used, decode in whole:
        if syntax in frames:
            yield Alternative(what, name, partial(decode, frames[syntax][0]), used, whole=True)
    for syntax, what, name, used, discard, region in (
        ("j2k", "JPEG 2000", "half resolution", False, 1, None),
        ("j2k", "JPEG 2000", "half resolution, a region of 4/9", True, 1, middle),
        ("j2k", "JPEG 2000", "quarter resolution", True, 2, None),
        ("htj2k", "HTJ2K", "half resolution", True, 1, None),
        ("htj2k", "HTJ2K", "quarter resolution", True, 2, None),
    ):
        if syntax in frames:
            yield Alternative(what, name, partial(_part, frames[syntax][0], discard, region), used)


def side_by_side(frames: Frames, workers: Workers) -> Iterator[Alternative]:
    """Both views at once, and how many threads each has."""

    def both(decode: Callable[[bytes], Image], streams: tuple[bytes, bytes]) -> None:
        workers.side_by_side(decode, streams)

    for syntax, what in (("j2k", "JPEG 2000"), ("htj2k", "HTJ2K")):
        ways: dict[str, Callable[[bytes], Image]] = {
            "OpenJPEG, 1 thread each": _openjpeg,
            "OpenJPEG, 2 threads each": partial(_openjpeg, threads=2),
        }
        if syntax == "htj2k":
            ways = {"OpenJPH, 1 thread each": _checked, **ways}
        for index, (name, decode) in enumerate(ways.items() if syntax in frames else ()):
            call = partial(both, decode, frames[syntax])
            yield Alternative(f"{what}, both views side by side", name, call, used=index == 0)


def after_decoding(frames: Frames, study: Study, workers: Workers) -> Iterator[Alternative]:
    """Preprocessing with and without OpenCV's own threads; the names of a view."""

    def preprocess(threads: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        with threads():
            preprocess_study(study, InputSpec(), mapper=workers.side_by_side)

    what = "preprocessing, both views side by side"
    calling, own = in_calling_thread, contextlib.nullcontext
    yield Alternative(what, "in the calling threads", partial(preprocess, calling), used=True)
    yield Alternative(what, "with OpenCV's own threads", partial(preprocess, own))
    what, pixels = "SHA-256 that names a view", study.ap.stored
    yield Alternative(what, "of its pixels", lambda: hashlib.sha256(pixels.data), used=True)
    for syntax, name in (("j2k", "of its JPEG 2000 stream"), ("htj2k", "of its HTJ2K stream")):
        if syntax in frames:
            yield Alternative(what, name, partial(hashlib.sha256, frames[syntax][0]), used=True)


def measured(alternatives: Sequence[Alternative], rounds: int) -> list[dict[str, Any]]:
    """Median wall and processor milliseconds of each, in an order drawn anew for each round."""
    taken = np.empty((len(alternatives), rounds, 2))
    for index, order in enumerate(orders(len(alternatives), rounds, seed=0)):
        for chosen in order:
            time.sleep(REST_S)  # pools of threads spin for some milliseconds after their last call
            clocks = time.perf_counter(), time.process_time()
            alternatives[chosen].call()
            taken[chosen, index] = time.perf_counter() - clocks[0], time.process_time() - clocks[1]
    medians = 1e3 * np.median(taken, axis=1)
    return [
        {
            "what": one.what,
            "alternative": one.name,
            "wall_ms": round(float(wall), 2),
            "processor_ms": round(float(processor), 2),
            "used": one.used,
        }
        for one, (wall, processor) in zip(alternatives, medians, strict=True)
    ]


def those_here(
    alternatives: Iterable[Alternative], pixels: Image
) -> tuple[list[Alternative], dict[str, str]]:
    """What can be measured, each called once; and what cannot, with the reason.

    Raises:
        ValueError: a decoder gives other pixels.
    """
    here, missing = [], {}
    for one in alternatives:
        name = f"{one.what}: {one.name}"
        try:
            result = one.call()
        except (Missing, ImportError) as lacking:
            missing[name] = str(lacking)
            continue
        if one.whole and not np.array_equal(result, pixels):
            raise ValueError(f"{name} decodes to other pixels")
        here.append(one)
    return here, missing


def damage(pair: PairOfViews, streams: int) -> dict[str, Any]:
    """What becomes of lossless HTJ2K with one byte of the coded data damaged.

    OpenJPH's lost errors are printed by imagecodecs; they are kept from the terminal.
    """
    file = encoded(pair, "htj2k")[0]
    truth, draw = Radiograph.from_dicom(file).stored, np.random.default_rng(0)
    first = file.index(b"\xff\x93") + 2  # start of data
    readers: dict[str, Callable[[bytes], Image]] = {
        "OpenJPEG": lambda content: imagecodecs.jpeg2k_decode(_frame(content)),
        "OpenJPH, unchecked": lambda content: imagecodecs.htj2k_decode(_frame(content)),
        "the package": lambda content: Radiograph.from_dicom(content).stored,
    }
    ends: dict[str, Counter[str]] = {name: Counter() for name in readers}
    for _ in range(streams):
        content = bytearray(file)
        content[draw.integers(first, len(file) - 16)] ^= draw.integers(1, 256)
        for name, read in readers.items():
            with contextlib.redirect_stderr(io.StringIO()):
                ends[name][_end(partial(read, bytes(content)), truth)] += 1
    return {
        "streams": streams,
        "size": list(pair.shape),
        "readers": {
            name: {end: counted[end] for end in ("refused", "other_pixels", "same_pixels")}
            for name, counted in ends.items()
        },
    }


def _end(read: Callable[[], Image], truth: Image) -> str:
    try:
        pixels = read()
    except (InputRefused, RuntimeError):
        return "refused"
    return "same_pixels" if np.array_equal(pixels, truth) else "other_pixels"


def measure(
    shape: tuple[int, int], rounds: int, damaged: tuple[int, int], streams: int
) -> dict[str, Any]:
    """All of the report but its provenance.

    Args:
        shape: rows and columns of the views that are timed.
        rounds: timed calls of each alternative.
        damaged: rows and columns of the view whose stream is damaged.
        streams: how often.
    """
    pair = simulated_pair(shape)
    frames, missing = _streams(pair)
    study = Study(*(Radiograph.from_dicom(content) for content in encoded(pair, "raw")))
    workers = Workers(2)
    try:
        alternatives, not_here = those_here(
            (
                *simple_decoders(frames, shape),
                *wavelet_decoders(frames, shape),
                *side_by_side(frames, workers),
                *after_decoding(frames, study, workers),
            ),
            study.ap.stored,
        )
        rows = measured(alternatives, rounds)
    finally:
        workers.close()
    return {
        "size": list(shape),
        "rounds": rounds,
        "rows": rows,
        "damage": damage(simulated_pair(damaged), streams) if "htj2k" in frames else None,
        "missing": {**missing, **not_here},
    }


def _streams(pair: PairOfViews) -> tuple[Frames, dict[str, str]]:
    """The streams of both views in every compressed syntax, and why those that lack do."""
    frames, missing = {}, {}
    for syntax in SYNTAXES[1:]:
        with contextlib.suppress(Missing):
            ap, lateral = (_frame(content) for content in encoded(pair, syntax))
            frames[syntax] = ap, lateral
        if syntax not in frames:
            missing[syntax] = "there is no encoder for it here"
    return frames, missing


def _frame(content: bytes) -> bytes:
    """The one encoded frame of a DICOM file."""
    return get_frame(pydicom.dcmread(io.BytesIO(content)).PixelData, 0, number_of_frames=1)


def _by(name: str) -> Callable[[bytes], Image]:
    """A decoder of imagecodecs'."""

    def decode(stream: bytes) -> Image:
        if not hasattr(imagecodecs, name):
            raise Missing(f"this imagecodecs has no {name}")
        pixels: Image = getattr(imagecodecs, name)(stream)
        return pixels

    return decode


def _openjpeg(stream: bytes, threads: int = 1) -> Image:
    pixels: Image = imagecodecs.jpeg2k_decode(stream, numthreads=threads)
    return pixels


def _part(stream: bytes, discard: int = 0, region: Box | None = None) -> Image:
    if not openjpeg.available():
        raise Missing("no OpenJPEG library is found")
    return openjpeg.decode(stream, discard, region)


def _checked(stream: bytes) -> Image:
    pixels = openjph.decode(stream, jpeg2000_header(stream), HIGHEST)
    if pixels is None:
        raise Missing("this imagecodecs has no OpenJPH, or it is not sure of these views")
    return pixels


def _run_length(stream: bytes, shape: tuple[int, int]) -> Image:
    return np.frombuffer(imagecodecs.dicomrle_decode(stream, np.uint16), np.uint16).reshape(shape)


def _pylibjpeg_rle(stream: bytes, shape: tuple[int, int]) -> Image:
    decode = import_module("rle.utils").decode_pixel_data
    layout = {"rows": shape[0], "columns": shape[1], "bits_allocated": 16}
    return np.frombuffer(decode(stream, version=2, **layout), np.uint16).reshape(shape)


def _libjpeg(stream: bytes) -> Image:
    pixels: Image = import_module("libjpeg").decode(stream)
    return pixels


def _pyjpegls(stream: bytes) -> Image:
    pixels: Image = import_module("jpeg_ls").decode(np.frombuffer(stream, np.uint8))
    return pixels


def _openjpeg_of_pylibjpeg(stream: bytes) -> Image:
    pixels: Image = import_module("openjpeg").decode(stream)
    return pixels


@click.command(help=__doc__)
@click.option("--rounds", type=click.IntRange(min=1), default=7, help="Timed calls of each.")
@click.option("--streams", type=click.IntRange(min=1), default=200, help="Damaged streams.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Report as JSON.")
def main(rounds: int, streams: int, out: Path) -> None:
    """Measure and write."""
    report = {
        **measure((3000, 2500), rounds, (512, 512), streams),
        **made_here(*filter(installed, PACKAGES)),
    }
    write(report, out)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
