"""How well the five causes are told apart: the figures about probabilities.

Except where said otherwise they are over failed studies: probabilities are conditional on failure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.outcome import Outcome
from hipnet_edge.evaluation import bootstrap, causes
from hipnet_edge.evaluation.bootstrap import with_interval
from hipnet_edge.vocabulary import CAUSES, Flag

Array = NDArray[Any]

SUBGROUPS = ("stem", "cup", "cemented", "projection", "bilateral", "side", "digitised")
SMALLEST_SUBGROUP = 10


def told_apart(failed: Outcome, counts: Array) -> dict[str, Any]:
    """Top-1 accuracy, areas under the curve, confusion."""
    areas = causes.auc_by_cause(counts, failed.probabilities, failed.causes)
    return {
        "simulated_accuracy": with_interval(bootstrap.mean(counts, failed.correct)),
        "simulated_accuracy_if_causes_were_equally_frequent": with_interval(
            causes.balanced_accuracy(counts, failed.correct, failed.causes)
        ),
        "simulated_macro_auc": with_interval(areas.mean(axis=1)),
        "simulated_auc_by_cause": {
            cause.value: with_interval(areas[:, k]) for k, cause in enumerate(CAUSES)
        },
        "simulated_confusion_true_by_called": {
            "causes": [cause.value for cause in CAUSES],
            "studies": causes.confusion(failed.probabilities, failed.causes).tolist(),
        },
    }


def one_against_rest(failed: Outcome, counts: Array, thresholds: Array) -> dict[str, Any]:
    """Five yes-or-no questions, answered by the thresholds [5] and by the leading cause."""
    called = failed.probabilities >= thresholds
    true = failed.causes[:, None] == np.arange(len(CAUSES))
    right = called == true
    by_cause = {}
    for k, cause in enumerate(CAUSES):
        with_it, without = true[:, k], ~true[:, k]
        by_cause[cause.value] = {
            "threshold": round(float(thresholds[k]), 4),
            "accuracy": with_interval(bootstrap.mean(counts, right[:, k])),
            "sensitivity": with_interval(bootstrap.mean(counts[:, with_it], called[with_it, k])),
            "specificity": with_interval(bootstrap.mean(counts[:, without], ~called[without, k])),
        }
    return {
        "definition": "mean over the five causes of the part of all failed studies for which "
        "'the probability of this cause is at least its threshold' agrees with 'this is the true "
        "cause'; thresholds from the bundle's manifest. by_leading_cause: the same if yes is said "
        "of the leading cause alone, so each wrong call is wrong twice. Four in five answers are "
        "an easy no: always saying no to all five would reach 0.8.",
        "value": with_interval(bootstrap.mean(counts, right.mean(axis=1))),
        "by_leading_cause": with_interval(
            1.0 - 2.0 / len(CAUSES) * (1.0 - bootstrap.mean(counts, failed.correct))
        ),
        "by_cause": by_cause,
    }


def calibration(failed: Outcome, counts: Array) -> dict[str, Any]:
    """Expected calibration error of the leading cause, and what a reliability diagram shows."""
    errors, bins = causes.calibration_error(counts, failed.probabilities, failed.correct)
    return {
        "definition": causes.CALIBRATION_DEFINITION,
        "value": with_interval(errors),
        "reliability": bins,
    }


def against_single(failed: Outcome, counts: Array, names: list[str]) -> dict[str, Any]:
    """The ensemble against each backbone alone, and against the best of them."""

    def macro(probabilities: Array) -> Array:
        return np.asarray(causes.auc_by_cause(counts, probabilities, failed.causes).mean(axis=1))

    def top1(probabilities: Array) -> Array:
        return bootstrap.mean(counts, probabilities.argmax(axis=1) == failed.causes)

    figures: dict[str, Callable[[Array], Array]] = {"macro_auc": macro, "top1_accuracy": top1}
    report: dict[str, Any] = {
        "definition": "the best single backbone is the one with the highest macro AUC on these "
        "very studies, which flatters it; differences are paired, ensemble less best single",
        "by_backbone": {},
    }
    alone = {name: failed.member_probabilities[:, i] for i, name in enumerate(names)}
    for name, probabilities in alone.items():
        report["by_backbone"][name] = {
            key: with_interval(figure(probabilities)) for key, figure in figures.items()
        }
    best = max(names, key=lambda name: report["by_backbone"][name]["macro_auc"]["value"])
    report["best_single"] = best
    for key, figure in figures.items():
        ensemble, single = figure(failed.probabilities), figure(alone[best])
        report[key] = with_interval(ensemble)
        report[f"{key}_difference"] = with_interval(ensemble - single)
    return report


def conformal(failed: Outcome, counts: Array, plausible: Array) -> dict[str, Any]:
    """Coverage and size of the sets of plausible causes, bool [N, 5]."""
    covered = plausible[np.arange(len(failed)), failed.causes]
    size = plausible.sum(axis=1)
    by_cause = {}
    for k, cause in enumerate(CAUSES):
        own = failed.causes == k
        by_cause[cause.value] = {
            "coverage": with_interval(bootstrap.mean(counts[:, own], covered[own])),
            "mean_size": with_interval(bootstrap.mean(counts[:, own], size[own])),
        }
    return {
        "aim": 0.9,
        "coverage": with_interval(bootstrap.mean(counts, covered)),
        "mean_size": with_interval(bootstrap.mean(counts, size)),
        "studies_by_size": np.bincount(size, minlength=len(CAUSES) + 1).tolist(),
        "by_cause": by_cause,
    }


def subgroups(outcome: Outcome) -> dict[str, Array]:
    """What each study belongs to, str [N] by kind of group, as far as the table knows."""
    groups = {column: outcome.words(column) for column in SUBGROUPS if column in outcome.table}
    if "flags" in outcome.table:
        found = np.char.find(outcome.words("flags"), Flag.NO_IMPLANT.value) < 0
        groups["implant_found"] = np.where(found, "in both views", "not in both views")
    return groups


def by_subgroup(failed: Outcome) -> dict[str, Any]:
    """Top-1 accuracy by implant, projection, side and film; Wilson intervals, as some are small."""
    report: dict[str, Any] = {}
    for kind, words in subgroups(failed).items():
        report[kind] = {}
        for word in np.unique(words):
            own = failed.correct[words == word]
            if own.size >= SMALLEST_SUBGROUP:
                report[kind][str(word)] = bootstrap.part(int(own.sum()), own.size)
    return report


def two_causes(both: Outcome, plausible: Array) -> dict[str, Any]:
    """What is said of studies that have two causes at once; column `also` names the second."""
    names = [cause.value for cause in CAUSES]
    has_second = both.words("also") != ""
    both, plausible = both.subset(has_second), plausible[has_second]
    first = both.causes
    second = np.array([names.index(word) for word in both.words("also")], dtype=int)
    rows = np.arange(len(both))
    leading = np.argsort(-both.probabilities, axis=1)[:, :2]
    p_first, p_second = both.probabilities[rows, first], both.probabilities[rows, second]
    in_top = (leading == first[:, None]).any(axis=1), (leading == second[:, None]).any(axis=1)
    facts = {
        "leading_is_one_of_the_two": (leading[:, 0] == first) | (leading[:, 0] == second),
        "both_are_the_two_leading": in_top[0] & in_top[1],
        "both_are_plausible": plausible[rows, first] & plausible[rows, second],
        "one_is_plausible": plausible[rows, first] | plausible[rows, second],
        "probability_of_the_two_together": p_first + p_second,
        "probability_of_the_lesser": np.minimum(p_first, p_second),
        "size_of_the_plausible_set": plausible.sum(axis=1),
    }
    pair = np.array(
        [" + ".join(sorted((names[a], names[b]))) for a, b in zip(first, second, strict=True)]
    )
    counts = bootstrap.draw(pair)
    return {
        "definition": "simulated with two causes at once; the five probabilities sum to one, so "
        "at most one of the two can exceed a half",
        "studies": len(both),
        **{name: with_interval(bootstrap.mean(counts, values)) for name, values in facts.items()},
        "by_pair": {
            str(name): {
                "studies": int((pair == name).sum()),
                **{
                    key: round(float(np.mean(values[pair == name])), 4)
                    for key, values in facts.items()
                },
            }
            for name in np.unique(pair)
        },
    }
