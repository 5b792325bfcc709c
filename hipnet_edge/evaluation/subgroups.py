"""The main figures by site, scanner, sex, age and side, with counts and a warning where few."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.evaluation.causes import auc_by_cause
from hipnet_edge.evaluation.figure import Figure, refused
from hipnet_edge.evaluation.risk import PJI
from hipnet_edge.evaluation.sample import Sample, on_logit_scale
from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]

KINDS = ("site", "scanner", "sex", "age", "side")
FEW_STUDIES = 30
"""Below this a subgroup's figures are a hint and no more."""
MOST_GROUPS = 12
"""Of one kind; the largest are shown."""
_BANDS = ((50.0, "under 50"), (65.0, "50 to 64"), (80.0, "65 to 79"), (np.inf, "80 and over"))


def age_band(years: float) -> str:
    """The band of an age; empty where it is not known."""
    return next((words for below, words in _BANDS if years < below), "")


def figures(failed: Sample) -> dict[str, dict[str, Any]]:
    """Accuracy, macro AUC and PJI's AUC by kind of subgroup and by its name."""
    report: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        words = _words(failed, kind)
        names, sizes = np.unique(words[words != ""], return_counts=True)
        largest = sorted(names[np.argsort(-sizes, kind="stable")][:MOST_GROUPS], key=_place)
        if len(names):
            report[kind] = {str(name): _group(failed.subset(words == name)) for name in largest}
            unknown = int((words == "").sum())
            if unknown:
                report[kind]["not stated"] = _group(failed.subset(words == ""))
    return report


def _place(name: str) -> tuple[int, str]:
    """Ages by age, everything else by name."""
    bands = [words for _, words in _BANDS]
    return (bands.index(name) if name in bands else 0), str(name)


def _words(failed: Sample, kind: str) -> Array:
    column = failed.columns.get(kind)
    if column is None:
        return np.full(len(failed), "")
    if kind == "age":
        return np.array([age_band(years) for years in column])
    return np.asarray(column.astype(str))


def _macro(group: Sample, of_cause: list[Array]) -> Figure:
    rows = auc_by_cause(group.counts, group.probabilities, group.causes).mean(axis=1)
    return on_logit_scale(group.resampled(rows, of_cause), rows)


def _group(group: Sample) -> dict[str, Any]:
    of_cause = [group.causes == k for k in range(len(CAUSES))]
    complete = all(own.any() for own in of_cause)
    few = len(group) < FEW_STUDIES
    return {
        "studies": len(group),
        "patients": group.patients_in(np.ones(len(group), bool)),
        "accuracy": group.proportion(group.correct),
        "macro_auc": _macro(group, of_cause)
        if complete
        else refused("Not every cause is among them.", len(group)),
        "pji_auc": group.area(
            group.probabilities[:, PJI], of_cause[PJI], "Needs infected studies and others."
        ),
        **({"warning": f"Fewer than {FEW_STUDIES} studies: a hint, no more."} if few else {}),
    }
