"""Stored values to grey levels, against pydicom's functions and the standard's worked numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dicom_files import NATIVE, look_up_table, make_dataset, make_dicom, scene, to_bytes
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from hipnet_edge.errors import InputRefused, Reason
from hipnet_edge.radiograph import Radiograph

RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
"""Every 12-bit value once."""


def grey_of(stored: np.ndarray, **attributes: Any) -> dict[int, float]:
    """Grey level by stored value."""
    options = {"bits_stored": 12, **attributes}
    read = Radiograph.from_dicom(make_dicom(stored, **options))
    return dict(zip(read.stored.ravel().tolist(), read.grey_levels().ravel().tolist(), strict=True))


# PS3.3 C.11.2.1.2.1, note: window centre, width, and stored values with their output of 255
@pytest.mark.parametrize(
    ("center", "width", "expected"),
    [
        (2048, 4096, {0: 0.0, 4095: 1.0, 2047: 127.46887 / 255, 1000: 1000 / 4095}),
        (2048, 1, {2047: 0.0, 2048: 1.0}),
        (100, 100, {50: 0.0, 51: 1 / 99, 149: 1.0, 148: 98 / 99}),
        (100, 1, {99: 0.0, 100: 1.0}),
    ],
)
def test_linear_windows_of_the_standard(center, width, expected):
    grey = grey_of(RAMP, WindowCenter=center, WindowWidth=width)
    for value, level in expected.items():
        assert grey[value] == pytest.approx(level, abs=1e-6), value


@pytest.mark.parametrize(
    ("center", "width", "expected"),
    [
        (2048, 4096, {0: 0.0, 4095: 4095 / 4096, 2048: 0.5}),
        (100, 100, {50: 0.0, 51: 0.01, 150: 1.0, 149: 0.99}),
        (100, 1, {99: 0.0, 100: 0.5, 101: 1.0}),
    ],
)
def test_exact_linear_windows_of_the_standard(center, width, expected):
    grey = grey_of(RAMP, WindowCenter=center, WindowWidth=width, VOILUTFunction="LINEAR_EXACT")
    for value, level in expected.items():
        assert grey[value] == pytest.approx(level, abs=1e-6), value


def test_sigmoid_window():
    grey = grey_of(RAMP, WindowCenter=2000, WindowWidth=800, VOILUTFunction="SIGMOID")
    for value in (0, 1500, 2000, 2300, 4095):
        assert grey[value] == pytest.approx(1 / (1 + np.exp(-4 * (value - 2000) / 800)), abs=1e-6)


SHAPE = (np.linspace(0, 1, 4096) ** 2.2 * 1023).astype(np.uint16)
SIGNED = (RAMP.astype(np.int32) - 2048).astype(np.int16)
HEADERS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "linear": (RAMP, {"WindowCenter": 1800, "WindowWidth": 2500}),
    "first of two windows": (RAMP, {"WindowCenter": [1800, 90], "WindowWidth": [2500, 40]}),
    "exact": (
        RAMP,
        {"WindowCenter": 1800.5, "WindowWidth": 2500.25, "VOILUTFunction": "LINEAR_EXACT"},
    ),
    "sigmoid": (
        RAMP,
        {"WindowCenter": 1800, "WindowWidth": 2500, "VOILUTFunction": "SIGMOID"},
    ),
    "rescale": (
        RAMP,
        {
            "RescaleSlope": "0.5",
            "RescaleIntercept": "-300",
            "WindowCenter": 500,
            "WindowWidth": 900,
        },
    ),
    "signed": (SIGNED, {"WindowCenter": 200, "WindowWidth": 2500}),
    "voi lut": (RAMP, {"VOILUTSequence": [look_up_table(SHAPE, 0, 10)]}),
    "voi lut before windows": (
        RAMP,
        {
            "VOILUTSequence": [look_up_table(SHAPE[:2000], 700, 10), look_up_table(SHAPE, 0, 10)],
            "WindowCenter": 99,
            "WindowWidth": 9,
        },
    ),
    "voi lut in words": (RAMP, {"VOILUTSequence": [look_up_table(SHAPE, 0, 10, words=True)]}),
    "voi lut of negative values": (
        SIGNED,
        {"VOILUTSequence": [look_up_table(SHAPE, -2048, 10)]},
    ),
    "modality lut and window": (
        RAMP,
        {
            "ModalityLUTSequence": [look_up_table(SHAPE, 0, 16)],
            "WindowCenter": 500,
            "WindowWidth": 700,
        },
    ),
    "modality lut and voi lut": (
        RAMP,
        {
            "ModalityLUTSequence": [look_up_table(SHAPE, 0, 16)],
            "VOILUTSequence": [look_up_table(SHAPE[:1024], 0, 10)],
        },
    ),
}
HEADERS["modality lut and window"][1]["ModalityLUTSequence"][0].add_new(
    "ModalityLUTType", "LO", "US"
)


def scaled_by_pydicom(stored: np.ndarray, header: dict[str, Any]) -> np.ndarray:
    """pydicom's modality and VOI transforms, scaled to [0, 1] by the output range they state."""
    dataset = make_dataset(stored, bits_stored=12, **header)
    shown = apply_voi_lut(apply_modality_lut(stored, dataset), dataset).astype(np.float64)
    if "VOILUTSequence" in header:
        return shown / (2 ** header["VOILUTSequence"][0].LUTDescriptor[2] - 1)
    low, high = (0, 4095) if stored.dtype == np.uint16 else (-2048, 2047)
    if "ModalityLUTSequence" in header:
        low, high = 0, 65535
    if "RescaleSlope" in header:
        slope, intercept = float(header["RescaleSlope"]), float(header["RescaleIntercept"])
        low, high = low * slope + intercept, high * slope + intercept
    return (shown - low) / (high - low)


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("name", HEADERS)
def test_tables_agree_with_pydicom(name, syntax):
    stored, header = HEADERS[name]
    if syntax == ExplicitVRBigEndian and "words" in name:
        header = {"VOILUTSequence": [look_up_table(SHAPE.byteswap(), 0, 10, words=True)]}
    data = make_dicom(stored, bits_stored=12, transfer_syntax=syntax, **header)
    expected = scaled_by_pydicom(*HEADERS[name])
    np.testing.assert_allclose(Radiograph.from_dicom(data).grey_levels(), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("attributes", "voi"),
    [
        ({"VOILUTSequence": [look_up_table(SHAPE, 0, 10)]}, "VOILUTSequence[0]"),
        ({"WindowCenter": 9, "WindowWidth": 9}, "Window[0] LINEAR"),
        (
            {"WindowCenter": 9, "WindowWidth": 9, "VOILUTFunction": "SIGMOID"},
            "Window[0] SIGMOID",
        ),
        ({}, "none: range of the pixels"),
        ({"WindowCenter": 9, "WindowWidth": 0}, "none: range of the pixels"),
        ({"WindowCenter": 9}, "none: range of the pixels"),
        ({"VOILUTSequence": []}, "none: range of the pixels"),
    ],
)
def test_the_value_of_interest_is_recorded(attributes, voi):
    assert Radiograph.from_dicom(make_dicom(RAMP, bits_stored=12, **attributes)).voi == voi


