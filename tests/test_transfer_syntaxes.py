from __future__ import annotations

import struct
from importlib.resources import files

import imagecodecs
import numpy as np
import pytest
from dicom_files import LOSSLESS, LOSSY, NATIVE, can_encode, encode, make_dataset, make_dicom, scene
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from hipnet_edge.errors import InputRefused, Reason
from hipnet_edge.radiograph import Radiograph
from hipnet_edge.vocabulary import Flag


def name(syntax: object) -> str:
    return syntax.keyword if hasattr(syntax, "keyword") else str(syntax)


corrupt = Reason.CORRUPT_PIXELS


def refusal(data: bytes) -> Reason:
    with pytest.raises(InputRefused) as refused:
        Radiograph.from_dicom(data)
    return refused.value.code


def need_encoder(syntax: str) -> None:
    if not can_encode(syntax):
        pytest.skip("imagecodecs for Python 3.10 cannot encode HTJ2K")


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=name)
def test_lossless_syntaxes_give_the_stored_values_back(syntax, bits):
    need_encoder(syntax)
    stored = scene(bits)
    plain = Radiograph.from_dicom(make_dicom(stored, bits_stored=bits))
    read = Radiograph.from_dicom(make_dicom(stored, bits_stored=bits, transfer_syntax=syntax))
    np.testing.assert_array_equal(read.stored, stored)
    assert read.stored.dtype == stored.dtype
    assert read.pixel_sha256 == plain.pixel_sha256
    np.testing.assert_array_equal(read.grey_levels(), plain.grey_levels())
    assert Flag.LOSSY_COMPRESSION not in read.flags


@pytest.mark.parametrize("syntax", LOSSLESS, ids=name)
def test_signed_values_keep_their_sign(syntax):
    need_encoder(syntax)
    stored = (scene(12).astype(np.int32) - 2048).astype(np.int16)
    read = Radiograph.from_dicom(
        make_dicom(stored, bits_stored=12, transfer_syntax=syntax, WindowCenter=0, WindowWidth=4096)
    )
    np.testing.assert_array_equal(read.stored, stored)
    unsigned = Radiograph.from_dicom(
        make_dicom(scene(12), bits_stored=12, WindowCenter=2048, WindowWidth=4096)
    )
    np.testing.assert_array_equal(read.grey_levels(), unsigned.grey_levels())


@pytest.mark.parametrize(
    ("syntax", "bits", "tolerance"),
    [
        (JPEGBaseline8Bit, 8, 12),
        (JPEGExtended12Bit, 12, 12),
        (JPEGLSNearLossless, 12, 2),
        (JPEG2000, 12, 20),
        (JPEG2000, 16, 300),
        (HTJ2K, 8, 8),
        (HTJ2K, 12, 80),
        (HTJ2K, 16, 80),
    ],
    ids=name,
)
def test_lossy_syntaxes_come_close_and_are_flagged(syntax, bits, tolerance):
    need_encoder(syntax)
    stored = scene(bits)
    read = Radiograph.from_dicom(make_dicom(stored, bits_stored=bits, transfer_syntax=syntax))
    # The scene holds the largest and the smallest value: overshoot must not wrap around.
    assert np.abs(read.stored.astype(int) - stored).max() <= tolerance
    assert Flag.LOSSY_COMPRESSION in read.flags


def test_lossy_compression_without_a_word_in_the_header_is_flagged():
    data = make_dicom(scene(8), transfer_syntax=JPEGBaseline8Bit, LossyImageCompression=None)
    assert Flag.LOSSY_COMPRESSION in Radiograph.from_dicom(data).flags
    data = make_dicom(scene(12), bits_stored=12, LossyImageCompression="01")
    assert Flag.LOSSY_COMPRESSION in Radiograph.from_dicom(data).flags


@pytest.mark.parametrize("bits", [10, 11, 12, 13, 14, 15])
def test_depths_agree_on_the_grey_levels(bits):
    deep = Radiograph.from_dicom(make_dicom(scene(16), bits_stored=16)).grey_levels()
    read = Radiograph.from_dicom(make_dicom(scene(bits), bits_stored=bits)).grey_levels()
    assert np.abs(read - deep).max() < 2e-3


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEGLossless, JPEGLSLossless, JPEG2000Lossless], ids=name
)
def test_a_frame_in_many_fragments(syntax):
    stored = scene(12)
    dataset = make_dataset(stored, bits_stored=12, transfer_syntax=syntax)
    frame = encode(stored, syntax, 12)
    dataset.PixelData = encapsulate([frame], fragments_per_frame=5)
    np.testing.assert_array_equal(Radiograph.from_dicom(dataset).stored, stored)


def test_a_jp2_file_in_place_of_a_codestream():
    stored = scene(12)
    frame = imagecodecs.jpeg2k_encode(
        stored, 0, codecformat="jp2", reversible=True, bitspersample=12
    )
    assert frame[4:8] == b"jP  "
    data = make_dicom(stored, bits_stored=12, transfer_syntax=JPEG2000Lossless, frame=frame)
    np.testing.assert_array_equal(Radiograph.from_dicom(data).stored, stored)


def test_a_last_tile_part_of_open_length():
    stored = scene(12)
    frame = bytearray(encode(stored, JPEG2000Lossless, 12))
    at = frame.find(b"\xff\x90\x00\x0a") + 6
    frame[at : at + 4] = bytes(4)  # Psot 0: up to the end of the codestream
    options = {"bits_stored": 12, "transfer_syntax": JPEG2000Lossless}
    read = Radiograph.from_dicom(make_dicom(stored, frame=bytes(frame), **options))
    np.testing.assert_array_equal(read.stored, stored)
    assert refusal(make_dicom(stored, frame=bytes(frame[:-200]), **options)) is corrupt


