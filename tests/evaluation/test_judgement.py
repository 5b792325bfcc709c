"""When a validation says yes, no, or that nothing can be said."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="SciPy (the evaluate extra) is not installed")

from small_cohort import scored

from hipnet_edge.evaluation.criteria import read_criteria
from hipnet_edge.evaluation.figure import Figure, refused
from hipnet_edge.evaluation.outcome import exchanged_labels, no_better_than_chance
from hipnet_edge.evaluation.sample import Sample
from hipnet_edge.evaluation.subgroups import age_band
from hipnet_edge.evaluation.subgroups import figures as by_subgroup


def sample(p, causes, **columns):
    columns = {name: np.asarray(column) for name, column in columns.items()}
    return Sample.of(p, causes, np.arange(len(causes)), columns)


def test_what_cannot_be_said_is_not_met(tmp_path):
    (tmp_path / "c.toml").write_text(
        "[at_least]\nmacro_auc.lower = 0.5\naccuracy.value = 0.8\naccuracy.lower = 0.5\n"
        'recall.pji.lower = 0.5\n"subgroups.site.St. Mary.accuracy.value" = 0.7\n'
        "[at_most]\nbrier.upper = 0.4\n"
    )
    figures = {
        "macro_auc": refused("No study with dislocation."),
        "accuracy": Figure(0.8, (0.7, 0.9)),
        "recall": {"pji": Figure(0.9, None, note="No interval: 2 patients in a group.")},
        "subgroups": {"site": {"St. Mary": {"accuracy": Figure(0.75, (0.5, 0.9))}}},
    }
    judged = {
        (j.criterion.figure, j.criterion.end): j
        for j in (one.judged(figures) for one in read_criteria(tmp_path / "c.toml").limits)
    }
    met = {name: one.met for name, one in judged.items()}
    assert met == {
        ("macro_auc", "lower"): False,
        ("accuracy", "value"): True,
        ("accuracy", "lower"): True,
        ("recall.pji", "lower"): False,
        ("subgroups.site.St. Mary.accuracy", "value"): True,
        ("brier", "upper"): False,
    }
    assert judged["macro_auc", "lower"].note == "No study with dislocation."
    assert "2 patients" in judged["recall.pji", "lower"].note
    assert "no such figure" in judged["brier", "upper"].note


def test_labels_are_suspected_where_they_are_exchanged_and_not_where_answers_are_poor():
    made = scored(150, 0, skill=3.0)
    swapped = made.causes.copy()
    swapped[made.causes == 2], swapped[made.causes == 3] = 3, 2
    said = exchanged_labels(sample(made.p, swapped))
    assert "dislocation for periprosthetic fracture" in said
    assert "infection" not in said
    assert exchanged_labels(sample(made.p, made.causes)) == ""
    poor = scored(150, 1, skill=0.3)
    assert exchanged_labels(sample(poor.p, poor.causes)) == ""


def test_rows_that_name_other_files_are_no_better_than_chance():
    made = scored(150, 0, skill=3.0)
    assert no_better_than_chance(sample(made.p, made.causes)) == ""
    mixed = np.random.default_rng(0).permutation(made.causes)
    assert "right files" in no_better_than_chance(sample(made.p, mixed))
    assert exchanged_labels(sample(made.p, mixed)) == ""


def test_subgroups_are_counted_and_small_ones_marked():
    made = scored(150, 0, skill=3.0)
    age = np.where(np.arange(150) < 20, 45.0, 70.0)
    age[140:] = np.nan
    groups = by_subgroup(sample(made.p, made.causes, age=age, site=["a"] * 100 + ["b"] * 50))
    assert list(groups) == ["site", "age"]
    assert {name: group["studies"] for name, group in groups["age"].items()} == {
        "under 50": 20,
        "65 to 79": 120,
        "not stated": 10,
    }
    assert "warning" in groups["age"]["under 50"]
    assert "warning" not in groups["site"]["b"]
    assert groups["site"]["a"]["accuracy"].studies == 100
    assert [age_band(x) for x in (49.9, 50, 80, float("nan"))] == [
        "under 50",
        "50 to 64",
        "80 and over",
        "",
    ]
