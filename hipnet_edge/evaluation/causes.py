"""How well the five causes are told apart, and whether probabilities mean what they say.

Figures are over failed studies: the probabilities are conditional on failure. The functions over
counts [R, N] (see `bootstrap`) are those that `benchmarks/accuracy.py` uses too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.decision import Decision
from hipnet_edge.evaluation import bootstrap
from hipnet_edge.evaluation.figure import NEWCOMBE, Figure, few_words, refused
from hipnet_edge.evaluation.sample import Sample, on_logit_scale
from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]

BINS = 15
CALIBRATION_DEFINITION = (
    f"leading cause, {BINS} bins of equal width; the interval of an error that "
    "cannot be negative may lie above the figure itself"
)
BRIER_DEFINITION = (
    "mean over studies of the sum over the five causes of (probability - truth) squared: 0 is "
    "perfect, 2 the worst; 0.8 is reached by saying 0.2 of every cause"
)


def auc_by_cause(counts: Array, probabilities: Array, causes: Array) -> Array:
    """One-against-rest areas [R, 5]."""
    areas = [bootstrap.auc(counts, probabilities[:, k], causes == k) for k in range(len(CAUSES))]
    return np.stack(areas, axis=1)


def balanced_accuracy(counts: Array, correct: Array, causes: Array) -> Array:
    """Mean [R] of the five causes' recalls: accuracy if causes were equally frequent."""
    recalls = [
        bootstrap.mean(counts[:, own], correct[own])
        for own in (causes == k for k in range(len(CAUSES)))
    ]
    return np.asarray(np.mean(recalls, axis=0))


def confusion(probabilities: Array, causes: Array) -> Array:
    """Studies [5, 5] by true cause and leading cause."""
    counted = np.zeros((len(CAUSES), len(CAUSES)), int)
    np.add.at(counted, (causes, probabilities.argmax(axis=1)), 1)
    return counted


def calibration_error(
    counts: Array, probabilities: Array, correct: Array
) -> tuple[Array, list[dict[str, Any]]]:
    """Expected calibration error [R] of the leading cause, and what a reliability diagram shows."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    in_bin = which[:, None] == np.arange(BINS)
    studies = counts @ in_bin
    claimed, right = (
        counts @ (in_bin * confidence[:, None]),
        counts @ (in_bin * correct[:, None]),
    )
    errors = np.abs(claimed - right).sum(axis=1) / counts.sum(axis=1)
    bins = [
        {
            "from": round(b / BINS, 4),
            "to": round((b + 1) / BINS, 4),
            "studies": int(studies[0, b]),
            "mean_confidence": round(float(claimed[0, b] / studies[0, b]), 4),
            "accuracy": round(float(right[0, b] / studies[0, b]), 4),
        }
        for b in range(BINS)
        if studies[0, b]
    ]
    return errors, bins


def brier(counts: Array, probabilities: Array, causes: Array) -> Array:
    """The multi-class Brier score [R]."""
    true = causes[:, None] == np.arange(len(CAUSES))
    return bootstrap.mean(counts, ((probabilities - true) ** 2).sum(axis=1))


def f1(counts: Array, called: Array, true: Array) -> Array:
    """F1 [R] of bool `called` [N] for bool `true` [N]; NaN where there is neither."""
    both, either = counts @ (called & true), counts @ called + counts @ true
    return np.asarray(np.divide(2.0 * both, either, np.full(len(counts), np.nan), where=either > 0))


def figures(failed: Sample) -> dict[str, Any]:
    """Accuracy, areas, confusion, Brier score, calibration error."""
    of_cause = [failed.causes == k for k in range(len(CAUSES))]
    absent = [cause.label for cause, own in zip(CAUSES, of_cause, strict=True) if not own.any()]
    without = f"No study with {', '.join(absent).lower()}: all five causes are needed."
    counts, p, correct = failed.counts, failed.probabilities, failed.correct
    rows = auc_by_cause(counts, p, failed.causes)
    areas = {
        cause.value: failed.area(
            failed.probabilities[:, k],
            of_cause[k],
            f"Needs studies with {cause.label.lower()} and studies without.",
            rows[:, k],
        )
        for k, cause in enumerate(CAUSES)
    }
    errors, bins = calibration_error(counts, p, correct)
    return {
        "accuracy": failed.proportion(correct),
        "balanced_accuracy": refused(without, len(failed))
        if absent
        else failed.resampled(balanced_accuracy(counts, correct, failed.causes), of_cause),
        "macro_auc": refused(without, len(failed))
        if absent
        else _macro(failed, of_cause, areas, rows.mean(axis=1)),
        "auc": areas,
        "recall": {
            cause.value: failed.proportion(correct, own)
            for cause, own in zip(CAUSES, of_cause, strict=True)
        },
        "brier": failed.resampled(brier(counts, p, failed.causes)),
        "calibration_error": failed.resampled(errors),
        "reliability": bins,
        "confusion": confusion(p, failed.causes).tolist(),
    }


def _macro(failed: Sample, of_cause: list[Array], areas: dict[str, Figure], rows: Array) -> Figure:
    """Mean of the five areas; where all are 1, with the mean of the lower ends of theirs."""
    macro = failed.resampled(rows, of_cause)
    ends = [area.interval for area in areas.values() if area.method == NEWCOMBE and area.interval]
    if macro.value != 1.0 or len(ends) < len(areas):
        return on_logit_scale(macro, rows)
    low, patients = float(np.mean([end[0] for end in ends])), macro.patients
    return Figure(1.0, (low, 1.0), NEWCOMBE, macro.studies, patients, few_words(patients))


def at_thresholds(failed: Sample, decision: Decision) -> dict[str, dict[str, Any]]:
    """Each cause called or not at the bundle's thresholds, by cause."""
    report: dict[str, dict[str, Any]] = {}
    for k, cause in enumerate(CAUSES):
        called = failed.probabilities[:, k] >= decision.thresholds[cause]
        true = failed.causes == k
        report[cause.value] = {
            "threshold": round(decision.thresholds[cause], 4),
            "sensitivity": failed.proportion(called, true),
            "specificity": failed.proportion(~called, ~true),
            "positive_predictive_value": failed.proportion(true, called),
            "negative_predictive_value": failed.proportion(~true, ~called),
            "f1": failed.resampled(f1(failed.counts, called, true), [true, ~true])
            if true.any() and not true.all()
            else refused("Needs studies with the cause and studies without.", len(failed)),
        }
    return report


def conformal(failed: Sample, decision: Decision) -> dict[str, Any]:
    """How often the plausible causes hold the true one, and how many they are."""
    sets = [
        decision.plausible_causes(dict(zip(CAUSES, map(float, row), strict=True)))
        for row in failed.probabilities
    ]
    plausible = np.array([[cause in one for cause in CAUSES] for one in sets])
    covered = plausible[np.arange(len(failed)), failed.causes]
    size = plausible.sum(axis=1)
    return {
        "meant": decision.coverage,
        "coverage": failed.proportion(covered),
        "mean_size": failed.resampled(bootstrap.mean(failed.counts, size.astype(float))),
        "by_cause": {
            cause.value: failed.proportion(covered, failed.causes == k)
            for k, cause in enumerate(CAUSES)
        },
    }
