"""Figures of repeated timings: percentiles, spread, and ratios of medians with their interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
"""Milliseconds; of a comparison [rounds, block], in the order in which they were taken."""

RESAMPLES = 2000


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians and its 95 % interval (percentile bootstrap over rounds)."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """As entries of a JSON object."""
        return {
            "value": round(self.value, 4),
            "ci95": [round(self.low, 4), round(self.high, 4)],
        }


def summary(times: Times) -> dict[str, Any]:
    """What a report says of timings: count, percentiles in milliseconds, coefficient of variation.

    Percentiles are interpolated linearly, as `numpy.percentile` does; the coefficient of variation
    is the sample's standard deviation over its mean, None for a single timing.
    """
    flat = np.asarray(times, np.float64).ravel()
    p50, p90, p95, p99 = np.percentile(flat, [50, 90, 95, 99])
    spread = None if flat.size < 2 else round(float(flat.std(ddof=1) / flat.mean()), 4)
    return {
        "n": int(flat.size),
        "p50": _rounded(p50),
        "p90": _rounded(p90),
        "p95": _rounded(p95),
        "p99": _rounded(p99),
        "max": _rounded(flat.max()),
        "cv": spread,
    }


def ratio_of_medians(numerator: Times, denominator: Times, seed: int = 0) -> Ratio:
    """How many times longer the one takes than the other.

    Rounds are drawn with replacement, the same for both: what slowed a whole round slowed both,
    and timings within a round are no independent ones.

    Args:
        numerator: [rounds, block].
        denominator: [rounds, any block] of the same rounds.
        seed: decides every draw.
    """
    if len(numerator) != len(denominator):
        raise ValueError(f"{len(numerator)} rounds cannot be paired with {len(denominator)}")
    drawn = np.random.default_rng(seed).integers(len(numerator), size=(RESAMPLES, len(numerator)))
    ratios = _medians(numerator, drawn) / _medians(denominator, drawn)
    low, high = np.percentile(ratios, [2.5, 97.5])
    value = float(np.median(numerator) / np.median(denominator))
    return Ratio(value, float(low), float(high))


def percentile_ratio(times: Times, upper: float, lower: float, seed: int = 0) -> Ratio:
    """One percentile over another of the same timings, such as p99 over p50; resampled singly."""
    flat = np.asarray(times, np.float64).ravel()
    drawn = np.random.default_rng(seed).integers(flat.size, size=(RESAMPLES // 4, flat.size))
    high, low = np.percentile(flat[drawn], [upper, lower], axis=1)
    ends = np.percentile(high / low, [2.5, 97.5])
    value = float(np.percentile(flat, upper) / np.percentile(flat, lower))
    return Ratio(value, float(ends[0]), float(ends[1]))


def _medians(times: Times, drawn: NDArray[np.int64]) -> Times:
    """The median of each resample: float64 [resamples]."""
    return np.asarray(np.median(times[drawn].reshape(len(drawn), -1), axis=1))


def _rounded(milliseconds: float) -> float:
    return round(float(milliseconds), 4)
