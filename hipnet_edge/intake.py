"""Two sources to a checked study: both views read and decoded, each timed."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

from hipnet_edge.encoded import EncodedRadiograph
from hipnet_edge.input_limits import read_bytes
from hipnet_edge.radiograph import Radiograph
from hipnet_edge.study import Study
from hipnet_edge.vocabulary import VIEWS, View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hipnet_edge.dicom_reader import DicomSource
    from hipnet_edge.preprocessing import Mapper
    from hipnet_edge.vocabulary import Laterality

    Source: TypeAlias = Radiograph | EncodedRadiograph | DicomSource
    """A radiograph, one whose header was read, or a DICOM object as path, bytes, open binary file
    or dataset."""


@dataclass(frozen=True)
class _Read:
    """A view that was read: in how many milliseconds, and by which thread."""

    radiograph: Radiograph
    read_ms: float
    decode_ms: float
    thread: int


def import_readers() -> None:
    """Import what reading needs and what takes long to import, so that no patient waits for it."""
    # What does not import says why where it is used.
    with suppress(Exception):
        import imagecodecs  # noqa: F401
        import pydicom.filereader  # noqa: F401


def own_bytes(source: Source) -> Source:
    """The bytes of an open file, all else as it is.

    To be called in the thread that opened the file: members of one archive share a position, so
    that two threads must not read them at once.

    Raises:
        InputRefused: `UNREADABLE_FILE` or `TOO_LARGE`.
    """
    return read_bytes(cast("BinaryIO", source)) if hasattr(source, "read") else source


def read_study(
    ap: Source,
    lateral: Source,
    laterality: Laterality | None,
    *,
    exact: bool,
    decode_threads: int,
    mapper: Mapper,
) -> tuple[Study, Mapping[str, float]]:
    """Read and decode both views and check that they are one study.

    Args:
        ap: where the AP radiograph is read from.
        lateral: likewise the lateral.
        laterality: the hip to read, as the operator states.
        exact: no decoding shortcuts; of no effect on what is a `Radiograph` already.
        decode_threads: how many threads decode one view.
        mapper: works on the two views, side by side perhaps.

    Returns:
        The study, and the milliseconds of the stages `read` (bytes and header) and `decode`: the
        sum of both views, or those of the view that took longer where they were read side by side.

    Raises:
        InputRefused: why the study cannot be read; where both views cannot, the AP's reason.
    """
    sources = {View.AP: ap, View.LATERAL: lateral}

    def read(view: View) -> _Read:
        started = time.perf_counter()
        source = sources[view]
        if not isinstance(source, (Radiograph, EncodedRadiograph)):
            source = EncodedRadiograph.from_dicom(source)
        parsed = time.perf_counter()
        if not isinstance(source, Radiograph):
            source = Radiograph.from_encoded(source, exact=exact, decode_threads=decode_threads)
        _ = source.named_by  # every result names its pixels: hashed here, beside the other view
        decoded = time.perf_counter()
        thread = threading.get_ident()
        return _Read(source, 1e3 * (parsed - started), 1e3 * (decoded - parsed), thread)

    # One object for both views is refused below; until then no two threads may share it.
    first, second = map(read, VIEWS) if ap is lateral else mapper(read, VIEWS)
    study = Study(first.radiograph, second.radiograph, laterality=laterality)
    return study, _stages(first, second)


def _stages(first: _Read, second: _Read) -> dict[str, float]:
    if first.thread == second.thread:
        read_ms, decode_ms = first.read_ms + second.read_ms, first.decode_ms + second.decode_ms
    else:
        slower = max(first, second, key=lambda view: view.read_ms + view.decode_ms)
        read_ms, decode_ms = slower.read_ms, slower.decode_ms
    return {"read": read_ms, "decode": decode_ms}
