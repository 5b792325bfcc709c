"""What is fitted on validation studies: temperatures, thresholds, conformal set, sign of failure.

Everything about causes is fitted on failed prostheses, for the probabilities are conditional on
failure; sound ones (cause -1) serve the sign of failure and the limit of novelty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from hipnet_edge.decision import logit_of_peak
from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]

COVERAGE = 0.9
FALSE_ALARMS = 0.015
"""Part of the validation studies that novelty flags; a site with other detectors gives more."""
MISSED_SIGNS = 0.05
"""Part of the failed validation studies that may be said to show no sign, at most."""


def fit_temperatures(logits: Tensor, causes: Tensor) -> list[float]:
    """One temperature a backbone, such that the mean of their softmaxes is calibrated.

    Each backbone's own temperature comes first; their mean is then less sure than it should be
    (backbones err differently), so one factor common to all is fitted to the fused probabilities.
    N right answers out of N do not make the next one certain: by the rule of succession each
    study's truth counts as probable, not as sure, or studies that are all told apart would drive
    every probability to 0 or 1 (the targets of Platt, Advances in large margin classifiers, 1999,
    for more than two classes).

    Args:
        logits: float32 [4, N, 5] on validation studies.
        causes: int64 [N].
    """
    n, k = logits.shape[1:]
    truth = (functional.one_hot(causes, k) * n + 1.0) / (n + k)

    def fused_loss(factor: float, base: Tensor) -> Tensor:
        members = torch.softmax(logits / (base * factor)[:, None, None], dim=2)
        return -(truth * torch.log(members.mean(0).clamp_min(1e-12))).sum(1).mean()

    def own_loss(member: Tensor) -> Callable[[float], Tensor]:
        return lambda temperature: functional.cross_entropy(member / temperature, truth)

    own = torch.tensor([_minimum(own_loss(member)) for member in logits])
    common = _minimum(lambda factor: fused_loss(factor, own))
    return [float(t) for t in own * common]


def _minimum(loss: Callable[[float], Tensor]) -> float:
    """Golden-section search over log temperature: one number, one valley."""
    low, high, ratio = math.log(0.1), math.log(10.0), (math.sqrt(5.0) - 1.0) / 2.0
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if float(loss(math.exp(left))) < float(loss(math.exp(right))):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2.0)


def conformal_threshold(probabilities: Array, causes: Array, coverage: float = COVERAGE) -> float:
    """The largest 1 - p with which a cause stays in the conformal set.

    Source: split conformal prediction with the score 1 - p (Sadinle et al., JASA 2019).

    Args:
        probabilities: [N, 5] on studies that no temperature was fitted to.
        causes: [N].
        coverage: part of the sets that are to hold the true cause.
    """
    scores = np.sort(1.0 - probabilities[np.arange(len(causes)), causes])
    rank = math.ceil((len(scores) + 1) * coverage)
    return float(scores[rank - 1]) if rank <= len(scores) else 1.0


def cause_thresholds(probabilities: Array, causes: Array) -> dict[str, float]:
    """For each cause the probability from which to say yes.

    Where sensitivity and specificity together are best (Youden, Cancer 1950); halfway on the
    logit scale down to the next probability that occurs.

    Args:
        probabilities: [N, 5] on studies that no temperature was fitted to.
        causes: [N], every cause among them.
    """
    found = {}
    for k, cause in enumerate(CAUSES):
        p, true = probabilities[:, k].astype(np.float64), causes == k
        edges = np.unique(p)
        at_least = p >= edges[:, None]
        index = at_least[:, true].mean(axis=1) - at_least[:, ~true].mean(axis=1)
        best = int(index.argmax())
        below = edges[best - 1] if best else edges[best]
        found[cause.value] = _halfway(below, edges[best])
    return found


def _halfway(low: float, high: float) -> float:
    """The probability halfway between two on the logit scale."""
    edges = np.clip([low, high], 1e-12, 1.0 - 1e-12)
    return float(1.0 / (1.0 + np.exp(-np.mean(np.log(edges / (1.0 - edges))))))


def fit_sign_of_failure(maps: Array, causes: Array) -> dict[str, float] | None:
    """The logistic curve from the maps' largest peak to "this prosthesis shows a sign of failure".

    Failed and sound weigh the same whatever their numbers: 0.5 is where a peak speaks for
    neither.

    Args:
        maps: float32 [N, 2, 5, h, w].
        causes: [N], -1 for a sound prosthesis.

    Returns:
        `slope`, `intercept` and `threshold` for the manifest; None without sound prostheses, or
        if sound ones have the larger peaks.
    """
    failed = causes >= 0
    if failed.all() or not failed.any():
        return None
    score = logit_of_peak(maps)
    curve = LogisticRegression(class_weight="balanced").fit(score[:, None], failed)
    slope, intercept = float(curve.coef_[0, 0]), float(curve.intercept_[0])
    if slope <= 0:
        return None
    found = 1.0 / (1.0 + np.exp(-(slope * score[failed] + intercept)))
    return {
        "slope": slope,
        "intercept": intercept,
        "threshold": float(min(np.quantile(found, MISSED_SIGNS), 0.5)),
    }


def novelty_threshold(novelty: Array) -> float:
    """The score that `FALSE_ALARMS` of the validation studies exceed.

    Args:
        novelty: [N], of failed and sound prostheses alike, by statistics that did not meet the
            family of their implant.
    """
    return float(np.quantile(novelty, 1.0 - FALSE_ALARMS))
