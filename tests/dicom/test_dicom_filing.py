"""Every object is valid, the patient's, beside its radiographs, and has the UID it must have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from types import MappingProxyType

import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from result_files import objects_of
from small_bundle import write_bundle
from small_study import dicom_bytes, small_dicom

from hipnet_edge import InputRefused, Laterality, Predictor, Reason, UsageError, View
from hipnet_edge.dicom import KINDS, derived_uid, result_objects
from hipnet_edge.simulation import simulate_study
from hipnet_edge.simulation.dicom_writer import to_dataset

NAMES = {
    "German": ("ISO_IR 100", "Größ^Jürgen^^Dr.".encode("latin-1")),
    "Japanese, UTF-8": ("ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう".encode()),
    "Japanese, escapes": (
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    "Russian": ("ISO_IR 144", "Люксембург".encode("iso8859-5")),
    "odd length": (None, b"Doe^Jon"),
    "empty": (None, b""),
}


def uids(files: Mapping[str, bytes]) -> set[str]:
    return {pydicom.dcmread(BytesIO(content)).SOPInstanceUID for content in files.values()}


@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_has_nothing_to_say(simulated, complaints, kind, tmp_path):
    assert complaints(simulated.files[kind], tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_misses_only_what_the_radiographs_lack(made, complaints, kind, tmp_path):
    lacking = complaints(made.files[kind], tmp_path)
    assert [line for line in lacking if "needed to build DICOMDIR" not in line] == []


@pytest.fixture(scope="module")
def simulated(make):
    """A full header, and an AP of both hips."""
    study = next(
        study
        for seed in range(20)
        if (study := simulate_study(None, seed, pixel_spacing_mm=0.6)).ap.laterality
        is Laterality.BOTH
    )
    return make(to_dataset(study.ap), to_dataset(study.lateral))


def test_patient_and_study_are_copied_as_they_stand(simulated):
    for kind in KINDS:
        for keyword in (
            *("SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
            *("PatientIdentityRemoved", "DeidentificationMethod", "StudyInstanceUID", "StudyDate"),
            *("StudyTime", "StudyID", "StudyDescription", "AccessionNumber"),
            "ReferringPhysicianName",
        ):
            assert simulated[kind][keyword] == simulated.ap[keyword]


@pytest.mark.parametrize(("charset", "name"), NAMES.values(), ids=NAMES)
def test_names_of_any_script_come_out_byte_for_byte(made, charset, name):
    ap, lateral = (with_name(image, charset, name) for image in (made.ap, made.lateral))
    for content in objects_of(made.prediction, ap, lateral).values():
        written = pydicom.dcmread(BytesIO(content))
        assert written.get_item("PatientName").value == name + b" " * (len(name) % 2)
        assert written.get("SpecificCharacterSet") == ap.get("SpecificCharacterSet")


def with_name(image: Dataset, charset: str | None, name: bytes) -> Dataset:
    """The radiograph with these bytes as name, whatever pydicom thinks of them."""
    image = small_dicom("ap" if image.ViewPosition == "AP" else "lateral", 5, laterality="R")
    marked = b"MARK" + b"M" * (len(name) + len(name) % 2 - 4) if len(name) > 4 else b""
    image.PatientName = marked.decode()
    if charset is not None:
        image.SpecificCharacterSet = charset.split("\\")
    content = dicom_bytes(image)
    if marked:
        assert content.count(marked) == 1
        content = content.replace(marked, name + b" " * (len(name) % 2))
    return pydicom.dcmread(BytesIO(content))


def test_objects_stand_in_series_of_their_own(made):
    series = {kind: made[kind].SeriesInstanceUID for kind in KINDS}
    assert series["segmentation_ap"] == series["segmentation_lateral"]
    assert len(set(series.values()) | {made.ap.SeriesInstanceUID}) == 4
    for kind in KINDS:
        assert "NOT FOR CLINICAL USE" in made[kind].SeriesDescription


def test_it_says_what_made_it(made, simulated):
    made_by = made.prediction.provenance
    for kind in KINDS:
        *devices, reader = simulated[kind].ContributingEquipmentSequence
        assert [device.Manufacturer for device in devices] == [simulated.ap.Manufacturer]
        *devices, reader = made[kind].ContributingEquipmentSequence
        assert devices == []  # small radiographs name no manufacturer
        assert reader.SoftwareVersions[0] == made_by.package_version
        for part in (made_by.bundle_digest, made_by.variant, made_by.backend, made_by.device):
            assert part in reader.ContributionDescription


def test_the_same_again_is_the_same_object(made, predict):
    again = predict(made.ap, made.lateral)
    assert again.timings_ms != made.prediction.timings_ms
    assert uids(objects_of(again, made.ap, made.lateral)) == uids(made.files)


@pytest.mark.parametrize(
    "change",
    [
        *({"variant": "fp16"}, {"bundle_digest": "0" * 64}, {"backend": "openvino"}),
        *({"backend_version": "0"}, {"device": "other"}, {"settings": {"threads": 9}}),
        *({"overrides": {"ap.view": "ap"}}, {"package_version": "9.9"}),
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_way_to_read_is_another_object(made, change):
    changed = replace(made.prediction, provenance=replace(made.prediction.provenance, **change))
    assert uids(objects_of(changed, made.ap, made.lateral)).isdisjoint(uids(made.files))


def test_other_pixels_another_answer_another_patient_are_other_objects(made, make):
    prediction = made.prediction
    less = MappingProxyType(
        {**prediction.inputs, View.AP: replace(prediction.inputs[View.AP], every_pixel=False)}
    )
    causes = list(prediction.probabilities)
    moved = dict(zip(causes, reversed(prediction.probabilities.values()), strict=True))
    for changed in (replace(prediction, inputs=less), replace(prediction, probabilities=moved)):
        files = objects_of(changed, made.ap, made.lateral)
        assert uids(files).isdisjoint(uids(made.files))
    ap, lateral = (small_dicom(view, 5, laterality="R") for view in ("ap", "lateral"))
    ap.PatientName = lateral.PatientName = "Another^Name"
    assert uids(objects_of(prediction, ap, lateral)).isdisjoint(uids(made.files))


def test_another_bundle_gives_other_objects(made, tmp_path):
    with Predictor(write_bundle(tmp_path / "bundle"), threads=1) as predictor:
        prediction = predictor.predict(dicom_bytes(made.ap), dicom_bytes(made.lateral))
    assert uids(objects_of(prediction, made.ap, made.lateral)).isdisjoint(uids(made.files))


def test_a_uid_is_valid_and_follows_from_its_parts():
    assert derived_uid("a", 1).is_valid
    assert derived_uid("a", 1) == derived_uid("a", "1") != derived_uid("a", 2)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        *(("StudyInstanceUID", None), ("SeriesInstanceUID", None), ("SeriesInstanceUID", "")),
        *(("SeriesInstanceUID", "1.2/../3"), ("SOPInstanceUID", "")),
    ],
)
def test_a_radiograph_without_its_uids_is_refused(made, keyword, value):
    ap = small_dicom("ap", 5, laterality="R")
    delattr(ap, keyword)
    if value is not None:
        ap.add_new(keyword, "UI", value)
    with pytest.raises(InputRefused) as refused:
        result_objects(made.prediction, ap, made.lateral)
    assert refused.value.code is Reason.MISSING_IDENTIFIER
    assert keyword in refused.value.message


@pytest.mark.parametrize("cut", [0, 100, 300, 700])
def test_a_damaged_radiograph_is_refused(made, cut):
    with pytest.raises(InputRefused):
        result_objects(made.prediction, dicom_bytes(made.ap)[:cut], dicom_bytes(made.lateral))


def test_other_radiographs_are_refused(made):
    foreign = small_dicom("ap", 9, laterality="R")
    resized = small_dicom("ap", 5, laterality="R", rows=500)
    redrawn = small_dicom("ap", 9, laterality="R")
    redrawn.SOPInstanceUID, redrawn.StudyInstanceUID = made.ap.SOPInstanceUID, "1.2.3.5"
    pairs = [(made.lateral, made.ap), (foreign, made.lateral), (resized, made.lateral)]
    for ap, lateral in [*pairs, (redrawn, made.lateral)]:
        with pytest.raises(UsageError, match="another"):
            result_objects(made.prediction, ap, lateral)


def test_maps_that_were_not_stored_are_missed(made):
    with pytest.raises(UsageError, match="without its maps"):
        result_objects(replace(made.prediction, maps={}), made.ap, made.lateral)


def test_a_dataset_is_as_good_as_a_file_and_stays_as_it_was(made):
    ap, lateral = (small_dicom(view, 5, laterality="R") for view in ("ap", "lateral"))
    before = ap.to_json()
    made_of_datasets = result_objects(made.prediction, ap, lateral)
    assert {o.dataset.SOPInstanceUID for o in made_of_datasets} == uids(made.files)
    assert ap.to_json() == before


def test_implicit_little_endian_is_read_too(made):
    ap = small_dicom("ap", 5, laterality="R")
    ap.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    for content in objects_of(made.prediction, ap, made.lateral).values():
        assert pydicom.dcmread(BytesIO(content)).PatientName == ap.PatientName


def test_the_station_is_named(made):
    objects = result_objects(
        made.prediction, made.ap, made.lateral, station_name="HIPNET-CART-ROOM-12"
    )
    assert {o.dataset.StationName for o in objects} == {"HIPNET-CART-RO.."}
