"""Objects in a folder, from Python and from the command line."""

from __future__ import annotations

import json
import re
import sys
from io import BytesIO
from pathlib import Path

import highdicom as hd
import pydicom
import pytest
from small_study import dicom_bytes

from hipnet_edge import Cause, MissingExtra, Prediction, UsageError
from hipnet_edge.cli import run
from hipnet_edge.dicom import KINDS, codes

ROOT = Path(__file__).parents[2]
NAMES = {f"{kind}.dcm" for kind in KINDS}


@pytest.fixture
def files(made, tmp_path):
    """The two radiographs as files."""
    for name, image in (("ap.dcm", made.ap), ("lateral.dcm", made.lateral)):
        (tmp_path / name).write_bytes(dicom_bytes(image))
    return tmp_path / "ap.dcm", tmp_path / "lateral.dcm"


def predict(files, bundle, *options):
    arguments = ["predict", *files, "--bundle", bundle, "--threads", 1, *options]
    return run([str(argument) for argument in arguments])


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_prediction_from_json_saves_the_same_objects(made, files, tmp_path):
    stored = Prediction.from_dict(json.loads(json.dumps(made.prediction.to_dict())))
    written = stored.save_dicom(tmp_path / "out", *files)
    assert [path.name for path in written] == [f"{kind}.dcm" for kind in KINDS]
    assert names(tmp_path / "out") == NAMES
    for kind, path in zip(KINDS, written, strict=True):
        before, after = made[kind], pydicom.dcmread(path)
        assert after.SOPInstanceUID == before.SOPInstanceUID
        if kind != "report":
            assert after.PixelData == before.PixelData


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(made, files, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="cannot be written"):
        made.prediction.save_dicom(tmp_path / "out", *files)


def test_nothing_half_written_is_left_under_a_final_name(made, files, tmp_path):
    folder = tmp_path / "out"
    (folder / "capture.dcm.part").mkdir(parents=True)  # the last of them cannot be written
    with pytest.raises(UsageError, match="cannot be written"):
        made.prediction.save_dicom(folder, *files)
    assert names(folder).isdisjoint(NAMES)


def test_the_command_line_writes_objects_that_agree_with_the_json(files, bundle, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict(files, bundle, "--dicom", out, "--json", "-") == 0
    said = json.loads(capsys.readouterr().out)
    assert names(out) == NAMES
    report = hd.sr.srread(out / "report.dcm")
    for group in report.content.get_image_measurement_groups():
        cause = {code: cause for cause, code in codes.CAUSES.items()}.get(group.finding_type)
        if cause is not None:
            (measured,) = group.get_measurements(codes.PROBABILITY)
            assert measured.value == said["probabilities"][cause.value]


def test_a_folder_of_radiographs_will_do(files, bundle, tmp_path):
    arguments = ["predict", "--study", tmp_path, "--bundle", bundle, "--dicom", tmp_path / "out"]
    assert run([str(argument) for argument in arguments]) == 0
    assert names(tmp_path / "out") == NAMES


def test_what_the_operator_states_holds_for_the_objects_too(made, files, bundle, tmp_path):
    other = pydicom.dcmread(files[0])
    other.Modality, other.ViewPosition = "OT", "LL"
    files[0].write_bytes(dicom_bytes(other))
    options = ("--allow-modality", "OT", "--view-override", "ap", "--dicom", tmp_path / "out")
    assert predict(files, bundle, *options) == 0
    report = pydicom.dcmread(tmp_path / "out" / "report.dcm")
    *_, reader = report.ContributingEquipmentSequence
    assert "override ap.view=ap" in reader.ContributionDescription
    assert report.SOPInstanceUID != made["report"].SOPInstanceUID


def test_old_objects_are_gone_when_there_is_no_new_result(files, bundle, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    for name in NAMES:
        (out / name).write_text("of another patient")
    assert predict(files[::-1], bundle, "--dicom", out) == 3
    assert "wrong_view" in capsys.readouterr().err
    assert names(out) == set()


def test_radiographs_are_never_taken_for_old_objects(files, bundle, tmp_path, capsys):
    taken = tmp_path / "report.dcm"
    files[0].rename(taken)
    assert predict((taken, files[1]), bundle, "--dicom", tmp_path) == 2
    assert "is one of the radiographs" in capsys.readouterr().err
    assert taken.stat().st_size > 100_000


def test_plain_images_have_no_patient_to_file_under(bundle, tmp_path, capsys):
    files = (tmp_path / "ap.png", tmp_path / "lateral.png")
    assert predict(files, bundle, "--dicom", tmp_path / "out") == 2
    assert "beside DICOM radiographs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_prediction_of_plain_images_has_nothing_to_be_filed_beside(made, predict_arrays):
    with pytest.raises(UsageError, match="not made from DICOM"):
        predict_arrays.save_dicom("unused", made.ap, made.lateral)


@pytest.fixture
def predict_arrays(made, bundle):
    from hipnet_edge import Predictor, Radiograph, Study

    ap, lateral = (
        Radiograph.from_array(image.pixel_array, anatomy="hip", laterality="right")
        for image in (made.ap, made.lateral)
    )
    with Predictor(bundle, threads=1) as predictor:
        return predictor.predict(Study(ap, lateral))


def test_without_highdicom_the_extra_is_named(made, files, bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MissingExtra, match=r"hipnet-edge\[dicom\]"):
        made.prediction.save_dicom(tmp_path / "out", *files)
    assert predict(files, bundle, "--dicom", tmp_path / "out") == 4
    assert "missing_extra" in capsys.readouterr().err


def test_the_snippet_of_the_page_reads_the_numbers_back(made, files, tmp_path, monkeypatch, capsys):
    made.prediction.save_dicom(tmp_path / "result", *files)
    (snippet,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "dicom.md").read_text(), re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "dicom.md", "exec"), {})
    printed = capsys.readouterr().out
    for cause in Cause:
        assert f"{cause.label} {made.prediction.probabilities[cause]!r}" in printed


def test_no_message_names_the_patient(made, files, bundle, tmp_path, capsys, caplog):
    caplog.set_level("DEBUG")
    assert predict(files, bundle, "--dicom", tmp_path / "out") == 0
    assert predict(files[::-1], bundle, "--dicom", tmp_path / "out") == 3
    said = capsys.readouterr()
    for secret in (str(made.ap.PatientName), made.ap.PatientID, made.ap.PatientBirthDate):
        assert secret in BytesIO(files[0].read_bytes()).getvalue().decode("latin-1")
        assert secret not in said.out + said.err + caplog.text
