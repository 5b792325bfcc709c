"""Maps and page as DICOM: what a viewer shows is what the prediction holds."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from io import BytesIO

import cv2
import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames
from result_files import objects_of
from small_study import dicom_bytes

from hipnet_edge import CAUSES, Radiograph, Study, View
from hipnet_edge.dicom import codes
from hipnet_edge.dicom.encoding import pack_part
from hipnet_edge.render import render_page

SEGMENTATIONS = {View.AP: "segmentation_ap", View.LATERAL: "segmentation_lateral"}


@pytest.fixture(scope="module")
def page(made):
    radiographs = (Radiograph.from_dicom(dicom_bytes(image)) for image in (made.ap, made.lateral))
    return render_page(made.prediction, Study(*radiographs))


@pytest.mark.parametrize("view", View)
def test_the_maps_read_back_within_half_a_level(made, view):
    segmentation = hd.seg.segread(BytesIO(made.files[SEGMENTATIONS[view]]))
    source = (made.ap if view is View.AP else made.lateral).SOPInstanceUID
    (stack,) = segmentation.get_pixels_by_source_instance([source])
    for cause in CAUSES:
        exact = made.prediction.map_for(view, cause, full_resolution=True)
        (number,) = segmentation.get_segment_numbers(
            segmented_property_type=codes.CAUSES[cause], segment_label=cause.label
        )
        assert np.abs(stack[..., number - 1] - exact).max() <= 1 / 510 + 1e-6
    assert stack.max() > 0.5  # it is not all nothing


@pytest.mark.parametrize("view", View)
def test_the_maps_lie_over_their_radiograph(made, view):
    source = made.ap if view is View.AP else made.lateral
    dataset = made[SEGMENTATIONS[view]]
    assert (dataset.Rows, dataset.Columns) == (source.Rows, source.Columns)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        (derived,) = frame.DerivationImageSequence
        (reference,) = derived.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    for segment in dataset.SegmentSequence:
        (region,) = segment.AnatomicRegionSequence
        assert region.CodeValue == codes.HIP_JOINT.value
        assert region.AnatomicRegionModifierSequence[0].CodeMeaning == "Right"
    assert (dataset.SegmentationType, dataset.SegmentationFractionalType) == (
        "FRACTIONAL",
        "PROBABILITY",
    )


def test_maps_without_any_probability_are_black_frames(made):
    maps = {view: np.zeros_like(stack) for view, stack in made.prediction.maps.items()}
    files = objects_of(replace(made.prediction, maps=maps), made.ap, made.lateral)
    frames = pydicom.dcmread(BytesIO(files["segmentation_ap"])).pixel_array
    assert frames.shape == (len(CAUSES), made.ap.Rows, made.ap.Columns)
    assert not frames.any()


@pytest.mark.parametrize("seed", range(20))
def test_any_part_of_a_frame_is_encoded_without_loss(seed):
    draw = np.random.default_rng(seed)
    rows, columns = draw.integers(1, 400, 2)
    top, left = draw.integers(0, rows), draw.integers(0, columns)
    height, width = draw.integers(1, rows - top + 1), draw.integers(1, columns - left + 1)
    part = (draw.random((height, width)) ** 8 * draw.choice([1, 3, 300])).astype(np.uint8)
    part[:, draw.integers(0, width) :] = draw.choice([0, 7])  # runs beyond 128 pixels
    frame = np.zeros((rows, columns), np.uint8)
    frame[top : top + height, left : left + width] = part
    encoded = pack_part(part, (int(top), int(left)), (int(rows), int(columns)))
    assert len(encoded) % 2 == 0
    assert decoded_by_rows(encoded, columns) == [row.tobytes() for row in frame]


def decoded_by_rows(encoded: bytes, columns: int) -> list[bytes]:
    """PS3.5 G.3.2 word for word; a packet that ran past the end of a row would show."""
    assert encoded[:4] == b"\x01\0\0\0"
    assert encoded[4:8] == b"\x40\0\0\0"
    rows, row, at = [], b"", 64
    while at + 1 < len(encoded):
        header = encoded[at]
        if header < 128:
            row += encoded[at + 1 : at + 2 + header]
            at += 2 + header
        else:
            row += encoded[at + 1 : at + 2] * (257 - header)
            at += 2
        assert len(row) <= columns
        if len(row) == columns:
            rows.append(row)
            row = b""
    return rows


def test_the_capture_is_the_page(made, page):
    capture = made["capture"]
    assert np.array_equal(capture.pixel_array, page)
    assert (capture.BurnedInAnnotation, capture.ConversionType) == ("YES", "WSD")
    assert [image.ReferencedSOPInstanceUID for image in capture.SourceImageSequence] == [
        made.ap.SOPInstanceUID,
        made.lateral.SOPInstanceUID,
    ]


@pytest.mark.parametrize("kind", ["capture", "segmentation_ap"])
def test_dcmtk_shows_the_same_pixels(made, page, kind, tmp_path):
    if shutil.which("dcm2pnm") is None:
        pytest.skip("dcm2pnm of dcmtk is not installed")
    (tmp_path / "object.dcm").write_bytes(made.files[kind])
    subprocess.run(
        ["dcm2pnm", "--frame", "2", "object.dcm", "shown.pnm"]
        if kind != "capture"
        else ["dcm2pnm", "object.dcm", "shown.pnm"],
        cwd=tmp_path,
        check=True,
    )
    shown = cv2.imread(str(tmp_path / "shown.pnm"), cv2.IMREAD_UNCHANGED)
    if kind == "capture":
        assert np.array_equal(cv2.cvtColor(shown, cv2.COLOR_BGR2RGB), page)
    else:
        assert np.array_equal(shown, made[kind].pixel_array[1])


def test_a_frame_is_one_fragment_of_even_length(made):
    for kind, count in (("capture", 1), ("segmentation_ap", 5)):
        dataset = made[kind]
        frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
        assert len(frames) == count
        assert not any(len(frame) % 2 for frame in frames)
