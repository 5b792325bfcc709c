"""Answers of the same studies under two calibrations: each figure, and how much it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.evaluation import bootstrap
from hipnet_edge.evaluation.causes import brier, calibration_error
from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]


@dataclass(frozen=True)
class Calibrated:
    """N answers under a calibration.

    Attributes:
        probabilities: [N, 5].
        plausible: bool [N, 5], the conformal sets.
        called: bool [N, 5], whether the probability reaches the cause's threshold.
    """

    probabilities: Array
    plausible: Array
    called: Array

    @classmethod
    def under(
        cls, probabilities: Array, thresholds: Mapping[str, float], conformal: float
    ) -> Calibrated:
        """Probabilities [N, 5] with thresholds by cause and the conformal threshold."""
        least = np.minimum(1.0 - conformal, probabilities.max(axis=1))
        limits = np.array([thresholds[cause.value] for cause in CAUSES])
        return cls(probabilities, probabilities >= least[:, None], probabilities >= limits)

    @classmethod
    def together(cls, parts: Sequence[Calibrated], order: Array) -> Calibrated:
        """Parts one after another, then in the given order [N]."""
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])[order]
                for name in ("probabilities", "plausible", "called")
            )
        )


def changes(before: Calibrated, after: Calibrated, true: Array, counts: Array) -> dict[str, Any]:
    """Each figure with the bundle's calibration, with the site's, and the change, paired.

    Args:
        before: with the bundle's calibration.
        after: with the site's.
        true: the causes [N].
        counts: of the resamples, [R, N].
    """
    of_bundle, of_site = (figures(answers, true, counts) for answers in (before, after))
    return {
        name: {
            "bundle": bootstrap.with_interval(of_bundle[name]),
            "overlay": bootstrap.with_interval(rows),
            "change": bootstrap.with_interval(rows - of_bundle[name]),
        }
        for name, rows in of_site.items()
    }


def figures(answers: Calibrated, true: Array, counts: Array) -> dict[str, Array]:
    """Each figure [R] over all resamples."""
    p, studies = answers.probabilities, np.arange(len(true))
    correct = p.argmax(axis=1) == true
    of_cause = [true == k for k in range(len(CAUSES))]
    halves = [
        (
            bootstrap.mean(counts[:, own], answers.called[own, k].astype(float))
            + bootstrap.mean(counts[:, ~own], (~answers.called[~own, k]).astype(float))
        )
        / 2.0
        for k, own in enumerate(of_cause)
    ]
    return {
        "log_loss": bootstrap.mean(counts, -np.log(np.maximum(p[studies, true], 1e-12))),
        "brier": brier(counts, p, true),
        "calibration_error": calibration_error(counts, p, correct)[0],
        "accuracy": bootstrap.mean(counts, correct.astype(float)),
        "balanced_accuracy_at_thresholds": np.asarray(np.mean(halves, axis=0)),
        "conformal_coverage": bootstrap.mean(
            counts, answers.plausible[studies, true].astype(float)
        ),
        "conformal_size": bootstrap.mean(counts, answers.plausible.sum(axis=1).astype(float)),
    }
