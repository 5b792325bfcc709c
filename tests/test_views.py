"""The chain of evidence for view, side and anatomy, read from files."""

from __future__ import annotations

from typing import Any

import pytest
from dicom_files import make_dicom, scene
from pydicom.dataset import Dataset

from hipnet_edge.errors import InputRefused, Reason, UsageError
from hipnet_edge.radiograph import Anatomy, Finding, Radiograph
from hipnet_edge.vocabulary import Flag, Laterality, View

PIXELS = scene(8, 64, 64)
SILENT = {"ViewPosition": None, "ImageLaterality": None, "BodyPartExamined": None}


def read(
    *, operator: dict[str, Any] | None = None, keep: bool = False, **attributes: Any
) -> Radiograph:
    """A radiograph whose header says only what is given."""
    header = attributes if keep else {**SILENT, **attributes}
    return Radiograph.from_dicom(make_dicom(PIXELS, **header), **(operator or {}))


def refusal(**attributes: Any) -> Reason:
    with pytest.raises(InputRefused) as refused:
        read(**attributes)
    return refused.value.code


def code(value: str, meaning: str = "", scheme: str = "SCT", **inner: Any) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    for keyword, sequence in inner.items():
        setattr(item, keyword, sequence)
    return [item]


@pytest.mark.parametrize(
    ("value", "view"),
    [
        ("399348003", View.AP),
        ("272479007", View.AP),
        ("399067008", View.LATERAL),
        ("399173006", View.LATERAL),
        ("399198007", View.LATERAL),
        ("399061009", View.LATERAL),
        ("R-10206", View.AP),
        ("R-102CD", View.LATERAL),
    ],
)
def test_coded_views(value, view):
    assert read(ViewCodeSequence=code(value)).view == Finding(view, "ViewCodeSequence (0054,0220)")


def test_a_view_coded_in_a_private_scheme_is_read_by_its_meaning():
    found = read(ViewCodeSequence=code("H17", "Hüfte axial", "99HOUSE")).view
    assert found.value is View.LATERAL


@pytest.mark.parametrize(
    ("position", "view"),
    [
        ("AP", View.AP),
        ("PA", View.AP),
        ("LL", View.LATERAL),
        ("RL", View.LATERAL),
        ("LATERAL", View.LATERAL),
        ("AXIAL", View.LATERAL),
        ("FROG", View.LATERAL),
        ("LLD", None),
        ("", None),
        ("XYZ", None),
    ],
)
def test_view_positions(position, view):
    found = read(ViewPosition=position).view
    assert found == Finding(view, "ViewPosition (0018,5101)" if view else "none")


@pytest.mark.parametrize("position", ["LLO", "RAO", "OBLIQUE", "INLET"])
def test_other_projections_are_refused(position):
    assert refusal(ViewPosition=position) is Reason.WRONG_VIEW
    override = {"view": "lateral"}
    assert read(ViewPosition=position, operator=override).view == Finding(View.LATERAL, "operator")


AP_TEXTS = [
    "HIP AP",
    "Hip a.p. left",
    "HIP_AP_1",
    "PELVIS AP1",
    "Hip antero-posterior",
    "Anteroposterior hip",
    "Becken a.p.",
    "Beckenübersicht",
    "Hanche de face",
    "BILAT HIP AP",
    "PELVIS (AP) BI-LAT",
    "Uni-lateral hip AP",
    "HIP FRONTAL",
]
LATERAL_TEXTS = [
    "HIP LAT",
    "LT HIP LAT",
    "Hip lateral right",
    "HIP-AXIAL",
    "Hüfte axial re",
    "HUEFTE AX LI",
    "Lauenstein",
    "FROG LEG HIP",
    "Frogleg",
    "XTABLE LATERAL HIP",
    "Cross-table hip",
    "HIP X TABLE",
    "Hip, shoot-through",
    "Dunn view 45",
    "Faux profil de Lequesne",
    "Hanche profil",
    "Hüfte seitlich",
    "horizontal beam hip",
    "HIP LAT2",
]
SILENT_TEXTS = [
    "",
    "HIP",
    "HIP AP AND LAT",
    "XR HIP AP/LAT",
    "Hip 2 views",
    "BILATERAL HIPS",
    "HIP BILAT",
    "HIP BI-LATERAL",
    "UNILATERAL HIP",
    "contralateral hip",
    "COLLATERAL",
    "PLATE FIXATION",
    "CAPITATE",
    "APPLIED",
    "LATEX ALLERGY",
    "RELATED TO HIP",
]