def test_a_stream_of_another_kind_than_the_object_says():
    stored = scene(8)
    lossy = encode(stored, JPEGBaseline8Bit, 8)
    for syntax in (JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless):
        assert refusal(make_dicom(stored, transfer_syntax=syntax, frame=lossy)) is corrupt


def test_a_stream_deeper_than_the_bits_stored():
    stored = scene(12)
    frame = imagecodecs.jpegls_encode(stored)
    assert b"\xff\xf7\x00\x0b\x10" in frame  # declares 16 bits
    data = make_dicom(stored, bits_stored=12, transfer_syntax=JPEGLSLossless, frame=frame)
    np.testing.assert_array_equal(Radiograph.from_dicom(data).stored, stored)


def test_an_overlay_in_the_unused_bits_is_masked():
    stored = scene(12)
    overlay = stored | np.uint16(0xA000)
    np.testing.assert_array_equal(
        Radiograph.from_dicom(make_dicom(overlay, bits_stored=12)).stored, stored
    )
    signed = overlay.view(np.int16)
    expected = ((stored << 4).view(np.int16) >> 4).astype(np.int16)
    np.testing.assert_array_equal(
        Radiograph.from_dicom(make_dicom(signed, bits_stored=12)).stored, expected
    )


def test_bits_stored_at_the_top_of_the_word():
    stored = scene(12)
    shifted = make_dicom((stored << 4) | np.uint16(5), bits_stored=12, HighBit=15)
    np.testing.assert_array_equal(Radiograph.from_dicom(shifted).stored, stored)


@pytest.mark.parametrize("columns", [128, 129])
def test_eight_bits_in_big_endian_words(columns):
    stored = scene(8, rows=65, columns=columns)
    flat = np.append(stored.ravel(), np.zeros(stored.size % 2, np.uint8))
    dataset = make_dataset(stored, transfer_syntax=ExplicitVRBigEndian)
    dataset["PixelData"].VR = "OW"
    dataset.PixelData = flat.view("<u2").astype(">u2").tobytes()
    np.testing.assert_array_equal(Radiograph.from_dicom(dataset).stored, stored)


def test_an_image_of_an_odd_number_of_bytes():
    stored = scene(8, rows=65, columns=129)
    np.testing.assert_array_equal(Radiograph.from_dicom(make_dicom(stored)).stored, stored)


@pytest.mark.parametrize(
    "syntax",
    ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.110", "1.2.840.113619.5.2"],
    ids=["MPEG2", "JPEG XL", "private"],
)
def test_other_syntaxes_are_refused(syntax):
    stored = scene(8)
    plain = make_dicom(stored, transfer_syntax=ExplicitVRLittleEndian)
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    old = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
    assert plain.count(old) == 1
    data = plain.replace(old, struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid)
    assert refusal(data) is Reason.UNSUPPORTED_TRANSFER_SYNTAX


CHANGES = {
    "rows": {"Rows": 161},
    "columns": {"Columns": 64},
    "depth": {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
    "swapped": {"Rows": 128, "Columns": 160},
}
STREAMS_WITH_A_HEADER = [syntax for syntax in LOSSLESS if syntax not in (*NATIVE, RLELossless)]


@pytest.mark.parametrize(
    ("syntax", "change"),
    [(syntax, change) for syntax in LOSSLESS for change in list(CHANGES)[:3]]
    # As many pixels: only a stream that states its own shape can tell.
    + [(syntax, "swapped") for syntax in STREAMS_WITH_A_HEADER],
    ids=name,
)
def test_pixels_that_do_not_fit_the_header_are_refused(syntax, change):
    need_encoder(syntax)
    change = CHANGES[change]
    data = make_dicom(scene(12), bits_stored=12, transfer_syntax=syntax, **change)
    assert refusal(data) is corrupt


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.97])
@pytest.mark.parametrize("syntax", [*LOSSLESS, *LOSSY], ids=name)
def test_a_frame_that_is_cut_short_is_refused(syntax, kept):
    """Several decoders fill what is missing with grey and say nothing."""
    need_encoder(syntax)
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    stored = scene(bits)
    if syntax in NATIVE:
        data = make_dicom(stored, bits_stored=bits, transfer_syntax=syntax)
        data = data[: int(len(data) * (0.5 + kept / 2))]
    else:
        frame = encode(stored, syntax, bits)
        frame = frame[: int(len(frame) * kept) // 2 * 2]
        data = make_dicom(stored, bits_stored=bits, transfer_syntax=syntax, frame=frame)
    assert refusal(data) is corrupt


def test_stored_samples_agree():
    """HTJ2K among them, also where Python 3.10's imagecodecs could not have made one."""
    samples = files("hipnet_edge") / "decoder_samples"
    digests = {
        Radiograph.from_dicom((samples / f"{name}.dcm").read_bytes()).pixel_sha256
        for name in ("htj2k", "jpeg-2000", "jpeg-lossless", "jpeg-ls", "rle")
    }
    assert len(digests) == 1


def test_damage_inside_a_high_throughput_stream_is_refused():
    need_encoder(HTJ2KLossless)
    stored = scene(12)
    frame = bytearray(encode(stored, HTJ2KLossless, 12))
    frame[len(frame) // 2 : len(frame) // 2 + 400] = b"\xff" * 400
    data = make_dicom(stored, bits_stored=12, transfer_syntax=HTJ2KLossless, frame=bytes(frame))
    with pytest.raises(InputRefused) as refused:
        Radiograph.from_dicom(data)
    assert refused.value.code is Reason.CORRUPT_PIXELS
    assert refused.value.__cause__ is not None
