"""The leak test finds what gives a cause away, and says nothing where nothing does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from toy import save, toy_cohort

pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")

from benchmarks import leaks
from export.cohort import Cohort

N = 400


def cohort_with(**columns: np.ndarray) -> Cohort:
    """Noise without any sign, and these facts."""
    cohort = toy_cohort(N, seed=3, rows=64, columns=64, contrast=0.0)
    cohort.table.update({"stem": np.array(["a", "b"] * (N // 2)), **columns})
    return cohort


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "REPEATS", 200)
    monkeypatch.setattr(leaks, "TREES", 25)


def test_nothing_is_found_where_there_is_nothing() -> None:
    assert [view["leaks"] for view in leaks.measure(cohort_with()).values()] == [[], [], [], []]


def test_a_fact_of_the_header_that_goes_with_a_cause_is_a_leak(tmp_path: Path) -> None:
    cohort = cohort_with()
    cemented = np.where((cohort.causes == 0) & (np.arange(N) % 10 < 6), "yes", "no")
    cohort.table["cemented"] = cemented
    directory, out = save(cohort, tmp_path / "cohort"), tmp_path / "leaks.json"
    arguments = ["--cohort", str(directory), "--out", str(out)]
    result = CliRunner().invoke(leaks.main, arguments)
    assert result.exit_code == 1
    assert "header shows pji" in result.output
    (report,) = json.loads(out.read_text())["cohorts"]
    assert "pji" in report["views"]["header"]["leaks"]
    assert report["views"]["thumbnail"]["leaks"] == []


def test_an_exposure_that_goes_with_a_cause_is_a_leak() -> None:
    cohort = cohort_with()
    cohort.radiographs[cohort.causes == 3] += np.float16(0.4)
    found = leaks.measure(cohort)["histogram"]
    assert "periprosthetic_fracture" in found["leaks"]
    assert found["causes"]["periprosthetic_fracture"]["auc"] > 0.9


def test_what_a_view_may_show_is_no_leak() -> None:
    plain = {"auc": 0.9, "lower_end_99_9": 0.8, "without_dislocations": None}
    assert leaks.leaks_of("silhouette", {"dislocation": plain, "pji": plain}) == ["pji"]
    assert leaks.leaks_of("header", {"dislocation": plain}) == ["dislocation"]


def test_who_is_known_by_not_being_dislocated_is_no_leak() -> None:
    figures = {"auc": 0.7, "lower_end_99_9": 0.6, "without_dislocations": {"auc": 0.55}}
    assert leaks.leaks_of("thumbnail", {"pji": figures}) == []
    assert leaks.above_limit_against_all("thumbnail", {"pji": figures}) == ["pji"]