@pytest.mark.parametrize(
    ("words", "view"),
    [(words, View.AP) for words in AP_TEXTS]
    + [(words, View.LATERAL) for words in LATERAL_TEXTS]
    + [(words, None) for words in SILENT_TEXTS],
)
def test_descriptions_of_views(words, view):
    found = read(SeriesDescription=words, SpecificCharacterSet="ISO_IR 192").view
    assert found == Finding(view, "SeriesDescription (0008,103E)" if view else "none")


def test_the_order_of_evidence_on_the_view():
    chain: list[tuple[str, Any, str]] = [
        ("StudyDescription", "Hip lateral", "StudyDescription (0008,1030)"),
        ("ProtocolName", "HIP AP", "ProtocolName (0018,1030)"),
        ("SeriesDescription", "AP hip", "SeriesDescription (0008,103E)"),
        (
            "AcquisitionDeviceProcessingDescription",
            "HIP LAT",
            "AcquisitionDeviceProcessingDescription (0018,1400)",
        ),
        ("ViewPosition", "LL", "ViewPosition (0018,5101)"),
        ("ViewCodeSequence", code("399067008"), "ViewCodeSequence (0054,0220)"),
    ]
    said: dict[str, Any] = {}
    for keyword, value, source in chain:
        said[keyword] = value
        assert read(**said).view.source == source


def test_descriptions_that_contradict_each_other_say_nothing():
    assert read(SeriesDescription="HIP AP", ProtocolName="HIP LAT").view == Finding(None, "none")


@pytest.mark.parametrize(
    "said",
    [
        {"ViewCodeSequence": code("399348003"), "ViewPosition": "LL"},
        {"ViewPosition": "AP", "AcquisitionDeviceProcessingDescription": "HIP AXIAL"},
    ],
)
def test_strong_evidence_that_contradicts_itself_is_refused(said):
    assert refusal(**said) is Reason.CONFLICTING_VIEW
    stated = read(**said, operator={"view": View.AP})
    assert stated.view == Finding(View.AP, "operator")
    assert stated.overrides == {"view": "ap"}
    assert Flag.OPERATOR_OVERRIDE in stated.flags


@pytest.mark.parametrize(
    ("said", "side", "source"),
    [
        ({"ImageLaterality": "L"}, Laterality.LEFT, "ImageLaterality (0020,0062)"),
        ({"ImageLaterality": "R"}, Laterality.RIGHT, "ImageLaterality (0020,0062)"),
        ({"ImageLaterality": "B"}, Laterality.BOTH, "ImageLaterality (0020,0062)"),
        ({"ImageLaterality": "U"}, None, "none"),
        (
            {"ImageLaterality": "U", "BodyPartExamined": "PELVIS"},
            Laterality.BOTH,
            "ImageLaterality (0020,0062)",
        ),
        (
            {"ImageLaterality": "U", "AnatomicRegionSequence": code("816092008", "Pelvis")},
            Laterality.BOTH,
            "ImageLaterality (0020,0062)",
        ),
        ({"Laterality": "R"}, Laterality.RIGHT, "Laterality (0020,0060)"),
        (
            {"ImageLaterality": "B", "Laterality": "L"},
            Laterality.BOTH,
            "ImageLaterality (0020,0062)",
        ),
        (
            {
                "AnatomicRegionSequence": code(
                    "24136001", "Hip joint", AnatomicRegionModifierSequence=code("7771000", "Left")
                )
            },
            Laterality.LEFT,
            "AnatomicRegionSequence (0008,2218)",
        ),
        ({"SeriesDescription": "LEFT HIP AP"}, Laterality.LEFT, "SeriesDescription (0008,103E)"),
        ({"SeriesDescription": "HIP AP RT"}, Laterality.RIGHT, "SeriesDescription (0008,103E)"),
        ({"SeriesDescription": "HIP LAT L"}, Laterality.LEFT, "SeriesDescription (0008,103E)"),
        ({"SeriesDescription": "R HIP LAT"}, Laterality.RIGHT, "SeriesDescription (0008,103E)"),
        ({"ProtocolName": "Huefte links"}, Laterality.LEFT, "ProtocolName (0018,1030)"),
        ({"StudyDescription": "Hanche droite"}, Laterality.RIGHT, "StudyDescription (0008,1030)"),
        ({"StudyDescription": "BILATERAL HIPS"}, Laterality.BOTH, "StudyDescription (0008,1030)"),
        ({"StudyDescription": "L SPINE"}, None, "none"),
        ({"StudyDescription": "HIP L5 REFERRED"}, None, "none"),
        ({"StudyDescription": "HIP LEFT AND RIGHT"}, None, "none"),
        # "Left lateral" is the side towards the detector, not the hip.
        ({"ViewCodeSequence": code("399173006", "left lateral")}, None, "none"),
        ({"ViewPosition": "RL"}, None, "none"),
    ],
)
def test_sides(said, side, source):
    assert read(**said).laterality == Finding(side, source)


