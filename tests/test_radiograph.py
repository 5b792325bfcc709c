from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from datetime import datetime
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from dicom_files import PATIENT_ID, PATIENT_NAME, make_dataset, make_dicom, scene

from hipnet_edge.dicom_reader import read_dicom
from hipnet_edge.errors import InputRefused, Reason, UsageError
from hipnet_edge.radiograph import Finding, PixelSpacing, Radiograph
from hipnet_edge.vocabulary import Flag, Laterality, View

STORED = scene(12)
PIXELS = scene(8, 64, 64)


def refusal(source: Any, **options: Any) -> Reason:
    with pytest.raises(InputRefused) as refused:
        Radiograph.from_dicom(source, **options)
    assert refused.value.message
    return refused.value.code


def test_every_kind_of_source_gives_the_same(tmp_path):
    dataset = make_dataset(STORED, bits_stored=12)
    data = make_dicom(STORED, bits_stored=12)
    path = tmp_path / "image"
    path.write_bytes(data)
    with path.open("rb") as file:
        read = [
            Radiograph.from_dicom(source)
            for source in (path, str(path), data, bytearray(data), file, io.BytesIO(data), dataset)
        ]
    assert {one.pixel_sha256 for one in read} == {read[0].pixel_sha256}
    assert {one.sop_instance_uid for one in read} == {"1.2.826.0.1.3680043.8.498.1"}
    assert {one.study_instance_uid for one in read} == {"1.2.826.0.1.3680043.8.498.2"}
    for one in read:
        np.testing.assert_array_equal(one.stored, STORED)


def test_a_dataset_in_memory_without_file_meta_information():
    dataset = make_dataset(STORED, bits_stored=12)
    del dataset.file_meta
    before = dataset.to_json()
    np.testing.assert_array_equal(Radiograph.from_dicom(dataset).stored, STORED)
    assert dataset.to_json() == before


def test_a_radiograph_is_immutable():
    read = Radiograph.from_dicom(make_dicom(STORED, bits_stored=12, padding=0))
    with pytest.raises(ValueError, match="read-only"):
        read.stored[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        read.grey_table.levels[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        read.view = Finding(None, "none")  # type: ignore[misc]
    with pytest.raises(TypeError):
        read.overrides["view"] = "ap"  # type: ignore[index]
    read.grey_levels()[:] = 7
    assert read.grey_levels().max() <= 1


def test_grey_levels_of_a_part():
    read = Radiograph.from_dicom(make_dicom(STORED, bits_stored=12, padding=0))
    whole = read.grey_levels()
    assert whole.dtype == np.float32
    assert whole.shape == read.shape == (160, 128)
    part = read.grey_levels(slice(20, 90), slice(100, None))
    np.testing.assert_array_equal(part, whole[20:90, 100:])


def test_no_patient_data_in_words():
    read = Radiograph.from_dicom(make_dicom(STORED, bits_stored=12))
    for words in (repr(read), str(read)):
        assert PATIENT_ID not in words
        assert PATIENT_NAME not in words
        assert "1.2.826" not in words


@pytest.mark.parametrize("modality", ["CR", "DX", "RG"])
def test_radiography_is_accepted(modality):
    assert Radiograph.from_dicom(make_dicom(PIXELS, Modality=modality)).shape == (64, 64)


def test_other_modalities_only_when_asked_for():
    data = make_dicom(PIXELS, Modality="OT")
    assert refusal(data) is Reason.WRONG_MODALITY
    assert Radiograph.from_dicom(data, allow_modalities=("ot",)).shape == (64, 64)
    assert refusal(make_dicom(PIXELS, Modality=None)) is Reason.WRONG_MODALITY


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"ConversionType": "WSD"}, Reason.WRONG_MODALITY),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, Reason.WRONG_MODALITY),
        ({"PresentationIntentType": "FOR PROCESSING"}, Reason.NOT_FOR_PRESENTATION),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}, Reason.NOT_FOR_PRESENTATION),
        ({"NumberOfFrames": 2}, Reason.MULTI_FRAME),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, Reason.UNSUPPORTED_PIXELS),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.UNSUPPORTED_PIXELS),
        ({"PhotometricInterpretation": None}, Reason.UNSUPPORTED_PIXELS),
        ({"BitsAllocated": 32}, Reason.UNSUPPORTED_PIXELS),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, Reason.UNSUPPORTED_PIXELS),
        ({"BitsStored": 9}, Reason.UNSUPPORTED_PIXELS),
        ({"PixelData": None}, Reason.NOT_AN_IMAGE),
        ({"PixelData": None, "FloatPixelData": b"\0" * 16384}, Reason.UNSUPPORTED_PIXELS),
        ({"Rows": 20_000}, Reason.TOO_LARGE),
        ({"Rows": 63}, Reason.TOO_SMALL),
        ({"Rows": None}, Reason.TOO_SMALL),
    ],
)
def test_what_is_no_radiograph_is_refused(attributes, reason):
    assert refusal(make_dicom(PIXELS, **attributes)) is reason


