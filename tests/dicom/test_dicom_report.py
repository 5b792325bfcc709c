"""The structured report says what the prediction says, of the right hip and radiographs."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import highdicom as hd
import pytest
from result_files import objects_of
from small_study import small_dicom

from hipnet_edge import CAUSES, Flag, View
from hipnet_edge.dicom import codes
from hipnet_edge.wording import FLAG_WORDS, RESEARCH_USE


def read(content: bytes) -> hd.sr.Comprehensive3DSR:
    return hd.sr.srread(BytesIO(content))


def groups(content: bytes) -> dict[str, hd.sr.MeasurementsAndQualitativeEvaluations]:
    """The measurement groups by the code value of their finding."""
    found = read(content).content.get_image_measurement_groups()
    return {group.finding_type.value: group for group in found}


def numbers(group: hd.sr.MeasurementsAndQualitativeEvaluations) -> dict[str, float]:
    return {measured.name.value: measured.value for measured in group.get_measurements()}


def test_every_number_reads_back_as_the_very_same(made):
    prediction, found = made.prediction, groups(made.files["report"])
    for cause in CAUSES:
        group = found.pop(codes.CAUSES[cause].value)
        assert numbers(group) == {codes.PROBABILITY.value: prediction.probabilities[cause]}
        assert group.get_measurements()[0].name == codes.PROBABILITY
    (whole,) = found.values()
    assert numbers(whole) == {
        codes.PJI_RISK.value: prediction.pji_risk,
        codes.DISAGREEMENT.value: prediction.disagreement,
        codes.SIGN_OF_FAILURE.value: prediction.sign_of_failure,
        codes.NOVELTY.value: prediction.novelty,
    }


def test_plausible_causes_and_flags_are_coded(made):
    prediction, found = made.prediction, groups(made.files["report"])
    for cause in CAUSES:
        group = found[codes.CAUSES[cause].value]
        (answer,) = group.get_qualitative_evaluations(name=codes.PLAUSIBLE)
        expected = codes.YES if cause in prediction.plausible_causes else codes.NO
        assert answer.value == expected
    assert 0 < len(prediction.plausible_causes) < len(CAUSES)
    flags = found[codes.ARTHROPLASTY_FAILURE.value].get_qualitative_evaluations(codes.FLAG)
    assert [flag.value.value for flag in flags] == [flag.value for flag in prediction.flags]
    assert Flag.MODEL_TRAINED_ON_SIMULATION in prediction.flags


def test_what_a_bundle_does_not_know_is_not_said(made):
    silent = replace(made.prediction, plausible_causes=(), novelty=None, sign_of_failure=None)
    found = groups(objects_of(silent, made.ap, made.lateral)["report"])
    assert found["pji"].get_qualitative_evaluations(name=codes.PLAUSIBLE) == []
    assert numbers(found["failure"]).keys() == {"pji_risk", "disagreement"}


def test_every_group_names_the_hip_the_radiographs_and_the_algorithm(made):
    made_by = made.prediction.provenance
    found = groups(made.files["report"])
    assert len(found) == len(CAUSES) + 1
    for group in found.values():
        (site,) = group.finding_sites
        assert site.value == codes.HIP_JOINT
        assert site.laterality == codes.SIDES[made.prediction.inputs[View.AP].laterality]
        assert [image.referenced_sop_instance_uid for image in group.source_images] == [
            made.ap.SOPInstanceUID,
            made.lateral.SOPInstanceUID,
        ]
        texts = {
            item.ConceptNameCodeSequence[0].CodeMeaning: item.TextValue
            for item in group[0].ContentSequence
            if item.ValueType == "TEXT"
        }
        assert texts["Algorithm Version"] == made_by.package_version
        for part in (made_by.bundle_digest, made_by.variant, made_by.backend_version):
            assert part in texts["Algorithm Parameters"]


def test_an_ap_of_both_hips_is_reported_for_the_hip_that_was_read(make):
    of_pelvis = make(small_dicom("ap", 6, laterality="B"), small_dicom("lateral", 6))
    for group in groups(of_pelvis.files["report"]).values():
        assert group.finding_sites[0].laterality.meaning == "Left"
    assert of_pelvis["capture"].Laterality == "L"


def test_it_says_in_sentences_what_it_is_not_for(made):
    report = made["report"]
    comment = report.ContentSequence[-1]
    assert comment.ConceptNameCodeSequence[0].CodeMeaning == "Comment"
    lines = comment.TextValue.split("\r\n")
    assert lines[0] == RESEARCH_USE
    assert made.prediction.provenance.intended_use in lines[1]
    assert lines[2:] == [FLAG_WORDS[flag] for flag in made.prediction.flags]


def test_nobody_has_verified_it(made):
    report = made["report"]
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert report.CompletionFlag == "COMPLETE"


@pytest.mark.parametrize("series", ["1.2.3.5.0", "1.2.3.5.9"], ids=["one series", "two series"])
def test_the_evidence_is_complete(make, series):
    ap, lateral = small_dicom("ap", 5), small_dicom("lateral", 5)
    lateral.SeriesInstanceUID = series
    report = read(make(ap, lateral).files["report"])
    assert set(report.get_evidence(current_procedure_only=True)) == {
        (image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID, image.SOPClassUID)
        for image in (ap, lateral)
    }


def test_findings_are_tracked_alike_in_report_and_maps(made):
    tracked = {group.tracking_uid for group in groups(made.files["report"]).values()}
    for kind in ("segmentation_ap", "segmentation_lateral"):
        segments = made[kind].SegmentSequence
        assert len({segment.TrackingUID for segment in segments} & tracked) == len(CAUSES)