def test_eight_bit_tables_packed_two_to_a_word():
    entries = np.arange(256, dtype=np.uint8)[::-1]
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 8])
    item.add_new("LUTData", "OW", entries.tobytes())
    stored = scene(8)
    read = Radiograph.from_dicom(make_dicom(stored, VOILUTSequence=[item]))
    np.testing.assert_allclose(read.grey_levels(), (255 - stored.astype(float)) / 255, atol=1e-6)


def test_a_table_with_more_bits_than_it_declares_is_not_cut_off():
    item = look_up_table(SHAPE.astype(np.uint16) * 4, 0, 10)  # 12 bits, declared as 10
    read = Radiograph.from_dicom(make_dicom(RAMP, bits_stored=12, VOILUTSequence=[item]))
    assert read.grey_levels()[-1, -1] == pytest.approx(1023 * 4 / 4095, abs=1e-5)
    assert len(np.unique(read.grey_levels())) == len(np.unique(SHAPE))


@pytest.mark.parametrize(
    "item",
    [look_up_table(SHAPE[:10], 0, 10), look_up_table(SHAPE, 0, 3), Dataset()],
    ids=["short", "bits", "empty"],
)
def test_damaged_tables_are_refused(item):
    if item and item.LUTDescriptor[2] == 10:
        item.LUTDescriptor = [4096, 0, 10]
    with pytest.raises(InputRefused) as refused:
        Radiograph.from_dicom(make_dicom(RAMP, bits_stored=12, VOILUTSequence=[item]))
    assert refused.value.code is Reason.CORRUPT_PIXELS


