"""PJI risk against how severe the infection is, and whether a sound prosthesis is known as one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.outcome import Outcome
from export.cohort import SOUND
from hipnet_edge.evaluation import bootstrap
from hipnet_edge.evaluation.bootstrap import with_interval
from hipnet_edge.vocabulary import CAUSES, Cause

Array = NDArray[Any]

PJI = CAUSES.index(Cause.PJI)


def pji_risk(outcome: Outcome, counts: Array) -> dict[str, Any]:
    """Rank correlation of PJI risk with the infection's severity and with CRP and ESR."""
    infected = outcome.causes == PJI
    risk = outcome.probabilities[:, PJI]
    severity = np.where(infected, outcome.numbers("severity"), 0.0)
    within = counts[:, infected]
    report: dict[str, Any] = {
        "definition": "Spearman's correlation of PJI risk with the latent severity of the "
        "infection that drives its signs; severity is 0 where there is no infection. The ceiling "
        "overall is that of an oracle that knows infected from not and nothing of severity; "
        "within infected studies such an oracle has no correlation at all. CRP and ESR are "
        "simulated from the same severity: that they go along is an input, not a finding.",
        "studies": {"all": len(outcome), "infected": int(infected.sum())},
        "within_pji": with_interval(bootstrap.spearman(within, risk[infected], severity[infected])),
        "overall": with_interval(bootstrap.spearman(counts, risk, severity)),
        "overall_ceiling_without_severity": with_interval(
            bootstrap.spearman(counts, infected.astype(float), severity)
        ),
    }
    for column in ("crp", "esr"):
        values = outcome.numbers(column)
        known = np.isfinite(values)
        own = infected & known
        report[column] = {
            "within_pji": with_interval(bootstrap.spearman(counts[:, own], risk[own], values[own])),
            "overall": with_interval(
                bootstrap.spearman(counts[:, known], risk[known], values[known])
            ),
            "severity_itself_within_pji": with_interval(
                bootstrap.spearman(counts[:, own], severity[own], values[own])
            ),
        }
    return report


def sign_of_failure(
    outcome: Outcome, counts: Array, sign: Array, threshold: float
) -> dict[str, Any]:
    """How well sound prostheses are told from failed ones.

    Args:
        outcome: sound and failed studies.
        counts: [R, N].
        sign: [N], the probability that the films show any sign of failure.
        threshold: below it the flag `no_sign_of_failure` is raised.
    """
    sound = outcome.causes == SOUND
    flagged = sign < threshold
    by_cause = {
        cause.value: with_interval(
            bootstrap.mean(counts[:, outcome.causes == k], flagged[outcome.causes == k])
        )
        for k, cause in enumerate(CAUSES)
    }
    return {
        "definition": "the flag is raised where the calibrated probability of any sign of failure, "
        "from the maps' peaks, is below the bundle's threshold",
        "studies": {"sound": int(sound.sum()), "failed": int((~sound).sum())},
        "auroc": with_interval(bootstrap.auc(counts, sign, ~sound)),
        "threshold": round(threshold, 4),
        "sound_flagged": with_interval(bootstrap.mean(counts[:, sound], flagged[sound])),
        "failed_flagged": with_interval(bootstrap.mean(counts[:, ~sound], flagged[~sound])),
        "failed_flagged_by_cause": by_cause,
    }
