"""Parts of a JPEG 2000 or HTJ2K image, at a half, a quarter ... of its resolution, by OpenJPEG.

JPEG 2000 stores an image as a small one and the detail that doubles it, again and again, and the
detail in code blocks each of which is decoded for itself (ITU-T T.800). Decoding only the
resolution and the region that are needed takes a fraction of the time. imagecodecs decodes whole
images alone, but brings OpenJPEG as a shared library; it is called here through the few functions
of its C interface that this needs, unchanged since OpenJPEG 2.0. Where the library is not found,
`available` says so, and images are decoded whole.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import POINTER, Structure, byref, c_int, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from ctypes.util import find_library
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.collimation import Box

_RAW_CODESTREAM = 0
_PARAMETERS_BYTES = 16_384
"""Room for OpenJPEG's decoding parameters, of which only the first field is set here."""
_END = c_size_t(-1).value

_Read = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_size_t, c_void_p)
_Skip = ctypes.CFUNCTYPE(c_int64, c_int64, c_void_p)
_Seek = ctypes.CFUNCTYPE(c_int, c_int64, c_void_p)


class DecodingFailed(Exception):
    """OpenJPEG could not decode what was asked for."""


_COMPONENT_NUMBERS = (
    *("dx", "dy", "w", "h", "x0", "y0"),
    *("prec", "bpp", "sgnd", "resno_decoded", "factor"),
)


class _Component(Structure):
    """`opj_image_comp_t`."""

    _fields_ = (
        *((name, c_uint32) for name in _COMPONENT_NUMBERS),
        ("data", POINTER(c_int32)),
        ("alpha", ctypes.c_uint16),
    )


class _Image(Structure):
    """`opj_image_t`."""

    _fields_ = (
        *((name, c_uint32) for name in ("x0", "y0", "x1", "y1", "numcomps")),
        ("color_space", c_int),
        ("comps", POINTER(_Component)),
        ("icc_profile_buf", c_void_p),
        ("icc_profile_len", c_uint32),
    )


def available() -> bool:
    """Whether OpenJPEG 2.3 or newer is here: older ones decode every code block of any region."""
    library = _library()
    if library is None:
        return False
    version = library.opj_version().decode().split(".")
    return (int(version[0]), int(version[1])) >= (2, 3)


def decode(
    codestream: bytes, discard: int, region: Box | None = None, *, threads: int = 1
) -> NDArray[np.int32]:
    """Decode a region of a grey image at a part of its resolution.

    Args:
        codestream: of one component and origin (0, 0), checked by `codestreams.jpeg2000_header`.
        discard: how many doublings of the resolution are left out: 1 for a half, 2 for a quarter.
        region: in pixels of the full image; None for all of it.
        threads: how many decode code blocks.

    Returns:
        int32 [rows, columns]. Pixel (i, j) of the whole image at that resolution lies on pixel
        (i * 2**discard, j * 2**discard) of the full one; a region begins with the first such pixel
        in it.

    Raises:
        DecodingFailed: the stream is damaged or has fewer resolutions.
    """
    library = _library()
    if library is None:
        raise DecodingFailed("OpenJPEG is not here.")
    with _opened(library, codestream, discard, threads) as (codec, stream, image):
        if region is not None:
            corners = (region.left, region.top, region.right, region.bottom)
            _succeed(library.opj_set_decode_area(codec, image, *corners))
        _succeed(library.opj_decode(codec, stream, image))
        part = image.contents.comps[0]
        if image.contents.numcomps != 1 or not part.data or part.factor != discard:
            raise DecodingFailed("OpenJPEG decoded another image.")
        values: NDArray[np.int32] = np.ctypeslib.as_array(part.data, (part.h, part.w)).copy()
        return values


