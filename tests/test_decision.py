"""What a bundle's calibration adds to an answer, and what is said where there is none."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from small_bundle import small_decision, small_manifest, small_model, write_bundle
from small_study import pair

from hipnet_edge import (
    CAUSES,
    Bundle,
    BundleUnusable,
    Cause,
    EngineUnusable,
    Flag,
    Prediction,
    Predictor,
    UsageError,
    render,
)
from hipnet_edge.decision import SignOfFailure, logit_of_peak
from hipnet_edge.study import Study
from hipnet_edge.wording import result_table

MODEL = small_model(novelty=True)


def bundle(folder: Path, **changes: Any) -> Path:
    """A calibrated bundle; `changes` replace parts of its calibration."""
    manifest = small_manifest(MODEL)
    manifest["decision"] = {**small_decision(), **changes}
    return write_bundle(folder / "bundle", MODEL, manifest)


def answer(folder: Path, **changes: Any) -> Prediction:
    with Predictor(bundle(folder, **changes), threads=1) as predictor:
        return predictor.predict(*pair(1))


def test_a_calibrated_bundle_answers_all_three_questions(tmp_path):
    prediction = answer(tmp_path)
    peak = max(float(stack.max()) for stack in prediction.maps.values())
    log_odds = np.log(peak / (1 - peak))
    assert prediction.sign_of_failure == pytest.approx(1 / (1 + np.exp(0.5 - 1.5 * log_odds)))
    assert prediction.novelty == pytest.approx(
        max(stack.mean(axis=(1, 2)).max() for stack in prediction.maps.values()), abs=1e-5
    )
    expected = [c for c in CAUSES if prediction.probabilities[c] >= 0.2]
    assert list(prediction.plausible_causes) == expected
    assert not {
        Flag.NOT_CALIBRATED,
        Flag.OUT_OF_DISTRIBUTION,
        Flag.NO_SIGN_OF_FAILURE,
    } & set(prediction.flags)


def test_limits_raise_flags(tmp_path):
    plain = answer(tmp_path)
    strange = answer(tmp_path, novelty={"threshold": plain.novelty - 1e-3})
    assert set(strange.flags) - set(plain.flags) == {Flag.OUT_OF_DISTRIBUTION}
    curve = {**small_decision()["sign_of_failure"], "threshold": plain.sign_of_failure + 1e-6}
    sound = answer(tmp_path, sign_of_failure=curve)
    assert set(sound.flags) - set(plain.flags) == {Flag.NO_SIGN_OF_FAILURE}


@pytest.mark.parametrize(("threshold", "size"), [(0.0, 1), (1.0, 5)])
def test_the_leading_cause_is_always_plausible(tmp_path, threshold, size):
    prediction = answer(tmp_path, conformal={"coverage": 0.9, "threshold": threshold})
    assert prediction.leading_cause in prediction.plausible_causes
    assert len(prediction.plausible_causes) == size


def test_without_calibration_nothing_is_claimed(tmp_path):
    with Predictor(write_bundle(tmp_path / "plain"), threads=1) as predictor:
        prediction = predictor.predict(*pair(1))
    assert prediction.plausible_causes == ()
    assert prediction.novelty is None
    assert prediction.sign_of_failure is None
    assert Flag.NOT_CALIBRATED in prediction.flags


def test_a_bundle_that_saw_no_sound_prosthesis_says_so(tmp_path):
    prediction = answer(tmp_path, sign_of_failure=None)
    assert prediction.sign_of_failure is None
    assert prediction.plausible_causes
    assert Flag.NOT_CALIBRATED in prediction.flags


def test_a_calibrated_bundle_must_have_the_output(tmp_path):
    manifest = small_manifest(model := small_model())
    manifest["decision"] = small_decision()
    folder = write_bundle(tmp_path / "bundle", model, manifest)
    with pytest.raises(EngineUnusable, match="no output novelty"):
        Predictor(folder, threads=1)


def test_json_page_and_terminal_say_it(tmp_path):
    prediction = answer(tmp_path)
    value = json.loads(json.dumps(prediction.to_dict()))
    assert Prediction.from_dict(value) == prediction
    schema = json.loads(files("hipnet_edge").joinpath("prediction.schema.json").read_text())
    jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)
    table = result_table(prediction)
    for words in ("Sign of failure", "Novelty", "Plausible causes", prediction.leading_cause.value):
        assert words in table
    study = Study(*(radiograph for radiograph in _radiographs()))
    page = render.render_page(prediction, study)
    bare = replace(prediction, plausible_causes=(), sign_of_failure=None)
    assert not np.array_equal(page, render.render_page(bare, study))


def _radiographs() -> list[Any]:
    from hipnet_edge import Radiograph

    return [Radiograph.from_dicom(source) for source in pair(1)]


def test_a_plausible_set_without_the_leading_cause_is_refused(tmp_path):
    prediction = answer(tmp_path)
    others = [cause.value for cause in CAUSES if cause is not prediction.leading_cause]
    for wrong in (others, list(reversed([cause.value for cause in CAUSES])), ["pji", "pji"]):
        with pytest.raises(UsageError, match="plausible_causes"):
            Prediction.from_dict({**prediction.to_dict(), "plausible_causes": wrong})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"thresholds": {"pji": 0.5}}, "decision.thresholds.aseptic_loosening"),
        ({"conformal": {"coverage": 0.9}}, "decision.conformal.threshold"),
        ({"conformal": {"coverage": 0.9, "threshold": 1.5}}, "decision.conformal.threshold"),
        ({"novelty": {"threshold": -1}}, "decision.novelty.threshold"),
        ({"novelty": {"threshold": 1, "limit": 2}}, "decision.novelty.limit"),
        ({"sign_of_failure": 3}, "decision.sign_of_failure"),
        ({"sign_of_failure": {"slope": "x"}}, "decision.sign_of_failure.slope"),
        ({"extra": 1}, "decision.extra"),
    ],
)
def test_a_wrong_calibration_is_refused_by_the_name_of_the_field(tmp_path, changes, named):
    with pytest.raises(BundleUnusable, match=named):
        Bundle.load(bundle(tmp_path, **changes))


def test_the_logit_of_a_peak_stays_finite():
    maps = np.zeros((3, 2, 5, 4, 4), np.float32)
    maps[1, 1, 3, 2, 2] = 0.5
    maps[2] = 1.0
    found = logit_of_peak(maps)
    assert found.shape == (3,)
    assert found[1] == pytest.approx(0.0)
    assert found[0] == pytest.approx(-found[2])
    assert np.isfinite(found).all()
    assert SignOfFailure(1e6, 0.0, 0.5).probability(maps[0]) == pytest.approx(0.0)
    assert SignOfFailure(1e6, 0.0, 0.5).probability(maps[2]) == pytest.approx(1.0)


def test_thresholds_are_readable(tmp_path):
    decision = Bundle.load(bundle(tmp_path)).manifest.decision
    assert decision.thresholds[Cause.DISLOCATION] == 0.4
    assert decision.coverage == 0.9
