"""What is fitted on answered studies with a known cause: temperatures, thresholds, conformal set.

The bundle's own calibration (`export.calibration`) and a site's (`recalibration`) are both made
here. Everything is fitted on failed prostheses, for the probabilities are conditional on failure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]

COVERAGE = 0.9
"""The part of studies whose true cause is to be among the plausible ones."""
LOWEST, HIGHEST = 0.1, 10.0
"""Between these each temperature is looked for."""


def fit_temperatures(logits: Array, causes: Array, weights: Array | None = None) -> Array:
    """One temperature a backbone, such that the mean of their softmaxes is calibrated.

    Each backbone's own temperature comes first; their mean is then less sure than it should be
    (backbones err differently), so one factor common to all is fitted to the fused probabilities.
    N right answers out of N do not make the next one certain: by the rule of succession each
    study's truth counts as probable, not as sure, or studies that are all told apart would drive
    every probability to 0 or 1 (the targets of Platt, Advances in large margin classifiers, 1999,
    for more than two classes).

    Args:
        logits: [M, N, 5] of M backbones, each study's up to a constant: logarithms of
            probabilities serve as well, and give temperatures relative to those that made them.
        causes: [N].
        weights: [M] of the backbones in the ensemble; equal if not given.

    Returns:
        float64 [M].
    """
    backbones, n, k = logits.shape
    weights = np.full(backbones, 1.0 / backbones) if weights is None else weights
    truth = (np.eye(k)[causes] * n + 1.0) / (n + k)
    centred = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)

    def own_loss(member: Array) -> Callable[[float], float]:
        return lambda temperature: _cross_entropy(_softmax(member / temperature), truth)

    own = np.array([_minimum(own_loss(member)) for member in centred])

    def fused_loss(factor: float) -> float:
        members = _softmax(centred / (own * factor)[:, None, None])
        return _cross_entropy(np.tensordot(weights, members, axes=1), truth)

    return np.asarray(own * _minimum(fused_loss))


def _softmax(logits: Array) -> Array:
    """Along the last axis, of logits whose largest is 0."""
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _cross_entropy(probabilities: Array, truth: Array) -> float:
    return float(-(truth * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1).mean())


def _minimum(loss: Callable[[float], float]) -> float:
    """Golden-section search over log temperature: one number, one valley."""
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    low, high = math.log(LOWEST), math.log(HIGHEST)
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(math.exp(left)), loss(math.exp(right))
    for _ in range(40):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(math.exp(right))
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
        index = _part_at_least(p[true], edges) - _part_at_least(p[~true], edges)
        best = int(index.argmax())
        below = edges[best - 1] if best else edges[best]
        found[cause.value] = _halfway(below, edges[best])
    return found


def _part_at_least(values: Array, edges: Array) -> Array:
    """The part of the values that is at least each edge."""
    below = np.searchsorted(np.sort(values), edges)
    return np.asarray((len(values) - below) / len(values))


def _halfway(low: float, high: float) -> float:
    """The probability halfway between two on the logit scale."""
    edges = np.clip([low, high], 1e-12, 1.0 - 1e-12)
    return float(1.0 / (1.0 + np.exp(-np.mean(np.log(edges / (1.0 - edges))))))
