"""Headers as they come: other classes of image, values that no standard allows, lossy pixels."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
    XRayRadiofluoroscopicImageStorage,
)
from result_files import objects_of
from small_study import dicom_bytes, small_dicom

from hipnet_edge import InputRefused, Reason
from hipnet_edge.dicom import KINDS, result_objects


@pytest.mark.parametrize(
    "sop_class",
    [
        *(ComputedRadiographyImageStorage, SecondaryCaptureImageStorage),
        *(XRayRadiofluoroscopicImageStorage, "1.2.3.4.5"),
    ],
    ids=["CR", "secondary capture", "fluoroscopy", "private"],
)
def test_a_radiograph_of_any_class_is_named_by_its_class(make, sop_class):
    ap = small_dicom("ap", 11)
    ap.SOPClassUID = ap.file_meta.MediaStorageSOPClassUID = sop_class
    made = make(ap, small_dicom("lateral", 11))
    for kind in KINDS:
        references = {
            (item.value, parent.ReferencedSOPInstanceUID)
            for parent in items(made[kind])
            for item in parent
            if item.keyword == "ReferencedSOPClassUID"
        }
        expected = {
            (sop_class, ap.SOPInstanceUID),
            (DigitalXRayImageStorageForPresentation, made.lateral.SOPInstanceUID),
        }
        of_one = {"segmentation_ap": ap, "segmentation_lateral": made.lateral}
        if kind in of_one:
            expected = {pair for pair in expected if pair[1] == of_one[kind].SOPInstanceUID}
        assert references == expected


def items(dataset):
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from items(item)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("keyword", "given", "damaged"),
    [
        *(("PatientWeight", "70.5", "70,5"), ("PatientSize", "1.70", "1m70")),
        *(("PatientBirthDate", "19550413", "13.04.55"), ("PatientSex", "OO", "??")),
        *(("PatientAge", "071Y", "71 J"), ("StudyTime", "120000", "12.00h")),
    ],
)
def test_what_no_standard_allows_is_no_hindrance(made, keyword, given, damaged):
    ap = small_dicom("ap", 5, laterality="R")
    setattr(ap, keyword, given)
    tag = ap[keyword].tag
    start = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little")
    before, found, after = dicom_bytes(ap).partition(start)
    assert found
    content = before + found + after.replace(given.encode(), damaged.encode(), 1)
    for written in result_objects(made.prediction, content, dicom_bytes(made.lateral)):
        read = pydicom.dcmread(BytesIO(written.to_bytes())).get_item(keyword)
        assert read is None or read.value.strip() == damaged.encode()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_value_as_large_as_no_header_has_is_refused(made):
    ap = small_dicom("ap", 5, laterality="R")
    ap.AdditionalPatientHistory = "x" * 2**21
    with pytest.raises(InputRefused) as refused:
        objects_of(made.prediction, ap, made.lateral)
    assert refused.value.code is Reason.TOO_LARGE


def test_what_is_made_of_lossy_pixels_says_so(make, complaints, tmp_path):
    ap = small_dicom("ap", 12)
    ap.LossyImageCompression, ap.LossyImageCompressionRatio = "01", "10.0"
    ap.LossyImageCompressionMethod = "ISO_10918_1"
    made = make(ap, small_dicom("lateral", 12))
    said = {kind: made[kind].get("LossyImageCompression") for kind in KINDS}
    lossless = {"report": None, "segmentation_lateral": "00"}
    assert said == lossless | {"segmentation_ap": "01", "capture": "01"}
    assert made["segmentation_ap"].LossyImageCompressionRatio == 10
    for kind in KINDS:
        faults = complaints(made.files[kind], tmp_path)
        assert not [line for line in faults if line.startswith("Error")]
