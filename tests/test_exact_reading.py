"""The fast way from file to network input gives the bits of the straightforward computation.

Strategy: studies with padding, shutters, signed pixels, MONOCHROME1 and crops that reach outside
the field are read and preprocessed; the same is computed again from arrays of the whole image,
one plain step after the other, and compared bit for bit.
"""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import cv2
import numpy as np
import pytest
from dicom_files import NATIVE, can_encode, make_dicom
from phantoms import hip_phantom, stored_values
from pydicom.uid import (
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from hipnet_edge import grey_levels
from hipnet_edge.encoded import EncodedRadiograph
from hipnet_edge.errors import InputRefused, Reason
from hipnet_edge.preprocessing import InputSpec, preprocess_study
from hipnet_edge.radiograph import Radiograph
from hipnet_edge.study import Study
from hipnet_edge.survey import survey_of
from hipnet_edge.vocabulary import VIEWS, Flag, View

SPEC = InputSpec()
BITS = 12
ROWS, COLUMNS = 760, 600
SHUTTER = {
    "ShutterShape": "CIRCULAR",
    "CenterOfCircularShutter": [380, 310],
    "RadiusOfCircularShutter": 371,
}


@cache
def drawn(view, **changes):
    return stored_values(hip_phantom(40 + VIEWS.index(view), **changes).grey, BITS)


def padded(stored):
    stored = stored.copy()
    stored[:, :110] = 4095
    stored[700:] = 4095
    return stored


def plain(view):
    return drawn(view), {}


def with_padding(view):
    return padded(drawn(view)), {"padding": 4095}


def with_shutter(view):
    return drawn(view), SHUTTER


def with_padding_and_shutter(view):
    return padded(drawn(view)), {"padding": 4095, **SHUTTER}


def signed(view):
    values = drawn(view).astype(np.int16) - 2048
    return values, {"WindowCenter": 120, "WindowWidth": 3900}


def inverse(view):
    return 4095 - drawn(view), {"photometric": "MONOCHROME1"}


def outside_the_field(view):
    """Without a prosthesis the whole field is seen, and a box of another aspect ratio around it."""
    return drawn(view, implants=(False,), collimation=(0.1, 0.0, 0.0, 0.2), border=1.0), {}


def enlarged(view):
    return drawn(view, mm=1.2), {}


CASES = (
    *(plain, with_padding, with_shutter, with_padding_and_shutter),
    *(signed, inverse, outside_the_field, enlarged),
)


def files(case, transfer_syntax=NATIVE[1]):
    made = []
    for view in VIEWS:
        stored, options = case(view)
        name = {View.AP: ("AP", "1.2.3.1"), View.LATERAL: ("LL", "1.2.3.2")}[view]
        made.append(
            make_dicom(
                stored, bits_stored=BITS, transfer_syntax=transfer_syntax, ViewPosition=name[0],
                SOPInstanceUID=name[1], **options,
            )
        )  # fmt: skip
    return made


def study(case, transfer_syntax=NATIVE[1], **options):
    return Study(*(Radiograph.from_dicom(data, **options) for data in files(case, transfer_syntax)))


def plain_levels(radiograph):
    table = radiograph.grey_table
    levels = table.levels[radiograph.stored.astype(np.int64) - table.first]
    return levels if radiograph.valid is None else levels * radiograph.valid


def plain_input(radiograph, geometry, field):
    """The network's pixels by whole arrays: look up, mask, lay, resize, stretch."""
    grey, counts = plain_levels(radiograph), np.zeros(radiograph.shape, np.float32)
    box, (rows, columns) = geometry.box, geometry.network_shape
    counts[field.slices] = 1.0 if radiograph.valid is None else radiograph.valid[field.slices]
    cut = [np.zeros((box.height, box.width), np.float32) for _ in range(2)]
    seen = box.clip(field)
    for whole, part in zip((grey, counts), cut, strict=True):
        part[seen.shifted(-box.top, -box.left).slices] = whole[seen.slices]
    how = cv2.INTER_AREA if rows <= box.height else cv2.INTER_LINEAR
    resized, covered = (cv2.resize(part, (columns, rows), interpolation=how) for part in cut)
    inside = cut[1][seen.shifted(-box.top, -box.left).slices]
    if inside.all():  # a rectangle: what it covers is the product of what its two sides cover
        down = cv2.resize(cut[1].max(axis=1)[:, None], (1, rows), interpolation=how)
        covered = down * cv2.resize(cut[1].max(axis=0)[None], (columns, 1), interpolation=how)
    if not cut[1].all():
        resized = resized / np.maximum(covered, np.float32(0.5))
    low, high = np.percentile(resized[covered > 0.5], (SPEC.low_percentile, SPEC.high_percentile))
    pixels = (resized - np.float32(low)) * np.float32(1.0 / max(high - low, 1e-6))
    pixels = np.clip(pixels, -0.25, 1.25)
    pixels[covered <= 0.5] = 0.0
    pixels = (pixels - np.float32(SPEC.mean)) * np.float32(1 / SPEC.std)
    return pixels[:, ::-1] if geometry.mirrored else pixels


@pytest.mark.parametrize("case", CASES)
def test_the_input_has_the_bits_of_the_straightforward_computation(case):
    read = study(case)
    result = preprocess_study(read, SPEC)
    for view in VIEWS:
        radiograph, given = read.views[view], case(view)[0]
        np.testing.assert_array_equal(radiograph.stored, given)
        assert radiograph.stored.dtype == given.dtype
        np.testing.assert_array_equal(radiograph.grey_levels(), plain_levels(radiograph))
        geometry = result.views[view].geometry
        expected = plain_input(radiograph, geometry, survey_of(radiograph).field)
        assert result.views[view].pixels.tobytes() == expected.tobytes()
        digest = hashlib.sha256(f"{given.dtype.name} {given.shape}".encode() + given.tobytes())
        assert radiograph.pixel_sha256 == digest.hexdigest()


def test_the_cases_are_what_they_say():
    assert all(radiograph.valid is None for radiograph in study(plain).views.values())
    for case in (with_padding, with_shutter, with_padding_and_shutter):
        for radiograph in study(case).views.values():
            assert radiograph.valid is not None
            assert 0.05 < 1.0 - radiograph.valid.mean() < 0.7
    outside = preprocess_study(study(outside_the_field), SPEC)
    assert Flag.NO_IMPLANT in outside.flags
    boxes = [outside.views[view].geometry.box for view in VIEWS]
    assert any(box.top < 0 or box.left < 0 or box.bottom > ROWS for box in boxes)
    assert preprocess_study(study(enlarged), SPEC).views[View.AP].geometry.box.height < 512


def test_a_circular_shutter_opens_what_its_radius_reaches():
    radiograph = study(with_shutter).ap
    row, column = np.mgrid[1 : ROWS + 1, 1 : COLUMNS + 1]
    inside = (row - 380.0) ** 2 + (column - 310.0) ** 2 <= 371.0**2
    np.testing.assert_array_equal(radiograph.valid, inside)


@pytest.mark.parametrize("case", [plain, signed, with_padding])
def test_without_16_bit_tables_in_opencv_the_same_grey_levels_come_out(case, monkeypatch):
    expected = [plain_levels(radiograph) for radiograph in study(case).views.values()]
    monkeypatch.setattr(grey_levels, "_opencv_looks_up_words", lambda: False)
    for radiograph, levels in zip(study(case).views.values(), expected, strict=True):
        np.testing.assert_array_equal(radiograph.grey_levels(), levels)


@pytest.mark.parametrize(
    "transfer_syntax",
    [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless, *NATIVE],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_lossless_encoding_and_number_of_threads_gives_the_same_input(
    transfer_syntax, threads
):
    if not can_encode(transfer_syntax):
        pytest.skip("imagecodecs for Python 3.10 cannot encode HTJ2K")
    expected = preprocess_study(study(with_padding), SPEC)
    read = study(with_padding, transfer_syntax, decode_threads=threads)
    result = preprocess_study(read, SPEC)
    assert result.radiographs.tobytes() == expected.radiographs.tobytes()
    assert result.flags == expected.flags


def test_views_side_by_side_give_the_same_input():
    read = study(with_padding_and_shutter)
    expected = preprocess_study(read, SPEC)
    with ThreadPoolExecutor(2) as pool:
        result = preprocess_study(read, SPEC, mapper=pool.map)
    assert result.radiographs.tobytes() == expected.radiographs.tobytes()
    assert result.views.keys() == expected.views.keys()
    for view in VIEWS:
        assert result.views[view].geometry == expected.views[view].geometry
        assert result.views[view].implant == expected.views[view].implant


def test_a_refusal_comes_through_the_mapper():
    flat = np.zeros((ROWS, COLUMNS), np.uint16)
    flat[:10] = 4095
    bare = [
        Radiograph.from_array(values, view=view, laterality="left")
        for view, values in zip(VIEWS, (flat, flat[::-1]), strict=True)
    ]
    with ThreadPoolExecutor(2) as pool, pytest.raises(InputRefused) as caught:
        preprocess_study(Study(*bare), SPEC, mapper=pool.map)
    assert caught.value.code is Reason.NOT_A_HIP


def test_a_header_is_read_before_its_pixels_are_decoded():
    data = files(plain, JPEGLosslessSV1)[0]
    encoded = EncodedRadiograph.from_dicom(data)
    once = Radiograph.from_encoded(encoded)
    assert once.pixel_sha256 == Radiograph.from_dicom(data).pixel_sha256
    cut = EncodedRadiograph.from_dicom(data[: len(data) // 2])
    with pytest.raises(InputRefused) as caught:
        Radiograph.from_encoded(cut)
    assert caught.value.code is Reason.CORRUPT_PIXELS
    with pytest.raises(InputRefused) as caught:
        EncodedRadiograph.from_dicom(make_dicom(drawn(View.AP), Modality="CT"))
    assert caught.value.code is Reason.WRONG_MODALITY


def test_no_patient_data_in_what_is_shown_of_a_header():
    shown = repr(EncodedRadiograph.from_dicom(files(plain)[0]))
    assert "Mustermann" not in shown
    assert "HOSPITAL" not in shown


def test_reading_does_not_wait_for_the_hash():
    """The hash of a large uncompressed view takes longer than reading it; it is taken once."""
    data = make_dicom(np.tile(drawn(View.AP), (6, 6)), bits_stored=BITS)
    reading, hashing = [], []
    for _ in range(4):
        started = time.thread_time()
        radiograph = Radiograph.from_dicom(data)
        read = time.thread_time()
        digest = radiograph.pixel_sha256
        hashing.append(time.thread_time() - read)
        reading.append(read - started)
    assert min(reading) < min(hashing)
    assert Study(radiograph, study(plain).lateral).ap.pixel_sha256 is digest