TOP = 4095
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no window": ({}, {}),
    "linear": (
        {"WindowCenter": 1800, "WindowWidth": 2501},
        {"WindowCenter": TOP + 1 - 1800, "WindowWidth": 2501},
    ),
    "exact": (
        {"WindowCenter": 1800, "WindowWidth": 2501, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": TOP - 1800, "WindowWidth": 2501, "VOILUTFunction": "LINEAR_EXACT"},
    ),
    "sigmoid": (
        {"WindowCenter": 1800, "WindowWidth": 2501, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": TOP - 1800, "WindowWidth": 2501, "VOILUTFunction": "SIGMOID"},
    ),
    "lut": (
        {"VOILUTSequence": [look_up_table(SHAPE, 0, 10)]},
        {"VOILUTSequence": [look_up_table(1023 - SHAPE[::-1], 0, 10)]},
    ),
}


@pytest.mark.parametrize("shape", [None, "stated"])
@pytest.mark.parametrize(("upright", "mirrored"), TWINS.values(), ids=TWINS)
def test_both_polarities_give_the_same_bits(upright, mirrored, shape):
    stored = scene(12)
    keep = {} if shape else {"PresentationLUTShape": None}
    two = Radiograph.from_dicom(make_dicom(stored, bits_stored=12, **upright, **keep))
    one = Radiograph.from_dicom(
        make_dicom(TOP - stored, bits_stored=12, photometric="MONOCHROME1", **mirrored, **keep)
    )
    assert two.grey_levels().tobytes() == one.grey_levels().tobytes()
    # Bright is dense: the scene's block of the largest value is white.
    assert two.grey_levels()[60, 50] == two.grey_levels().max()


def test_polarity_is_applied_once():
    stored = scene(12)

    def grey(photometric: str, shape: str | None) -> np.ndarray:
        data = make_dicom(
            stored, bits_stored=12, photometric=photometric, PresentationLUTShape=shape
        )
        return Radiograph.from_dicom(data).grey_levels()

    upright, inverse = grey("MONOCHROME2", None), grey("MONOCHROME1", None)
    np.testing.assert_array_equal(inverse, 1 - upright)
    np.testing.assert_array_equal(grey("MONOCHROME1", "INVERSE"), inverse)
    np.testing.assert_array_equal(grey("MONOCHROME2", "INVERSE"), inverse)
    np.testing.assert_array_equal(grey("MONOCHROME2", "IDENTITY"), upright)


def bordered(stored: np.ndarray, value: int) -> np.ndarray:
    framed = np.full((stored.shape[0] + 40, stored.shape[1] + 30), value, stored.dtype)
    framed[20:-20, 15:-15] = stored
    return framed


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_padding_is_masked_and_changes_nothing_else(syntax, photometric):
    stored = np.clip(scene(12), 100, 3900)
    options: dict[str, Any] = {"bits_stored": 12, "photometric": photometric}
    plain = Radiograph.from_dicom(make_dicom(stored, **options))
    for value in (0, 4095):
        data = make_dicom(bordered(stored, value), padding=value, transfer_syntax=syntax, **options)
        padded = Radiograph.from_dicom(data)
        np.testing.assert_array_equal(
            padded.grey_levels(slice(20, -20), slice(15, -15)), plain.grey_levels()
        )
        grey = padded.grey_levels()
        grey[20:-20, 15:-15] = 0
        assert not grey.any()
        assert padded.valid is not None
        assert padded.valid.sum() == stored.size
    assert plain.valid is None


def test_a_range_of_padding():
    stored = np.clip(scene(12), 100, 3900)
    framed = bordered(stored, 7)
    framed[:10] = 90
    read = Radiograph.from_dicom(
        make_dicom(framed, bits_stored=12, padding=95, PixelPaddingRangeLimit=5)
    )
    assert read.valid is not None
    assert read.valid.sum() == stored.size


@pytest.mark.parametrize("vr", ["SS", "US"])
def test_negative_padding_however_it_is_written(vr):
    stored = (np.clip(scene(12), 100, 3900).astype(np.int32) - 2048).astype(np.int16)
    dataset = make_dataset(bordered(stored, -2048), bits_stored=12)
    dataset.add_new("PixelPaddingValue", vr, -2048 if vr == "SS" else 0x10000 - 2048)
    read = Radiograph.from_dicom(to_bytes(dataset))
    assert read.valid is not None
    assert read.valid.sum() == stored.size


def test_a_rectangular_shutter():
    data = make_dicom(
        scene(12),
        bits_stored=12,
        ShutterShape="RECTANGULAR",
        ShutterLeftVerticalEdge=11,
        ShutterRightVerticalEdge=100,
        ShutterUpperHorizontalEdge=21,
        ShutterLowerHorizontalEdge=140,
    )
    expected = np.zeros((160, 128), bool)
    expected[20:140, 10:100] = True
    read = Radiograph.from_dicom(data)
    np.testing.assert_array_equal(read.valid, expected)
    assert not read.grey_levels()[~expected].any()


def test_circular_and_polygonal_shutters_are_combined():
    data = make_dicom(
        scene(12),
        bits_stored=12,
        ShutterShape=["CIRCULAR", "POLYGONAL"],
        CenterOfCircularShutter=[81, 65],
        RadiusOfCircularShutter=50,
        VerticesOfThePolygonalShutter=[1, 1, 1, 128, 81, 128, 81, 1],
    )
    row, column = np.mgrid[1:161, 1:129]
    circle = (row - 81) ** 2 + (column - 65) ** 2 <= 50**2
    np.testing.assert_array_equal(Radiograph.from_dicom(data).valid, circle & (row <= 81))


@pytest.mark.parametrize(
    "attributes",
    [
        {"padding": 500},
        {
            "ShutterShape": "CIRCULAR",
            "CenterOfCircularShutter": [900, 900],
            "RadiusOfCircularShutter": 5,
        },
        {},
        {"WindowCenter": 3000, "WindowWidth": 10},
    ],
    ids=["all padding", "all behind the shutter", "one value", "outside the window"],
)
def test_images_without_a_picture_are_refused(attributes):
    with pytest.raises(InputRefused) as refused:
        Radiograph.from_dicom(
            make_dicom(np.full((80, 80), 500, np.uint16), bits_stored=12, **attributes)
        )
    assert refused.value.code is Reason.EMPTY_IMAGE


def test_an_incomplete_shutter_hides_nothing():
    data = make_dicom(
        scene(12), bits_stored=12, ShutterShape=["RECTANGULAR", "CIRCULAR", "POLYGONAL", "BITMAP"]
    )
    assert Radiograph.from_dicom(data).valid is None


def test_a_negative_first_value_stored_as_unsigned():
    item = look_up_table(SHAPE, 0x10000 - 2048, 10)
    read = Radiograph.from_dicom(make_dicom(SIGNED, bits_stored=12, VOILUTSequence=[item]))
    np.testing.assert_allclose(read.grey_levels().ravel(), SHAPE / 1023, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_a_window_that_is_no_number_is_refused():
    with pytest.raises(InputRefused) as refused:
        Radiograph.from_dicom(
            make_dicom(RAMP, bits_stored=12, WindowCenter="nan", WindowWidth="100")
        )
    assert refused.value.code is Reason.NOT_DICOM


def test_a_rescale_to_nothing_is_refused():
    with pytest.raises(InputRefused) as refused:
        Radiograph.from_dicom(make_dicom(RAMP, bits_stored=12, RescaleSlope=0))
    assert refused.value.code is Reason.CORRUPT_PIXELS
