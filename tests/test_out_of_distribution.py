"""Strangers are what they are called, and what becomes of them is counted rightly."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")
pytest.importorskip("scipy", reason="SciPy (the export extra) is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime (the cpu extra) is not installed")

from small_bundle import write_bundle

from benchmarks.out_of_distribution import (
    Answered,
    ask,
    false_alarms,
    hips,
    real_strangers,
    study_of,
    summary,
)
from benchmarks.outcome import Outcome
from benchmarks.strangers import MADE, SPACING_MM, WRONGLY_HELD
from hipnet_edge import Predictor
from hipnet_edge.bundle import Bundle
from hipnet_edge.evaluation import bootstrap
from hipnet_edge.preprocessing import InputSpec, preprocess_study
from hipnet_edge.vocabulary import Flag


@pytest.mark.parametrize("name", MADE)
def test_a_stranger_is_a_pair_of_different_pictures_and_no_two_are_equal(name):
    first, again, other = (MADE[name](np.random.default_rng(seed)) for seed in (1, 1, 2))
    for picture, same, another in zip(first, again, other, strict=True):
        assert picture.dtype == np.uint16
        assert picture.max() < 2**14
        assert np.array_equal(picture, same)
        assert not np.array_equal(picture, another)
    assert not np.array_equal(*first)


def metal_mm(picture):
    """Height and width of what is as bright as metal."""
    rows, columns = np.nonzero(picture > 0.98 * 2**14)
    return SPACING_MM * np.ptp(rows), SPACING_MM * np.ptp(columns)


def test_a_chest_has_dark_lungs_and_a_tibia_a_long_plate():
    frontal, _ = MADE["chest"](np.random.default_rng(0))
    middle = frontal[350:450]
    lungs, mediastinum = np.median(middle[:, 280:360]), np.median(middle[:, 490:510])
    assert lungs < 0.5 * mediastinum
    height, width = metal_mm(MADE["tibia"](np.random.default_rng(0))[0])
    assert 90 < height < 190
    assert 3 < width < 60


def test_hips_held_wrongly_are_the_same_films():
    *_, pair = hips(2, 0.5)
    ap, lateral = pair
    turned = WRONGLY_HELD["upside_down"](ap, lateral)
    assert np.array_equal(np.rot90(turned[0], 2), ap)
    assert np.array_equal(np.rot90(turned[1], 2), lateral)
    swapped = WRONGLY_HELD["swapped"](ap, lateral)
    assert swapped[0] is lateral
    assert swapped[1] is ap
    prepared = preprocess_study(study_of(pair, stated=True), InputSpec())
    assert Flag.NO_IMPLANT not in prepared.flags


def test_a_stranger_goes_a_patients_way(tmp_path):
    with Predictor(Bundle.load(write_bundle(tmp_path))) as predictor:
        answered = ask(predictor, MADE["noise"](np.random.default_rng(0)))
    assert answered.refused == "not_a_hip"
    assert answered.refused_as_hip is None
    assert Flag.NO_IMPLANT in answered.flags
    assert answered.noticed


def outcome_of(novelty, **table):
    n = len(novelty)
    return Outcome(
        probabilities=np.full((n, 5), 0.2),
        member_probabilities=np.full((n, 4, 5), 0.2),
        maps=np.zeros((n, 2, 5, 8, 5), np.float32),
        novelty=np.asarray(novelty, float),
        causes=np.zeros(n, int),
        occupancy=np.zeros((n, 2, 8, 5), np.float32),
        table={name: np.asarray(column) for name, column in table.items()},
    )


def test_what_became_of_strangers_is_counted():
    flagged = Answered("not_a_hip", None, 5.0, (Flag.NO_IMPLANT, Flag.OUT_OF_DISTRIBUTION))
    missed = Answered(None, None, 1.5, (Flag.SIMULATED_INPUT,))
    refused = Answered("not_a_hip", "low_contrast", None, ())
    report = summary([flagged, flagged, missed, refused], outcome_of([1.0, 2.0]))
    assert report["studies"] == 4
    assert report["refused_as_it_comes"] == {"not_a_hip": 3}
    stated = report["stated_to_be_a_hip"]
    assert stated["refused"] == {"low_contrast": 1}
    assert stated["no_implant"] == stated["out_of_distribution"] == 2
    assert stated["refused_or_flagged"] == bootstrap.part(3, 4)
    assert report["auroc"]["value"] == round(5 / 6, 4)  # the refused one has no score


def test_false_alarms_are_counted_for_each_implant():
    known = outcome_of([0.5, 0.9, 1.1, 0.2], stem=["a", "a", "b", "b"])
    report = false_alarms(known, threshold=1.0)
    assert report["all"] == bootstrap.part(1, 4)
    assert report["stem"] == {"a": bootstrap.part(0, 2), "b": bootstrap.part(1, 2)}


def test_a_real_chest_and_a_real_tibia_are_refused_and_noticed(tmp_path, real_radiograph):
    for name in ("RG1", "RG3"):
        real_radiograph(f"{name}_UNCR.dcm")  # skips where the files are missing
    with Predictor(Bundle.load(write_bundle(tmp_path))) as predictor:
        report = real_strangers(predictor)
    assert report["RG1 as DICOM"] == report["RG3 as DICOM"] == {"refused": "not_a_hip"}
    pair = report["RG1 as AP, RG3 as lateral"]
    assert pair["bare_pictures_refused"] == "not_a_hip"
    assert "no_implant" in pair["stated_to_be_a_hip"]["flags"]
    assert pair["stated_to_be_a_hip"]["refused_or_flagged"]
