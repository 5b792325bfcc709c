"""How far a network's answers are from the reference's, over one cohort: the gate's figures.

NumPy alone, so that the gate runs on the device it judges. Every figure but `findings` has the
name of its limit in `hipnet_edge.verdict.Limits`. What a cohort cannot show (maps of films without
masks, a cause that no study has) is None, and no limit is held against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export import evaluate
from export.cohort import SOUND
from hipnet_edge.decision import Decision
from hipnet_edge.verdict import Limits
from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]

AT_LEAST = frozenset({"map_correlation"})
"""Figures that may not fall below their limit; all others may not exceed it."""


@dataclass(frozen=True)
class Answers:
    """What a network said of N studies."""

    probabilities: Array
    """float32 [N, 5]."""
    maps: Array
    """float32 [N, 2, 5, h, w]."""
    novelty: Array | None
    """float32 [N]; None where the network has no such output."""

    def subset(self, chosen: Array) -> Answers:
        """The answers for some of the studies."""
        novelty = None if self.novelty is None else self.novelty[chosen]
        return Answers(self.probabilities[chosen], self.maps[chosen], novelty)


def compare(
    reference: Answers,
    candidate: Answers,
    causes: Array,
    occupancy: Array,
    decision: Decision | None,
) -> dict[str, float | None]:
    """Every figure by the name of its limit.

    Args:
        reference: answers of the reference.
        candidate: answers of what is judged, for the same studies.
        causes: [N], index into `CAUSES` or `SOUND`.
        occupancy: [N, 2, h, w], diseased part of each cell; NaN where nobody knows.
        decision: the bundle's calibration, for the findings.
    """
    drops = auroc_drops(reference, candidate, causes)
    known = [drop for drop in drops.values() if drop is not None]
    change = probability_change(reference, candidate)
    correlations = [value for value in map_correlations(reference, candidate) if value is not None]
    errors = [
        evaluate.calibration_error(answers.probabilities, causes)
        for answers in (reference, candidate)
    ]
    points = [
        evaluate.pointing(answers.maps, occupancy, causes) for answers in (reference, candidate)
    ]
    return {
        "auroc_drop": float(np.mean(known)) if known else None,
        "auroc_drop_of_a_cause": max(known, default=None),
        "decision_flips": float(flipped(reference, candidate).mean()),
        "finding_flips": _finding_flips(reference, candidate, decision),
        "calibration_error_change": abs(errors[1] - errors[0]) if (causes != SOUND).any() else None,
        "probability_change_p99": float(np.quantile(change, 0.99)),
        "probability_change_max": float(change.max()),
        "map_correlation": min(correlations, default=None),
        "map_pointing_drop": None if math.isnan(points[0]) else points[0] - points[1],
    }


def exceeded(figures: Mapping[str, float | None], limits: Limits) -> list[str]:
    """The names of the limits that the figures do not keep."""
    wrong = []
    for name, limit in limits.to_dict().items():
        value = figures[name]
        if value is not None and (value < limit if name in AT_LEAST else value > limit):
            wrong.append(name)
    return wrong


def auroc_drops(reference: Answers, candidate: Answers, causes: Array) -> dict[str, float | None]:
    """How much each cause's area under the ROC curve is smaller than the reference's."""
    drops: dict[str, float | None] = {}
    for k, cause in enumerate(CAUSES):
        before, after = (
            evaluate.auc(answers.probabilities, causes, k) for answers in (reference, candidate)
        )
        drops[cause.value] = None if math.isnan(before) else before - after
    return drops


def flipped(reference: Answers, candidate: Answers) -> Array:
    """Which studies have another leading cause, bool [N]."""
    leading = [answers.probabilities.argmax(axis=1) for answers in (reference, candidate)]
    return np.asarray(leading[0] != leading[1])


def probability_change(reference: Answers, candidate: Answers) -> Array:
    """The largest change of any cause's probability in each study, [N]."""
    return np.asarray(np.abs(reference.probabilities - candidate.probabilities).max(axis=1))


def map_correlations(reference: Answers, candidate: Answers) -> list[float | None]:
    """Pearson's correlation of each cause's maps, over all cells of all studies; None if flat."""
    found: list[float | None] = []
    for k in range(len(CAUSES)):
        a, b = (
            answers.maps[:, :, k].ravel().astype(np.float64) for answers in (reference, candidate)
        )
        a, b = a - a.mean(), b - b.mean()
        if not a.any():
            found.append(None)
            continue
        # A candidate without any structure left correlates with nothing.
        found.append(float((a @ b) / math.sqrt(max((a @ a) * (b @ b), 1e-300))))
    return found


def _finding_flips(
    reference: Answers, candidate: Answers, decision: Decision | None
) -> float | None:
    if decision is None:
        return None
    before, after = _findings(reference, decision), _findings(candidate, decision)
    return float((before != after).any(axis=1).mean())


def _findings(answers: Answers, decision: Decision) -> Array:
    """What the bundle's calibration flags in each study, bool [N, 2]."""
    n = len(answers.probabilities)
    found = np.zeros((n, 2), bool)
    if answers.novelty is not None:
        found[:, 0] = answers.novelty > decision.novelty_threshold
    if (curve := decision.sign_of_failure) is not None:
        found[:, 1] = [curve.probability(maps) < curve.threshold for maps in answers.maps]
    return found


def exact_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of a part.

    Source: Clopper and Pearson, Biometrika 1934; the limits are where the binomial tail beyond
    the observed count holds half of what the level leaves.
    """
    tail = (1.0 - level) / 2.0
    low = 0.0 if hits == 0 else _root(lambda p: 1.0 - _cumulative(hits - 1, n, p) - tail)
    high = 1.0 if hits == n else _root(lambda p: tail - _cumulative(hits, n, p))
    return low, high


def _cumulative(k: int, n: int, p: float) -> float:
    """The probability of at most k hits in n."""
    if p <= 0.0 or p >= 1.0:
        return float(p <= 0.0)
    whole = math.lgamma(n + 1)
    return sum(
        math.exp(
            whole
            - math.lgamma(i + 1)
            - math.lgamma(n - i + 1)
            + i * math.log(p)
            + (n - i) * math.log1p(-p)
        )
        for i in range(k + 1)
    )


def _root(rising: Callable[[float], float]) -> float:
    """Where a rising function of a probability crosses zero."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0