def test_two_sides_in_one_header_are_refused():
    assert refusal(ImageLaterality="L", Laterality="R") is Reason.CONFLICTING_LATERALITY
    stated = read(ImageLaterality="L", Laterality="R", operator={"laterality": "right"})
    assert stated.laterality == Finding(Laterality.RIGHT, "operator")
    assert stated.overrides == {"laterality": "right"}


HIP, OTHER = Anatomy.HIP, Anatomy.OTHER


@pytest.mark.parametrize(
    ("said", "anatomy"),
    [
        ({"AnatomicRegionSequence": code("24136001", "Hip joint")}, HIP),
        ({"AnatomicRegionSequence": code("29836001", "Hip")}, HIP),
        ({"AnatomicRegionSequence": code("816092008", "Pelvis")}, HIP),
        ({"AnatomicRegionSequence": code("71341001", "Femur")}, HIP),
        ({"AnatomicRegionSequence": code("T-D2500", "Hip", "SRT")}, HIP),
        ({"AnatomicRegionSequence": code("72696002", "Knee")}, OTHER),
        ({"AnatomicRegionSequence": code("69536005", "")}, OTHER),
        ({"AnatomicRegionSequence": code("61685007", "Lower limb")}, None),
        ({"AnatomicRegionSequence": code("X1", "Beckenregion", "99HOUSE")}, HIP),
        ({"AnatomicRegionSequence": code("X2", "", "99HOUSE")}, None),
        ({"BodyPartExamined": "HIP"}, HIP),
        ({"BodyPartExamined": "PELVIS"}, HIP),
        ({"BodyPartExamined": "FEMUR"}, HIP),
        ({"BodyPartExamined": "EXTREMITY"}, None),
        ({"BodyPartExamined": "LEG"}, None),
        ({"BodyPartExamined": ""}, None),
        ({"BodyPartExamined": "CHEST"}, OTHER),
        ({"BodyPartExamined": "KNEE"}, OTHER),
        ({"BodyPartExamined": "LSPINE"}, OTHER),
        ({"BodyPartExamined": "HEAD"}, OTHER),
        ({"SeriesDescription": "HIP AP"}, HIP),
        ({"SeriesDescription": "Hüfte axial", "SpecificCharacterSet": "ISO_IR 192"}, HIP),
        ({"SeriesDescription": "Knee AP"}, OTHER),
        ({"StudyDescription": "Hip and knee"}, None),
        ({"StudyDescription": "SHIPMENT"}, None),
        ({"BodyPartExamined": "EXTREMITY", "SeriesDescription": "LEFT HIP"}, HIP),
        ({"BodyPartExamined": "EXTREMITY", "StudyDescription": "distal tibia"}, OTHER),
        # A header that names another body part anywhere is no hip's.
        (
            {"AnatomicRegionSequence": code("24136001", "Hip joint"), "BodyPartExamined": "CHEST"},
            OTHER,
        ),
        # What describes the image outweighs what describes the study.
        ({"BodyPartExamined": "HIP", "StudyDescription": "Knee 2 views"}, HIP),
    ],
)
def test_anatomy(said, anatomy):
    assert read(**said).anatomy.value is anatomy


def test_the_operator_names_the_body_part():
    stated = read(BodyPartExamined="CHEST", operator={"anatomy": "hip"})
    assert stated.anatomy == Finding(Anatomy.HIP, "operator")
    assert stated.overrides == {"anatomy": "hip"}


@pytest.mark.parametrize(
    ("orientation", "side"),
    [(["L", "F"], "right"), (["R", "F"], "left"), (["A", "F"], "right"), (None, "right")],
)
def test_where_the_left_of_the_patient_is(orientation, side):
    assert read(PatientOrientation=orientation).patient_left == side


@pytest.mark.parametrize(
    "operator", [{"view": "oblique"}, {"laterality": "L"}, {"anatomy": "knee"}, {"view": 1}]
)
def test_statements_that_mean_nothing_are_usage_errors(operator):
    with pytest.raises(UsageError):
        read(operator=operator)
