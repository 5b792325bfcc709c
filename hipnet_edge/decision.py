"""What a bundle's calibration says of an answer: is it for this model, is there a sign, what else.

The numbers belong to one set of backbones and are fitted on validation studies by
`export/refit.py`; they stand in the manifest under `decision`. A bundle may lack them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.fields import Fields
from hipnet_edge.vocabulary import CAUSES, Cause

SMALLEST_PEAK = 1e-6
"""Peaks nearer to 0 or 1 than this count as this near: float32 cannot tell them apart."""


def logit_of_peak(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """The log-odds of the largest value in each study's maps.

    Args:
        maps: float32 [..., views, causes, h, w], 0 to 1.

    Returns:
        float64 [...].
    """
    peak = maps.max(axis=(-4, -3, -2, -1)).astype(np.float64)
    peak = np.clip(peak, SMALLEST_PEAK, 1.0 - SMALLEST_PEAK)
    log_odds: NDArray[np.float64] = np.log(peak / (1.0 - peak))
    return log_odds


@dataclass(frozen=True)
class SignOfFailure:
    """A logistic curve over the maps' largest peak, fitted on failed and sound prostheses."""

    slope: float
    intercept: float
    threshold: float
    """Below this probability the result says that no sign was found."""

    def probability(self, maps: NDArray[np.float32]) -> float:
        """The probability that the films show any sign of failure.

        Args:
            maps: float32 [2, 5, h, w] of one study.
        """
        score = self.slope * float(logit_of_peak(maps)) + self.intercept
        return 1.0 / (1.0 + math.exp(-max(min(score, 700.0), -700.0)))


@dataclass(frozen=True)
class Decision:
    """Calibration of one bundle."""

    thresholds: Mapping[Cause, float]
    """Probability from which on a cause is called: sensitivity and specificity together best."""
    coverage: float
    """The part of studies whose true cause is meant to be among the plausible ones."""
    conformal_threshold: float
    """The largest 1 - p with which a cause is plausible."""
    novelty_threshold: float
    """The network's `novelty` above which a study is flagged."""
    sign_of_failure: SignOfFailure | None
    """None where no sound prostheses were at hand to fit it."""

    def plausible_causes(self, probabilities: Mapping[Cause, float]) -> tuple[Cause, ...]:
        """The conformal set in the order of `CAUSES`; the leading cause is always in it.

        Source: least ambiguous set-valued classifiers (Sadinle et al., JASA 2019).
        """
        least = min(1.0 - self.conformal_threshold, max(probabilities.values()))
        return tuple(cause for cause in CAUSES if probabilities[cause] >= least)


def read_decision(fields: Fields) -> Decision:
    """The section `decision` of a manifest.

    Raises:
        HipNetError: what `fields` complains with; the field is named.
    """
    fields.only("thresholds", "conformal", "novelty", "sign_of_failure")
    thresholds = fields.child("thresholds")
    thresholds.only(*(cause.value for cause in CAUSES))
    conformal, novelty = fields.child("conformal"), fields.child("novelty")
    conformal.only("coverage", "threshold")
    novelty.only("threshold")
    sign = None if fields.raw("sign_of_failure") is None else fields.child("sign_of_failure")
    return Decision(
        thresholds=MappingProxyType(
            {cause: thresholds.number(cause.value, 0, 1) for cause in CAUSES}
        ),
        coverage=conformal.number("coverage", 0, 1),
        conformal_threshold=conformal.number("threshold", 0, 1),
        novelty_threshold=novelty.number("threshold", 0),
        sign_of_failure=None if sign is None else _read_sign(sign),
    )


def _read_sign(fields: Fields) -> SignOfFailure:
    fields.only("slope", "intercept", "threshold")
    return SignOfFailure(
        slope=fields.number("slope", 0, 1e6),
        intercept=fields.number("intercept", -1e6, 1e6),
        threshold=fields.number("threshold", 0, 1),
    )
