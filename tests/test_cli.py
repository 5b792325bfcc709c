"""The command line as technicians and programs use it: what is printed where, and exit codes."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from importlib.resources import files

import cv2
import jsonschema
import pytest
from small_bundle import write_bundle

from hipnet_edge import Prediction, predictor
from hipnet_edge.cli import run
from hipnet_edge.vocabulary import CAUSES, Flag
from hipnet_edge.wording import FLAG_WORDS, RESEARCH_USE

SEED = 3  # both headers of its study are complete, and the AP shows one hip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return str(write_bundle(tmp_path_factory.mktemp("bundle") / "small"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    arguments = ("--cause", "pji", "--seed", SEED, "--out", folder, "--pixel-spacing", "0.5")
    assert run([str(part) for part in ("simulate", *arguments)]) == 0
    return folder


@pytest.fixture
def command(bundle, capfd):
    """Run `hipnet-edge predict` with the small bundle: (exit code, stdout, stderr)."""

    def predict(*arguments):
        code = run(["predict", "--bundle", bundle, *(str(part) for part in arguments)])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return predict


def test_version_and_help_load_nothing_heavy():
    script = (
        "import sys; from hipnet_edge.cli import run; run(['--version']); run(['--help']);"
        "print(sorted({'numpy', 'cv2', 'pydicom', 'onnxruntime'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("hipnet-edge, version 0.")
    assert ran.stdout.endswith("[]\n")


def test_json_on_stdout_is_only_json_and_follows_the_schema(command, study):
    code, out, _ = command(study / "ap.dcm", study / "lateral.dcm", "--json", "-")
    assert code == 0
    result = json.loads(out)
    schema = json.loads(files("hipnet_edge").joinpath("prediction.schema.json").read_text())
    jsonschema.validate(result, schema)
    promised = (
        "leading_cause probabilities pji_risk disagreement flags inputs timings_ms provenance"
    )
    assert set(promised.split()) <= set(result)
    assert set(result["probabilities"]) == {cause.value for cause in CAUSES}
    assert "maps" not in result


def test_every_stage_is_timed_also_when_the_operator_states_something(command, study):
    files = (study / "ap.dcm", study / "lateral.dcm")
    stages = ["read", "decode", "preprocess", "inference", "total"]
    for arguments in (files, ("--study", study), (*files, "--anatomy", "hip", "--exact")):
        _, out, _ = command(*arguments, "--json", "-")
        assert list(json.loads(out)["timings_ms"]) == stages


def test_maps_on_request_can_be_read_back(command, study):
    _, out, _ = command(study / "ap.dcm", study / "lateral.dcm", "--json", "-", "--maps")
    assert Prediction.from_dict(json.loads(out)).map_for("ap", "pji").shape == (64, 40)


def test_a_person_reads_a_table(command, study):
    code, out, _ = command(study / "ap.dcm", study / "lateral.dcm", "--threads", "1")
    assert code == 0
    assert out.startswith("Leading cause: ")
    assert all(cause.label in out for cause in CAUSES)
    assert FLAG_WORDS[Flag.MODEL_TRAINED_ON_SIMULATION] in out
    assert out.splitlines()[-1] == RESEARCH_USE


def test_a_folder_of_a_study_gives_what_its_two_files_give(command, study):
    _, by_folder, _ = command("--study", study, "--json", "-")
    _, by_name, _ = command(study / "ap.dcm", study / "lateral.dcm", "--json", "-")
    assert Prediction.from_dict(json.loads(by_folder)) == Prediction.from_dict(json.loads(by_name))


def test_the_page_and_the_json_of_a_result_lie_in_the_folder(command, study, tmp_path):
    out = tmp_path / "a" / "b"
    code, _, _ = command(study / "ap.dcm", study / "lateral.dcm", "--out", out)
    assert code == 0
    assert cv2.imread(str(out / "report.png")).shape[1] == 1800
    assert "leading_cause" in json.loads((out / "prediction.json").read_text())


def test_swapped_files_are_refused_unless_the_operator_insists(command, study):
    swapped = (study / "lateral.dcm", study / "ap.dcm")
    code, out, err = command(*swapped, "--json", "-")
    assert code == 3
    assert json.loads(out)["error"]["code"] == "wrong_view"
    assert json.loads(out)["error"]["message"] in err

    stated = ("--view-override", "ap", "--view-override", "lateral")
    code, out, _ = command(*swapped, "--json", "-", *stated)
    assert code == 0
    result = json.loads(out)
    assert "operator_override" in result["flags"]
    assert result["provenance"]["overrides"]


def test_a_refusal_without_json_is_one_sentence_with_its_code(command, study, tmp_path):
    code, out, err = command(study / "ap.dcm", tmp_path / "missing.dcm")
    assert (code, out) == (3, "")
    assert err.startswith("hipnet-edge: ")
    assert err.endswith("[unreadable_file]\n")
    assert err.count("\n") == 1


def test_nothing_of_an_earlier_result_survives_a_refusal(command, study, tmp_path):
    asked = ("--out", tmp_path / "out", "--json", tmp_path / "result.json")
    assert command(study / "ap.dcm", study / "lateral.dcm", *asked)[0] == 0
    assert command(study / "ap.dcm", study / "ap.dcm", *asked)[0] == 3
    assert not (tmp_path / "out" / "report.png").exists()
    for file in (tmp_path / "out" / "prediction.json", tmp_path / "result.json"):
        assert list(json.loads(file.read_text())) == ["error"]


def test_a_radiograph_is_never_overwritten(command, study, tmp_path):
    copy = tmp_path / "lateral.dcm"
    copy.write_bytes((study / "lateral.dcm").read_bytes())
    code, _, err = command(study / "ap.dcm", copy, "--json", copy)
    assert code == 2
    assert "one of the radiographs" in err
    assert copy.read_bytes() == (study / "lateral.dcm").read_bytes()


def test_plain_images_need_what_no_header_says(command, study, tmp_path):
    from hipnet_edge import Radiograph

    pictures = []
    for view in ("ap", "lateral"):
        pictures.append(tmp_path / f"{view}.png")
        grey = Radiograph.from_dicom(study / f"{view}.dcm").grey_levels()
        cv2.imwrite(str(pictures[-1]), (grey * 65535).astype("uint16"))
    code, out, _ = command(*pictures, "--json", "-")
    assert (code, json.loads(out)["error"]["code"]) == (3, "unknown_laterality")
    code, out, _ = command(*pictures, "--laterality", "left", "--json", "-")
    assert code == 0
    assert json.loads(out)["provenance"]["overrides"]["laterality"] == "left"


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict"],
        ["predict", "one.dcm"],
        ["predict", "a.dcm", "b.dcm", "--study", "."],
        ["predict", "a.dcm", "--study", "."],
        ["predict", "--study", ".", "--view-override", "ap"],
        ["predict", "--study", ".", "--anatomy", "hip"],
        ["predict", "a.dcm", "b.dcm", "--laterality", "both"],
        ["predict", "a.dcm", "b.dcm", "--threads", "0"],
        ["simulate", "--cause", "gout", "--seed", "1", "--out", "x"],
        ["predcit"],
    ],
)
def test_bad_usage(arguments, capfd):
    assert run(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "Error: " in err


def test_an_output_that_cannot_be_written_is_bad_usage(command, study, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = command(
        study / "ap.dcm", study / "lateral.dcm", "--out", tmp_path / "file" / "x"
    )
    assert code == 2
    assert "cannot be written" in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--backend", "abacus"], "engine_unavailable"),
        (["--precision", "fp16"], "engine_unavailable"),
        (["--backend", "onnxruntime", "--precision", "int8"], "engine_unavailable"),
        (["--bundle", "nowhere"], "bundle_not_found"),
    ],
)
def test_an_unusable_bundle_or_engine(command, study, arguments, reason):
    code, out, _ = command(study / "ap.dcm", study / "lateral.dcm", "--json", "-", *arguments)
    assert (code, json.loads(out)["error"]["code"]) == (4, reason)


def test_a_fault_is_one_sentence_too(command, study, monkeypatch):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("Doe^Jane")

    monkeypatch.setattr(predictor, "choose_backend", broken)
    code, out, err = command(study / "ap.dcm", study / "lateral.dcm", "--json", "-")
    assert (code, json.loads(out)["error"]["code"]) == (1, "internal")
    assert "ZeroDivisionError" in err
    assert "Doe" not in out + err
    monkeypatch.setenv("HIPNET_EDGE_TRACEBACK", "1")
    run(["predict", str(study / "ap.dcm"), str(study / "lateral.dcm")])


def test_info_names_the_bundle_and_refuses_a_damaged_one(tmp_path, capfd):
    folder = write_bundle(tmp_path / "small")
    assert run(["info", str(folder)]) == 0
    table = capfd.readouterr().out
    assert run(["info", str(folder), "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["digest"] in table
    assert facts["files"]["fp32.onnx"]["bytes"] == (folder / "fp32.onnx").stat().st_size
    (folder / "fp32.onnx").write_bytes(b"changed")
    assert run(["info", str(folder)]) == 4


def test_doctor_exits_by_whether_the_machine_can_predict(monkeypatch, tmp_path, bundle, capfd):
    from hipnet_edge.bundle import Bundle

    for path, code in ((bundle, 0), (tmp_path / "nowhere", 4)):
        monkeypatch.setattr(Bundle, "reference_path", staticmethod(lambda path=path: path))
        assert run(["doctor"]) == code
        assert "Decoders" in capfd.readouterr().out
        assert run(["doctor", "--json"]) == code
        assert json.loads(capfd.readouterr().out)["can_predict"] is (code == 0)


def test_the_same_simulation_twice_is_the_same_study(study, tmp_path):
    arguments = ("--cause", "pji", "--seed", str(SEED), "--out", str(tmp_path))
    assert run(["simulate", *arguments, "--pixel-spacing", "0.5"]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in study.iterdir()}
    assert (tmp_path / "ap.dcm").read_bytes() == (study / "ap.dcm").read_bytes()


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # of the writer, here
def test_what_a_header_says_wrongly_is_not_repeated(command, study, tmp_path):
    from pydicom import dcmread

    dataset = dcmread(study / "ap.dcm")
    dataset.PatientName = dataset.StudyDescription = "Doe^Jane"
    dataset.RescaleSlope = dataset.RescaleIntercept = None
    dataset.file_meta.MediaStorageSOPInstanceUID = "Doe^Jane"
    dataset.Rows = 3
    dataset.save_as(tmp_path / "ap.dcm")
    code, out, err = command(tmp_path / "ap.dcm", study / "lateral.dcm")
    assert code == 3
    assert "Doe" not in out + err


def test_the_module_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hipnet_edge", "simulate"])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("hipnet_edge", run_name="__main__")
    assert left.value.code == 2
    assert "Usage: hipnet-edge simulate" in capsys.readouterr().err
