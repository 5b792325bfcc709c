"""PJI risk against the laboratory's CRP and ESR, and whether a sound prosthesis is known as one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.evaluation import bootstrap
from hipnet_edge.evaluation.figure import Figure, refused
from hipnet_edge.evaluation.sample import SOUND, Sample
from hipnet_edge.vocabulary import CAUSES, Cause

Array = NDArray[Any]

PJI = CAUSES.index(Cause.PJI)
MARKERS = {"crp": "CRP, mg/L", "esr": "ESR, mm/h"}
"""Columns of the table with what a laboratory measured, and their words."""
SMALLEST_LOGGED = 0.1
"""Laboratory values below this are taken as this for the logarithm: none is measured finer."""
DEFINITION = (
    "spearman: rank correlation of PJI risk with the laboratory's value; pearson_log: linear "
    "correlation of PJI risk with the value's logarithm (values below "
    f"{SMALLEST_LOGGED:g} taken as {SMALLEST_LOGGED:g}). The ceilings are what a perfect "
    "classifier would reach that says 1 of every infected study and 0 of every other: within "
    "infected studies alone it has no correlation at all."
)


def logged(values: Array) -> Array:
    """Decimal logarithms of laboratory values; NaN stays NaN."""
    return np.asarray(np.log10(np.maximum(values, SMALLEST_LOGGED)))


def figures(sample: Sample) -> dict[str, Any]:
    """Correlations with every marker that the table has, over all studies and within PJI."""
    report: dict[str, Any] = {}
    for marker in MARKERS:
        values = sample.columns.get(marker)
        if values is None or not np.isfinite(values).any():
            continue
        known = sample.subset(np.isfinite(values))
        infected = known.causes == PJI
        report[marker] = {
            "all": _correlations(known, known.columns[marker]),
            "ceiling": _correlations(known, known.columns[marker], infected.astype(float)),
            "within_pji": _correlations(known.subset(infected), known.columns[marker][infected]),
        }
    return {"definition": DEFINITION, **report} if report else {}


def _correlations(sample: Sample, values: Array, risk: Array | None = None) -> dict[str, Figure]:
    if len(sample) < 3:
        nothing = refused(f"{len(sample)} studies with a value.", len(sample))
        return {"spearman": nothing, "pearson_log": nothing}
    risk = sample.probabilities[:, PJI] if risk is None else risk
    return {
        "spearman": sample.resampled(bootstrap.spearman(sample.counts, risk, values)),
        "pearson_log": sample.resampled(bootstrap.pearson(sample.counts, risk, logged(values))),
    }


def sign_of_failure(sample: Sample, threshold: float) -> dict[str, Any]:
    """How well sound prostheses are told from failed ones; empty where the table has no sound one.

    Args:
        sample: with the column `sign_of_failure`.
        threshold: below it the flag `no_sign_of_failure` is raised.
    """
    sound = sample.causes == SOUND
    if not sound.any():
        return {}
    sign = sample.columns["sign_of_failure"]
    return {
        "auc": sample.area(sign, ~sound, "Needs failed prostheses and sound ones."),
        "sound_flagged": sample.proportion(sign < threshold, sound),
        "failed_flagged": sample.proportion(sign < threshold, ~sound),
    }