@pytest.mark.parametrize(
    "data", [b"", b"DICM", b"not DICOM at all" * 20, b"\0" * 128 + b"DICM", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_dicom_is_refused(data):
    assert refusal(data) is Reason.NOT_DICOM


def test_files_that_cannot_be_read(tmp_path):
    assert refusal(tmp_path / "none.dcm") is Reason.UNREADABLE_FILE
    assert refusal(tmp_path) is Reason.UNREADABLE_FILE
    assert refusal("a\0b") is Reason.UNREADABLE_FILE
    assert refusal("/dev/zero") is Reason.UNREADABLE_FILE
    closed = io.BytesIO()
    closed.close()
    assert refusal(closed) is Reason.UNREADABLE_FILE


def test_sources_of_a_wrong_kind():
    for source in (None, 7, io.StringIO("text")):
        with pytest.raises(UsageError):
            Radiograph.from_dicom(source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        (
            {"PixelSpacing": [0.1, 0.2], "ImagerPixelSpacing": [0.3, 0.3]},
            PixelSpacing(0.1, 0.2, "PixelSpacing"),
        ),
        ({"ImagerPixelSpacing": [0.3, 0.4]}, PixelSpacing(0.3, 0.4, "ImagerPixelSpacing")),
        (
            {"NominalScannedPixelSpacing": [0.5, 0.5]},
            PixelSpacing(0.5, 0.5, "NominalScannedPixelSpacing"),
        ),
        ({"PixelSpacing": [0, 0]}, None),
        ({}, None),
    ],
)
def test_spacing_says_where_it_comes_from(spacing, expected):
    read = Radiograph.from_dicom(make_dicom(PIXELS, **{"ImagerPixelSpacing": None, **spacing}))
    assert read.pixel_spacing == expected
    assert (Flag.NO_PIXEL_SPACING in read.flags) == (expected is None)


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ({}, datetime(2024, 5, 13, 10, 15)),
        (
            {"AcquisitionDateTime": "20240514091502.25+0200"},
            datetime(2024, 5, 14, 9, 15, 2, 250_000),
        ),
        ({"AcquisitionTime": "0915"}, datetime(2024, 5, 13, 9, 15)),
        (
            {"AcquisitionTime": None, "ContentDate": "20240515", "ContentTime": "080910.5"},
            datetime(2024, 5, 15, 8, 9, 10, 500_000),
        ),
        ({"AcquisitionTime": None}, None),
        ({"AcquisitionDate": "20241399"}, None),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
def test_when_it_was_taken(stamps, expected):
    assert Radiograph.from_dicom(make_dicom(PIXELS, **stamps)).acquired_at == expected


def test_flags():
    assert Radiograph.from_dicom(make_dicom(PIXELS)).flags == ()
    for attributes, flag in (
        ({"BurnedInAnnotation": "YES"}, Flag.BURNED_IN_ANNOTATION),
        ({"ImageComments": "SIMULATED RADIOGRAPH, NOT A PATIENT"}, Flag.SIMULATED_INPUT),
        ({"DerivationDescription": "Simulated from a phantom"}, Flag.SIMULATED_INPUT),
        ({"WindowCenter": 10, "WindowWidth": 20}, Flag.SATURATED),
    ):
        assert Radiograph.from_dicom(make_dicom(PIXELS, **attributes)).flags == (flag,)
    assert Radiograph.from_dicom(make_dicom(scene(8, 64, 200))).flags == (Flag.ODD_ASPECT_RATIO,)


PNG = cv2.imencode(".png", STORED * 16)[1].tobytes()


def encoded(suffix: str, pixels: np.ndarray) -> bytes:
    done, data = cv2.imencode(suffix, pixels)
    assert done
    return data.tobytes()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("bits", [8, 16])
def test_image_files(suffix, bits, tmp_path):
    stored = scene(bits)
    path = tmp_path / f"image{suffix}"
    path.write_bytes(encoded(suffix, stored))
    read = Radiograph.from_image(path, view="lateral", laterality="right", pixel_spacing_mm=0.2)
    np.testing.assert_array_equal(read.stored, stored)
    top = 2**bits - 1
    np.testing.assert_allclose(read.grey_levels(), stored / top, atol=1e-6)
    assert read.view == Finding(View.LATERAL, "operator")
    assert read.laterality == Finding(Laterality.RIGHT, "operator")
    assert read.anatomy == Finding(None, "none")
    assert read.pixel_spacing == PixelSpacing(0.2, 0.2, "operator")
    assert read.overrides == {"view": "lateral", "laterality": "right"}
    assert read.flags == (Flag.OPERATOR_OVERRIDE,)
    assert read.voi == "none: range of the pixels"
    assert (read.sop_instance_uid, read.acquired_at) == (None, None)


def test_jpeg_files_grey_or_grey_stored_as_colour():
    stored = scene(8)
    colour = cv2.cvtColor(stored, cv2.COLOR_GRAY2BGR)
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    for data in (
        encoded(".jpg", stored),
        encoded(".jpg", colour),
        cv2.imencode(".jpg", stored, progressive)[1].tobytes(),
    ):
        read = Radiograph.from_image(data)
        assert np.abs(read.stored.astype(int) - stored).max() < 30
        assert read.flags == (Flag.NO_PIXEL_SPACING,)


def test_dark_bone_is_inverted():
    stored = scene(8)
    upright = Radiograph.from_image(encoded(".png", stored)).grey_levels()
    mirrored = Radiograph.from_image(encoded(".png", 255 - stored), inverted=True)
    np.testing.assert_array_equal(mirrored.grey_levels(), upright)
    tiff = bytearray(encoded(".tiff", 255 - stored))
    entry = tiff.find(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01\x00")
    assert entry > 0
    tiff[entry + 8] = 0  # PhotometricInterpretation: white is zero
    np.testing.assert_array_equal(Radiograph.from_image(bytes(tiff)).grey_levels(), upright)


def image_refusal(data: bytes) -> Reason:
    with pytest.raises(InputRefused) as refused:
        Radiograph.from_image(data)
    return refused.value.code


def test_images_that_are_refused():
    colour = np.dstack([scene(8), scene(8, seed=1), scene(8)])
    assert image_refusal(encoded(".png", colour)) is Reason.UNSUPPORTED_PIXELS
    alpha = np.dstack([scene(8)] * 4)
    assert image_refusal(encoded(".png", alpha)) is Reason.UNSUPPORTED_PIXELS
    assert image_refusal(encoded(".png", scene(8, 32, 90))) is Reason.TOO_SMALL
    assert image_refusal(encoded(".bmp", scene(8))) is Reason.NOT_AN_IMAGE
    assert image_refusal(b"") is Reason.NOT_AN_IMAGE
    assert image_refusal(make_dicom(PIXELS)) is Reason.NOT_AN_IMAGE
    one_bit = cv2.imencode(".png", scene(8), [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()
    assert image_refusal(one_bit) is Reason.UNSUPPORTED_PIXELS
    floats = encoded(".tiff", scene(8).astype(np.float32))
    assert image_refusal(floats) is Reason.UNSUPPORTED_PIXELS
    pages = cv2.imencodemulti(".tiff", [scene(8), scene(8)])[1].tobytes()
    assert image_refusal(pages) is Reason.MULTI_FRAME
    assert image_refusal(encoded(".png", np.full((80, 80), 9, np.uint8))) is Reason.EMPTY_IMAGE


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff"])
def test_images_cut_short_are_refused(suffix):
    data = encoded(suffix, scene(8))
    for kept in (0.05, 0.5, 0.9):
        reason = image_refusal(data[: int(len(data) * kept)])
        assert reason in (Reason.NOT_AN_IMAGE, Reason.CORRUPT_PIXELS), kept


def test_images_that_declare_too_much_are_refused_before_decoding():
    huge = bytearray(PNG)
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    assert image_refusal(bytes(huge)) is Reason.TOO_LARGE
    jpeg = bytearray(imagecodecs.jpeg8_encode(scene(8)))
    at = jpeg.find(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    assert image_refusal(bytes(jpeg)) is Reason.TOO_LARGE


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_arrays(dtype):
    array = scene(8).astype(dtype)
    read = Radiograph.from_array(array, view=View.AP, anatomy="hip", pixel_spacing_mm=(0.1, 0.2))
    array[:] = 0
    np.testing.assert_array_equal(read.stored, scene(8))
    np.testing.assert_allclose(read.grey_levels(), scene(8) / 255, atol=1e-6)
    assert read.pixel_spacing == PixelSpacing(0.1, 0.2, "operator")
    assert read.overrides == {"view": "ap", "anatomy": "hip"}


def test_arrays_of_negative_values_and_of_other_byte_order():
    values = scene(16).astype(np.int32) - 32768
    read = Radiograph.from_array(values.astype(">i2"))
    np.testing.assert_array_equal(read.stored, values)
    np.testing.assert_allclose(read.grey_levels(), (values + 32768) / 65535, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((80, 80, 3), np.uint8), Reason.NOT_AN_IMAGE),
        (np.zeros((80, 80), np.float32), Reason.NOT_AN_IMAGE),
        (np.zeros((80, 80), np.int64), Reason.NOT_AN_IMAGE),
        ("image", Reason.NOT_AN_IMAGE),
        ([[1, 2], [3]], Reason.NOT_AN_IMAGE),
        (np.zeros((80, 80), np.uint8), Reason.EMPTY_IMAGE),
        (np.zeros((8, 80), np.uint8), Reason.TOO_SMALL),
        (np.broadcast_to(np.uint8(0), (9000, 9000)), Reason.TOO_LARGE),
    ],
)
def test_arrays_that_are_refused(array, reason):
    with pytest.raises(InputRefused) as refused:
        Radiograph.from_array(array)
    assert refused.value.code is reason


@pytest.mark.parametrize("spacing", [0, -1, float("nan"), (0.1,), (0.1, 0.2, 0.3), "wide", (1, 0)])
def test_spacings_that_mean_nothing(spacing):
    with pytest.raises(UsageError):
        Radiograph.from_array(PIXELS, pixel_spacing_mm=spacing)


def test_the_pixel_digest_knows_values_type_and_shape():
    digests = {
        Radiograph.from_array(array).pixel_sha256
        for array in (
            PIXELS,
            PIXELS.astype(np.uint16),
            PIXELS.T,
            scene(8, 64, 128),
            scene(8, 128, 64),
        )
    }
    assert len(digests) == 5


def test_no_pydicom_until_dicom_is_read():
    program = (
        "import sys; from hipnet_edge.radiograph import Radiograph;"
        "loaded = {name.split('.')[0] for name in sys.modules};"
        "assert not loaded & {'pydicom', 'imagecodecs', 'cv2'}, loaded"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_only_the_attributes_that_are_needed_are_read():
    header = read_dicom(make_dicom(PIXELS)).header
    assert "Rows" in header
    assert "PatientName" not in header
    assert "SeriesInstanceUID" not in header
