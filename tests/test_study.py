from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import PATIENT_ID, make_dicom, scene

from hipnet_edge.errors import InputRefused, Reason, UsageError
from hipnet_edge.radiograph import Finding, Radiograph
from hipnet_edge.study import Study
from hipnet_edge.vocabulary import Laterality, View

AP_PIXELS, LATERAL_PIXELS = scene(8, 64, 64), scene(8, 64, 64, seed=1)
LEFT, RIGHT, BOTH = Laterality.LEFT, Laterality.RIGHT, Laterality.BOTH


def data(number: int, **attributes: Any) -> bytes:
    """A small radiograph; every number has its own pixels and SOP instance UID."""
    header = {"SOPInstanceUID": f"1.2.3.{number}", "StudyInstanceUID": "1.2.3", **attributes}
    return make_dicom(scene(8, 64, 64, seed=number), **header)


def radiograph(number: int, operator: dict[str, Any] | None = None, **header: Any) -> Radiograph:
    return Radiograph.from_dicom(data(number, **header), **(operator or {}))


def ap(**header: Any) -> Radiograph:
    return radiograph(1, **{"ViewPosition": "AP", **header})


def lateral(**header: Any) -> Radiograph:
    return radiograph(2, **{"ViewPosition": "LL", **header})


def refusal(*arguments: Any, **options: Any) -> Reason:
    with pytest.raises(InputRefused) as refused:
        Study(*arguments, **options)
    return refused.value.code


def test_a_pair():
    one, two = ap(), lateral()
    study = Study(one, two)
    assert study.ap is one
    assert study.views == {View.AP: one, View.LATERAL: two}
    assert study.laterality == Finding(LEFT, "AP: ImageLaterality (0020,0062)")
    assert study.overrides == {}
    assert PATIENT_ID not in repr(study)
    with pytest.raises(AttributeError):
        study.ap = two


def test_the_place_states_the_view_where_the_header_is_silent():
    study = Study(ap(ViewPosition=""), lateral(ViewPosition=None))
    assert study.ap.view == Finding(View.AP, "argument position")
    assert study.lateral.view == Finding(View.LATERAL, "argument position")
    assert study.overrides == {"ap.view": "ap", "lateral.view": "lateral"}


def test_the_place_does_not_overrule_a_header():
    assert refusal(lateral(), ap()) is Reason.WRONG_VIEW
    assert refusal(ap(ViewPosition="LL"), lateral()) is Reason.WRONG_VIEW
    study = Study(ap(ViewPosition="LL", operator={"view": "ap"}), lateral())
    assert study.ap.view == Finding(View.AP, "operator")
    assert study.overrides == {"ap.view": "ap"}


@pytest.mark.parametrize(
    ("sides", "named", "expected"),
    [
        (("L", "L"), None, Finding(LEFT, "AP: ImageLaterality (0020,0062)")),
        (("B", "R"), None, Finding(RIGHT, "lateral: ImageLaterality (0020,0062)")),
        ((None, "R"), None, Finding(RIGHT, "lateral: ImageLaterality (0020,0062)")),
        (("L", "B"), None, Finding(LEFT, "AP: ImageLaterality (0020,0062)")),
        (("B", None), "left", Finding(LEFT, "operator")),
        (("B", "B"), RIGHT, Finding(RIGHT, "operator")),
        (("L", "L"), "left", Finding(LEFT, "AP: ImageLaterality (0020,0062)")),
        (("B", "B"), None, Finding(None, "none")),
        ((None, None), None, Finding(None, "none")),
    ],
)
def test_the_side(sides, named, expected):
    one, two = ap(ImageLaterality=sides[0]), lateral(ImageLaterality=sides[1])
    study = Study(one, two, laterality=named)
    assert study.laterality == expected
    assert study.overrides == ({"laterality": Laterality(named).value} if named else {})


def test_sides_that_contradict_each_other():
    assert refusal(ap(), lateral(ImageLaterality="R")) is Reason.DIFFERENT_SIDES
    assert refusal(ap(), lateral(), laterality="right") is Reason.CONFLICTING_LATERALITY
    corrected = lateral(ImageLaterality="R", operator={"laterality": "left"})
    study = Study(ap(), corrected)
    assert study.laterality.value is LEFT
    assert study.overrides == {"lateral.laterality": "left"}


def test_what_does_not_belong_together():
    assert refusal(ap(PatientID="A"), lateral(PatientID="B")) is Reason.DIFFERENT_PATIENTS
    assert refusal(ap(), lateral(StudyInstanceUID="1.2.4")) is Reason.DIFFERENT_STUDIES
    assert refusal(ap(), ap(ViewPosition="LL")) is Reason.SAME_IMAGE_TWICE
    copy = radiograph(1, SOPInstanceUID="1.2.3.99", ViewPosition="LL")
    assert refusal(ap(), copy) is Reason.SAME_IMAGE_TWICE
    assert Study(ap(PatientID=None), lateral(PatientID="B")).laterality.value is LEFT


def test_images_without_headers():
    one = Radiograph.from_array(AP_PIXELS)
    two = Radiograph.from_array(LATERAL_PIXELS)
    study = Study(one, two, laterality="right")
    assert study.laterality == Finding(RIGHT, "operator")
    assert study.overrides == {
        "ap.view": "ap",
        "lateral.view": "lateral",
        "laterality": "right",
    }
    np.testing.assert_array_equal(study.lateral.stored, LATERAL_PIXELS)


