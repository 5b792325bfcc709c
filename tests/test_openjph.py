"""Lossless HTJ2K by OpenJPH: the pixels that OpenJPEG gives, and no damage that passes unseen."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from dicom_files import can_encode, make_dicom, scene
from pydicom.uid import HTJ2KLossless, HTJ2KLosslessRPCL

from hipnet_edge import InputRefused, Radiograph, openjph
from hipnet_edge.codestreams import jpeg2000_header

pytestmark = [
    pytest.mark.skipif(not can_encode(HTJ2KLossless), reason="imagecodecs here has no HTJ2K"),
    # imagecodecs prints the errors that it loses.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def stream(stored, precision):
    """A codestream that declares so many bits a sample; the encoder always declares 16."""
    offset = (1 << 15) - (1 << (precision - 1))
    coded = bytearray(imagecodecs.htj2k_encode(stored + np.uint16(offset), reversible=True))
    coded[42] = precision - 1
    return bytes(coded)


def decoded(codestream, bits):
    return openjph.decode(codestream, jpeg2000_header(codestream), (1 << bits) - 1)


@pytest.mark.parametrize("precision", [10, 12, 14, 15, 16])
@pytest.mark.parametrize("shape", [(301, 257), (64, 65), (130, 1)])
def test_every_bit_is_openjpegs(precision, shape):
    bits = min(precision, 15)
    stored = np.random.default_rng(precision).integers(0, 1 << bits, shape, np.uint16)
    coded = stream(stored, precision)
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(coded), stored)
    np.testing.assert_array_equal(decoded(coded, bits), stored)


@pytest.mark.parametrize("level", [0, 4095])
def test_a_black_or_white_border_is_no_damage(level):
    stored = scene(12)
    stored[-90:] = level
    np.testing.assert_array_equal(decoded(stream(stored, 12), 12), stored)


def test_values_beyond_the_range_are_openjpegs_to_clip():
    stored = scene(12)
    beyond = stored.copy()
    beyond[40:60, 40:60] = 4200
    assert decoded(stream(beyond, 13), 12) is None
    for precision in (12, 13):
        data = make_dicom(
            stored,
            bits_stored=12,
            transfer_syntax=HTJ2KLossless,
            frame=stream(beyond, precision),
        )
        np.testing.assert_array_equal(Radiograph.from_dicom(data).stored, np.minimum(beyond, 4095))


@pytest.mark.parametrize("bits", [8, 16])
def test_where_the_range_leaves_no_room_openjpeg_decodes(bits):
    stored = scene(bits)
    coded = bytes(imagecodecs.htj2k_encode(stored, reversible=True))
    assert decoded(coded, bits) is None
    data = make_dicom(stored, bits_stored=bits, transfer_syntax=HTJ2KLosslessRPCL, frame=coded)
    np.testing.assert_array_equal(Radiograph.from_dicom(data).stored, stored)


def test_damaged_streams_end_as_with_openjpeg():
    """Most damage to one byte shows in no decoder; what OpenJPEG refuses hardly ever passes."""
    stored, draw = scene(12), np.random.default_rng(7)
    coded = stream(stored, 12)
    start = coded.index(b"\xff\x93") + 2
    refused = passed = 0
    for _ in range(150):
        damaged = bytearray(coded)
        damaged[draw.integers(start, len(coded) - 2)] ^= draw.integers(1, 256)
        data = make_dicom(
            stored, bits_stored=12, transfer_syntax=HTJ2KLossless, frame=bytes(damaged)
        )
        try:
            read = Radiograph.from_dicom(data).stored
        except InputRefused:
            read = None
        try:
            expected = np.minimum(imagecodecs.jpeg2k_decode(bytes(damaged)), 4095)
        except RuntimeError:
            refused += 1
            passed += read is not None
            continue
        np.testing.assert_array_equal(read, expected)
    assert refused > 10
    assert passed <= refused / 10


def test_errors_that_imagecodecs_loses_are_seen():
    """Rows that were never written are black, like the last rows of many sound images."""
    coded = bytearray(stream(scene(12), 12))
    middle = len(coded) // 2
    coded[middle : middle + 400] = b"\xff" * 400
    assert decoded(bytes(coded), 12) is None