@contextmanager
def _opened(
    library: ctypes.CDLL, codestream: bytes, discard: int, threads: int
) -> Iterator[tuple[c_void_p, c_void_p, ctypes._Pointer[_Image]]]:
    """A decoder that has read the stream's header, and what it reads from."""
    source = _Source(codestream)
    stream = c_void_p(library.opj_stream_create(max(len(codestream), 1), 1))
    codec = c_void_p(library.opj_create_decompress(_RAW_CODESTREAM))
    image = POINTER(_Image)()
    try:
        source.attach(library, stream)
        parameters = ctypes.create_string_buffer(_PARAMETERS_BYTES)
        library.opj_set_default_decoder_parameters(parameters)
        c_uint32.from_buffer(parameters).value = discard  # cp_reduce, the first field
        _succeed(library.opj_setup_decoder(codec, parameters))
        if threads > 1:
            library.opj_codec_set_threads(codec, threads)
        _succeed(library.opj_read_header(stream, codec, byref(image)))
        yield codec, stream, image
    finally:
        if image:
            library.opj_image_destroy(image)
        library.opj_destroy_codec(codec)
        library.opj_stream_destroy(stream)


class _Source:
    """Bytes as a stream of OpenJPEG's."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = np.frombuffer(data, np.uint8), 0
        # OpenJPEG keeps no reference of its own: these must live as long as the stream.
        self._functions = (_Read(self._read), _Skip(self._skip), _Seek(self._seek))

    def attach(self, library: ctypes.CDLL, stream: c_void_p) -> None:
        read, skip, seek = self._functions
        library.opj_stream_set_read_function(stream, read)
        library.opj_stream_set_skip_function(stream, skip)
        library.opj_stream_set_seek_function(stream, seek)
        library.opj_stream_set_user_data(stream, None, None)
        library.opj_stream_set_user_data_length(stream, len(self._data))

    def _read(self, target: int, size: int, _: object) -> int:
        count = min(size, len(self._data) - self._position)
        if count <= 0:
            return _END
        ctypes.memmove(target, self._data.ctypes.data + self._position, count)
        self._position += count
        return count

    def _skip(self, count: int, _: object) -> int:
        if not 0 <= self._position + count <= len(self._data):
            return -1
        self._position += count
        return count

    def _seek(self, position: int, _: object) -> int:
        if not 0 <= position <= len(self._data):
            return 0
        self._position = position
        return 1


def _succeed(answer: int) -> None:
    if not answer:
        raise DecodingFailed("OpenJPEG refuses the stream.")


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The OpenJPEG that imagecodecs brings, else the system's."""
    for name in _candidates():
        # AttributeError: it lacks one of the functions.
        with suppress(OSError, AttributeError):
            return _declared(ctypes.CDLL(name))
    return None


def _candidates() -> Iterator[str]:
    import imagecodecs

    package = Path(imagecodecs.__file__).parent
    for folder in (package.parent / "imagecodecs.libs", package / ".dylibs"):
        yield from sorted(str(path) for path in folder.glob("libopenjp2*"))
    system = find_library("openjp2")
    if system:
        yield system


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, image = c_void_p, POINTER(_Image)
    for name, result, arguments in (
        ("opj_version", ctypes.c_char_p, ()),
        ("opj_stream_create", pointer, (c_size_t, c_int)),
        ("opj_stream_destroy", None, (pointer,)),
        ("opj_stream_set_read_function", None, (pointer, _Read)),
        ("opj_stream_set_skip_function", None, (pointer, _Skip)),
        ("opj_stream_set_seek_function", None, (pointer, _Seek)),
        ("opj_stream_set_user_data", None, (pointer, pointer, pointer)),
        ("opj_stream_set_user_data_length", None, (pointer, ctypes.c_uint64)),
        ("opj_create_decompress", pointer, (c_int,)),
        ("opj_destroy_codec", None, (pointer,)),
        ("opj_set_default_decoder_parameters", None, (pointer,)),
        ("opj_setup_decoder", c_int, (pointer, pointer)),
        ("opj_codec_set_threads", c_int, (pointer, c_int)),
        ("opj_read_header", c_int, (pointer, pointer, POINTER(image))),
        ("opj_set_decode_area", c_int, (pointer, image, *(c_int32,) * 4)),
        ("opj_decode", c_int, (pointer, pointer, image)),
        ("opj_image_destroy", None, (image,)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