def test_arguments_of_a_wrong_kind():
    for arguments, options in (
        ((ap(), "lateral.dcm"), {}),
        ((ap(), lateral()), {"laterality": "both"}),
        ((ap(), lateral()), {"laterality": "L"}),
    ):
        with pytest.raises(UsageError):
            Study(*arguments, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What lies about in a folder from a hospital, without any hip radiograph."""
    (tmp_path / "readme.txt").write_text("Images of Erika Mustermann")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\2\0\0\0UL\4\0\0\0\0\0")
    (tmp_path / "broken.dcm").write_bytes(data(90)[:300])
    (tmp_path / "ct.dcm").write_bytes(data(91, Modality="CT"))
    (tmp_path / "raw.dcm").write_bytes(data(92, PresentationIntentType="FOR PROCESSING"))
    (tmp_path / "chest.dcm").write_bytes(data(93, BodyPartExamined="CHEST"))
    (tmp_path / "judet.dcm").write_bytes(data(94, ViewPosition="LLO"))
    (tmp_path / "inner" / "deep").mkdir(parents=True)
    (tmp_path / "inner" / "preview.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path


def put(folder: Path, number: int, **attributes: Any) -> None:
    (folder / f"IM{number:04}").write_bytes(data(number, **attributes))


def from_directory_refusal(folder: Path, **options: Any) -> InputRefused:
    with pytest.raises(InputRefused) as refused:
        Study.from_directory(folder, **options)
    return refused.value


def test_the_one_pair_in_a_mixed_folder(folder):
    put(folder, 1)
    put(folder / "inner" / "deep", 2, ViewPosition="LL")
    put(folder / "inner", 1)  # a copy of the first
    study = Study.from_directory(folder)
    assert study.ap.sop_instance_uid == "1.2.3.1"
    assert study.lateral.sop_instance_uid == "1.2.3.2"
    assert Study.from_directory(str(folder)).laterality.value is LEFT


def test_folders_without_a_pair(folder):
    assert from_directory_refusal(folder / "none").code is Reason.UNREADABLE_FILE
    refused = from_directory_refusal(folder)
    assert refused.code is Reason.MISSING_VIEW
    assert "no hip radiograph" in refused.message
    put(folder, 1)
    refused = from_directory_refusal(folder)
    assert refused.code is Reason.MISSING_VIEW
    assert "no lateral radiograph" in refused.message
    put(folder, 2, ViewPosition=None)
    refused = from_directory_refusal(folder)
    assert refused.code is Reason.UNKNOWN_VIEW
    assert "1 AP, 0 lateral, 1 of unknown view; passed over: " in refused.message
    assert "1 not_a_hip, 4 not_dicom, 1 not_for_presentation" in refused.message
    put(folder, 2, ViewPosition="LL", AcquisitionDeviceProcessingDescription="HIP AP")
    assert from_directory_refusal(folder).code is Reason.CONFLICTING_VIEW


@pytest.mark.parametrize(
    "other", [{"PatientID": "B"}, {"StudyInstanceUID": "1.2.4"}, {"ImageLaterality": "R"}]
)
def test_an_ap_and_a_lateral_that_are_no_pair(folder, other):
    put(folder, 1)
    put(folder, 2, ViewPosition="LL", **other)
    refused = from_directory_refusal(folder)
    assert refused.code is Reason.MISSING_VIEW
    assert "one patient, study and hip" in refused.message


def test_several_studies(folder):
    for first, uid in ((1, "1.2.3"), (11, "1.2.4")):
        put(folder, first, StudyInstanceUID=uid)
        put(folder, first + 1, StudyInstanceUID=uid, ViewPosition="LL")
    refused = from_directory_refusal(folder)
    assert refused.code is Reason.AMBIGUOUS_PAIR
    assert "several studies" in refused.message


def test_both_hips_of_a_patient(folder):
    put(folder, 1, ImageLaterality="B")
    put(folder, 2, ViewPosition="LL")
    put(folder, 3, ViewPosition="LL", ImageLaterality="R")
    refused = from_directory_refusal(folder)
    assert refused.code is Reason.AMBIGUOUS_PAIR
    assert "name the side" in refused.message
    study = Study.from_directory(folder, laterality="right")
    assert study.lateral.sop_instance_uid == "1.2.3.3"
    assert study.overrides == {"laterality": "right"}


def test_the_closest_in_time(folder):
    put(folder, 1, AcquisitionTime="101500")
    put(folder, 2, AcquisitionTime="102200")  # taken again
    put(folder, 3, AcquisitionTime="102500", ViewPosition="LL")
    study = Study.from_directory(folder)
    assert study.ap.sop_instance_uid == "1.2.3.2"
    put(folder, 4, AcquisitionTime="102800")  # as far from the lateral as the second
    assert from_directory_refusal(folder).code is Reason.AMBIGUOUS_PAIR
    (folder / "IM0004").unlink()
    put(folder, 5, AcquisitionTime=None)
    assert from_directory_refusal(folder).code is Reason.AMBIGUOUS_PAIR


def test_a_chosen_image_that_cannot_be_decoded_is_not_replaced_in_silence(folder):
    put(folder, 1)
    put(folder, 2, ViewPosition="LL")
    path = folder / "IM0002"
    path.write_bytes(path.read_bytes()[:-500])
    assert from_directory_refusal(folder).code is Reason.CORRUPT_PIXELS


def test_logs_hold_no_patient_data(folder, caplog):
    put(folder, 1)
    put(folder, 2, ViewPosition="LL")
    with caplog.at_level(logging.DEBUG, logger="hipnet_edge"):
        Study.from_directory(folder)
    assert "2 hip radiographs" in caplog.text
    for secret in (PATIENT_ID, str(folder), "1.2.3"):
        assert secret not in caplog.text
