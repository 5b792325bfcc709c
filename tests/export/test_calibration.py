from __future__ import annotations

import pytest

pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")

import numpy as np

from export import calibration
from hipnet_edge.decision import Decision, SignOfFailure
from hipnet_edge.vocabulary import CAUSES, Cause


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities and the causes drawn from them."""
    random = np.random.default_rng(seed)
    p = random.dirichlet([0.6] * 5, size=n)
    return p, np.array([random.choice(5, p=row) for row in p])


def test_conformal_sets_cover_as_often_as_they_say() -> None:
    threshold = calibration.conformal_threshold(*drawn(2000, 0))
    decision = Decision(dict.fromkeys(CAUSES, 0.5), 0.9, threshold, 1.0, None)
    p, causes = drawn(4000, 1)
    sets = [decision.plausible_causes(dict(zip(CAUSES, row, strict=True))) for row in p]
    covered = np.mean([CAUSES[c] in s for c, s in zip(causes, sets, strict=True)])
    assert covered == pytest.approx(0.9, abs=0.02)
    assert all(CAUSES[row.argmax()] in s for row, s in zip(p, sets, strict=True))
    assert 1 < np.mean([len(s) for s in sets]) < 4


def test_too_few_studies_leave_every_cause_plausible() -> None:
    assert calibration.conformal_threshold(*drawn(8, 0)) == 1.0


def test_thresholds_make_sensitivity_and_specificity_together_best() -> None:
    p, causes = drawn(3000, 2)
    found = calibration.cause_thresholds(p, causes)
    assert set(found) == {cause.value for cause in Cause}
    for k, cause in enumerate(CAUSES):

        def index(limit: float, k: int = k) -> float:
            called = p[:, k] >= limit
            return float(called[causes == k].mean() - called[causes != k].mean())

        assert index(found[cause.value]) == max(index(limit) for limit in p[:, k])


def test_where_studies_are_told_apart_the_threshold_lies_between_them() -> None:
    p, causes = np.full((10, 5), 0.05), np.arange(10) % 5
    p[np.arange(10), causes] = 0.8
    between = 1.0 / (1.0 + np.sqrt((0.95 / 0.05) * (0.2 / 0.8)))
    found = calibration.cause_thresholds(p, causes)
    assert list(found.values()) == pytest.approx([between] * 5)


def test_studies_that_are_all_told_apart_do_not_make_the_next_one_certain() -> None:
    causes = np.arange(200) % 5
    logits = np.eye(5, dtype=np.float32)[causes] * 30.0
    temperatures = calibration.fit_temperatures(np.stack([logits] * 4), causes)
    powers = np.exp(logits / temperatures[0])
    p = (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)
    assert p == pytest.approx(201 / 205, abs=1e-3)


def peaks(n: int, centre: float, seed: int) -> np.ndarray:
    """Maps whose largest value has about the log-odds `centre`."""
    maps = np.full((n, 2, 5, 4, 3), 1e-3, np.float32)
    log_odds = np.random.default_rng(seed).normal(centre, 1.0, n)
    maps[:, 1, 2, 3, 0] = 1 / (1 + np.exp(-log_odds))
    return maps


def test_the_sign_of_failure_is_calibrated_at_even_odds() -> None:
    maps = np.concatenate([peaks(9000, 2.0, 0), peaks(1000, 0.0, 1)])
    causes = np.array([k % 5 for k in range(9000)] + [-1] * 1000)
    found = calibration.fit_sign_of_failure(maps, causes)
    assert found is not None
    # Two normal distributions of width 1 at 2 and 0: log-odds 2 x - 2.
    assert found["slope"] == pytest.approx(2.0, rel=0.2)
    assert found["intercept"] == pytest.approx(-2.0, rel=0.25)
    curve = SignOfFailure(**found)
    failed = np.array([curve.probability(m) for m in peaks(400, 2.0, 2)])
    sound = np.array([curve.probability(m) for m in peaks(400, 0.0, 3)])
    assert (failed < curve.threshold).mean() < 0.1
    assert (sound < curve.threshold).mean() > 0.5
    assert curve.threshold <= 0.5


def test_without_sound_prostheses_there_is_no_curve() -> None:
    causes = np.arange(20) % 5
    assert calibration.fit_sign_of_failure(peaks(20, 1.0, 0), causes) is None
    assert calibration.fit_sign_of_failure(peaks(20, 1.0, 0), np.full(20, -1)) is None
    # Sound ones with the larger peaks: the maps say nothing of failure.
    upside_down = np.concatenate([peaks(20, 0.0, 0), peaks(20, 4.0, 1)])
    mixed = np.r_[causes, np.full(20, -1)]
    assert calibration.fit_sign_of_failure(upside_down, mixed) is None


def test_few_usual_studies_are_called_strange() -> None:
    scores = np.random.default_rng(0).chisquare(20, 5000)
    flagged = (scores > calibration.novelty_threshold(scores)).mean()
    assert flagged == pytest.approx(calibration.FALSE_ALARMS, abs=0.002)
