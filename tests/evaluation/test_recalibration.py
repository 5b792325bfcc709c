"""A site's calibration: what it finds, what it says it gains, and when it refuses."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from made_answers import answers, calibrated_bundle
from onnx import helper, numpy_helper
from small_bundle import small_model, write_bundle
from small_study import pair

from hipnet_edge import CAUSES, Bundle, Overlay, Predictor, Reason, UsageError
from hipnet_edge.cli import run
from hipnet_edge.evaluation.recalibration import Answered, fit_overlay


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return Bundle.load(calibrated_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def prediction(bundle):
    with Predictor(bundle, threads=1) as predictor:
        return predictor.predict(*pair(1))


@pytest.fixture(scope="module")
def fitted(bundle, prediction) -> Overlay:
    given = answers(prediction, 1200, 2.0, 3)
    return fit_overlay(bundle, prediction.provenance, given, {"not_a_hip": 2, "none": 5})


def test_it_finds_by_how_much_the_bundle_is_too_sure(fitted):
    assert list(fitted.temperatures.values()) == pytest.approx([2.0] * 4, rel=0.15)
    figures = fitted.content["figures"]
    for name in ("log_loss", "brier", "calibration_error"):
        assert figures[name]["overlay"]["value"] < figures[name]["bundle"]["value"]
    low, high = figures["log_loss"]["change"]["ci95"]
    assert low < high < 0
    assert not any("better" in said for said in fitted.content["notices"])
    assert any("2 studies had no part" in said for said in fitted.content["notices"])


def test_its_figures_hold_on_studies_that_it_never_saw(bundle, prediction, fitted):
    fresh = answers(prediction, 3000, 2.0, 4)
    members = np.array([[list(m.values()) for m in a.prediction.member_probabilities.values()]
                        for a in fresh])  # fmt: skip
    true = np.array([a.cause for a in fresh])
    p, _ = fitted.probabilities(bundle, members)
    own = p[np.arange(len(true)), true]
    figures = fitted.content["figures"]
    assert -np.log(own).mean() == pytest.approx(figures["log_loss"]["overlay"]["value"], abs=0.06)
    least = np.minimum(1 - fitted.conformal_threshold, p.max(axis=1))
    assert (own >= least).mean() == pytest.approx(0.9, abs=0.025)
    assert figures["conformal_coverage"]["overlay"]["value"] == pytest.approx(0.9, abs=0.02)


def test_it_names_what_it_was_fitted_on_and_nothing_of_it_can_be_read(fitted, bundle, prediction):
    content = fitted.content
    assert content["bundle"]["digest"] == bundle.digest
    assert content["fitted_on"]["studies"] == content["fitted_on"]["patients"] == 1200
    assert sum(content["fitted_on"]["by_cause"].values()) == 1200
    assert len(fitted.images) == 1200 * 2 * 2  # each image by UID and by pixels
    assert "1.2.9." not in json.dumps(dict(content))
    again = fit_overlay(bundle, prediction.provenance, answers(prediction, 300, 2.0, 3), {})
    assert not again.images & fitted.images  # another salt


def test_a_bundle_that_is_right_is_not_said_to_be_bettered(bundle, prediction):
    given = answers(prediction, 400, 1.0, 5)
    found = fit_overlay(bundle, prediction.provenance, given, {})
    assert list(found.temperatures.values()) == [1.0] * 4
    assert any("stay the bundle's" in said for said in found.content["notices"])
    assert abs(found.content["figures"]["log_loss"]["change"]["value"]) < 0.005


def test_studies_that_are_all_told_apart_do_not_make_the_next_one_certain(bundle, prediction):
    given = [
        Answered(leading, a.patient, a.prediction)
        for a in answers(prediction, 400, 3.0, 6)
        for leading in [CAUSES.index(a.prediction.leading_cause)]
    ]
    found = fit_overlay(bundle, prediction.provenance, given, {})
    members = np.array([[list(m.values()) for m in a.prediction.member_probabilities.values()]
                        for a in given])  # fmt: skip
    p, _ = found.probabilities(bundle, members)
    assert p.max(axis=1).mean() < 401 / 405 + 1e-3
    assert min(found.temperatures.values()) > 0.15


def test_what_cannot_carry_a_calibration_is_refused(bundle, prediction):
    good = answers(prediction, 300, 2.0, 7)
    few = [a for a in good if a.cause != 2] + [a for a in good if a.cause == 2][:19]
    one_patient = [Answered(a.cause, 0, a.prediction) for a in good]
    exchanged = [
        Answered({0: 1, 1: 0}.get(a.cause, a.cause), a.patient, a.prediction) for a in good
    ]
    random = np.random.default_rng(0)
    by_chance = [Answered(int(random.integers(5)), a.patient, a.prediction) for a in good]
    for given, words in (
        (few, "dislocation 19"),
        (one_patient, "infection 1"),
        (exchanged, "look exchanged"),
        (by_chance, "nothing to do with the labels"),
        ([], "infection 0"),
        ([*good, *good], "infection 0"),  # every image twice: nobody knows whose
    ):
        with pytest.raises(UsageError, match=words) as refusal:
            fit_overlay(bundle, prediction.provenance, given, {})
        assert refusal.value.code is Reason.CALIBRATION_REFUSED


def test_patients_stay_whole(bundle, prediction):
    """Four copies of a patient's answer must not look like four patients' worth of certainty."""
    single, others = answers(prediction, 300, 2.0, 8), answers(prediction, 1200, 2.0, 9)
    repeated = [
        Answered(one.cause, one.patient, replace(one.prediction, inputs=other.prediction.inputs))
        for k, other in enumerate(others)
        for one in [single[k // 4]]
    ]
    one, four = (
        fit_overlay(bundle, prediction.provenance, given, {}).content["figures"]["log_loss"]
        for given in (single, repeated)
    )
    widths = [np.diff(found["change"]["ci95"])[0] for found in (one, four)]
    assert widths[1] > 0.75 * widths[0]


def telling_model(seen: np.ndarray) -> bytes:
    """The tiny network with other weights: its answers differ as much as its features [N, 10]."""

    def change(model: onnx.ModelProto) -> None:
        graph, spread = model.graph, seen.std(axis=0)
        mix = np.zeros((10, 20), np.float32)
        for column in range(20):
            mix[column % 5, column] = 1.5 / spread[column % 5]
            other = 5 + (column + column // 5) % 5
            mix[other, column] = 0.5 / spread[other]
        (old,) = (one for one in graph.initializer if one.name == "mix")
        old.CopyFrom(numpy_helper.from_array(mix, "mix"))
        centre = seen.mean(axis=0).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(centre, "centre"))
        place = next(i for i, node in enumerate(graph.node) if node.op_type == "MatMul")
        graph.node[place].input[0] = "centred"
        graph.node.insert(place, helper.make_node("Sub", ["features", "centre"], ["centred"]))

    return small_model(novelty=True, change=change)


def cohort(folder: Path, studies: int) -> tuple[Path, Path]:
    """A bundle, and a table of small studies whose causes agree with it as far as can be."""
    files = [pair(seed, rows=160, columns=120) for seed in range(1, studies + 1)]
    with Predictor(calibrated_bundle(folder / "plain"), threads=1) as predictor:
        maps = [np.stack(list(predictor.predict(*one).maps.values())) for one in files]
    seen = np.array([one.mean(axis=(2, 3)).ravel() for one in maps])
    bundle = calibrated_bundle(folder / "bundle", telling_model(seen))
    with Predictor(bundle, threads=1) as predictor:
        said = [list(predictor.predict(*one).probabilities.values()) for one in files]
    causes, room = np.full(studies, -1), Counter(dict.fromkeys(range(5), -(-studies // 5)))
    for flat in np.argsort(-np.array(said), axis=None):
        study, k = divmod(int(flat), 5)
        if causes[study] < 0 and room[k]:
            causes[study], room[k] = k, room[k] - 1
    with (folder / "COHORT.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["ap", "lateral", "cause", "patient_id"])
        for number, (one, k) in enumerate(zip(files, causes, strict=True)):
            names = [f"{number}-{view}.dcm" for view in ("ap", "lateral")]
            for name, data in zip(names, one, strict=True):
                (folder / name).write_bytes(data)
            writer.writerow([*names, CAUSES[k].value, f"P{number}"])
    return bundle, folder / "COHORT.csv"


def test_calibrate_then_validate_refuses_the_studies_of_the_fit(tmp_path, capsys):
    bundle, table = cohort(tmp_path, 110)
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    overlay = tmp_path / "site.overlay.json"
    of_all = ["--bundle", str(bundle), "--threads", "1"]
    assert run(["calibrate", str(table), "--out", str(overlay), *of_all]) == 0
    said = capsys.readouterr().out
    assert "110 studies of 110 patients" in said
    assert "log loss" in said
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    lines = table.read_text().splitlines()[:6]
    for number, cause in enumerate(CAUSES):  # studies that nobody has seen
        names = [f"new-{number}-{view}.dcm" for view in ("ap", "lateral")]
        for name, data in zip(names, pair(500 + number, rows=160, columns=120), strict=True):
            (tmp_path / name).write_bytes(data)
        lines.append(",".join([*names, cause.value, f"N{number}"]))
    table.write_text("\n".join(lines) + "\n")
    out = tmp_path / "report"
    assert run(["validate", str(table), "--out", str(out), *of_all, "--overlay", str(overlay)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert [one["code"] for one in report["left_out"]] == ["fitted_on"] * 5
    capsys.readouterr()
    small = ["calibrate", str(table), "--out", str(tmp_path / "no.json"), *of_all]
    assert run(small) == 2
    assert "calibration_refused" in capsys.readouterr().err
    assert not (tmp_path / "no.json").exists()


def test_a_bundle_without_calibration_has_nothing_to_fit_anew(tmp_path, prediction):
    bare = Bundle.load(write_bundle(tmp_path / "bundle"))
    with pytest.raises(UsageError, match="no calibration"):
        fit_overlay(bare, prediction.provenance, answers(prediction, 300, 2.0, 7), {})
