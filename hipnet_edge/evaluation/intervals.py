"""95 % intervals with a formula: of a proportion, and of the area under a ROC curve (DeLong).

Sources: Wilson, JASA 1927; Clopper and Pearson, Biometrika 1934; Newcombe, Statistics in Medicine
1998 (17:857) and 2006 (25:559, method 5); DeLong, DeLong and Clarke-Pearson, Biometrics 1988;
Sun and Xu, IEEE Signal Processing Letters 2014, for its computation by midranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

Z95 = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""


def wilson(hits: float, n: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion; `n` may be an effective number of studies."""
    part, spread = hits / n, Z95 * Z95 / n
    centre = (part + spread / 2.0) / (1.0 + spread)
    half = np.sqrt(spread * (part * (1.0 - part) + spread / 4.0)) / (1.0 + spread)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def clopper_pearson(hits: int, n: int) -> tuple[float, float]:
    """The exact interval of a proportion: never too narrow, mostly too wide."""
    from scipy.stats import beta

    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(0.975, hits + 1, n - hits))
    return low, high


def effective_studies(right: Array, patients: Array) -> float:
    """How many independent studies say as much of a proportion as these of fewer patients do.

    The number of studies over the design effect: the variance of the proportion with patients as
    clusters (linearised) over that of independent studies. Where the proportion is 0 or 1 nothing
    tells how alike a patient's studies are: they are then taken to be the same one again.

    Args:
        right: bool [N].
        patients: [N], equal for the studies of one patient.

    Returns:
        1 to N.
    """
    n, part = len(right), float(np.mean(right))
    _, which, sizes = np.unique(patients, return_inverse=True, return_counts=True)
    if len(sizes) == n:
        return float(n)
    alike = n * n / float((sizes.astype(float) ** 2).sum())
    if part in (0.0, 1.0) or len(sizes) < 2:
        return alike
    off = np.bincount(which, right - part)
    clustered = float((off * off).sum()) * len(sizes) / (len(sizes) - 1) / n**2
    return float(np.clip(part * (1.0 - part) / clustered, 1.0, n)) if clustered > 0 else alike


def logit_interval(value: float, error: float) -> tuple[float, float]:
    """The 95 % interval of an area with a standard error, symmetric on the logit scale.

    Near 1 a symmetric interval holds the truth far too seldom, and percentiles of a bootstrap do
    too (benchmarks/results/interval_coverage.json). Source: Pepe, The Statistical Evaluation of
    Medical Tests, 2003, 5.2; Qin and Hotilovac, Statistical Methods in Medical Research 2008.

    Args:
        value: above 0 and below 1.
        error: of the value itself.
    """
    middle, half = np.log(value / (1.0 - value)), Z95 * error / (value * (1.0 - value))
    low, high = (1.0 / (1.0 + np.exp(-end)) for end in (middle - half, middle + half))
    return float(low), float(high)


@dataclass(frozen=True)
class Areas:
    """Areas under the ROC curves of K scores of the same studies.

    Attributes:
        values: [K].
        covariance: [K, K], DeLong's.
    """

    values: Array
    covariance: Array

    def interval(self, k: int = 0) -> tuple[float, float]:
        """The 95 % interval of one area that is neither 0 nor 1, on the logit scale."""
        return logit_interval(float(self.values[k]), float(np.sqrt(self.covariance[k, k])))

    def p_of_difference(self) -> float:
        """Two-sided p of the first area against the second; NaN where nothing varies."""
        from scipy.stats import norm

        contrast = np.array([1.0, -1.0])
        variance = float(contrast @ self.covariance @ contrast)
        if variance <= 0.0:
            return float("nan")
        return float(2.0 * norm.sf(abs(contrast @ self.values) / np.sqrt(variance)))


def delong(scores: Array, positive: Array) -> Areas:
    """Areas under the ROC curve and their covariance.

    Args:
        scores: [N] or [K, N], larger is more likely positive; ties count half.
        positive: bool [N], at least two of either kind.
    """
    from scipy.stats import rankdata

    rows = np.atleast_2d(scores).astype(float)
    ordered = np.concatenate([rows[:, positive], rows[:, ~positive]], axis=1)
    m, n = int(positive.sum()), int((~positive).sum())
    among_all = rankdata(ordered, axis=1)
    with_it = (among_all[:, :m] - rankdata(ordered[:, :m], axis=1)) / n
    without = 1.0 - (among_all[:, m:] - rankdata(ordered[:, m:], axis=1)) / m
    values = with_it.mean(axis=1)
    covariance = np.atleast_2d(np.cov(with_it)) / m + np.atleast_2d(np.cov(without)) / n
    return Areas(values, covariance)


def area_variance(area: float, positives: Any, negatives: Any) -> Any:
    """Hanley and McNeil's variance of an area, with Newcombe's symmetric correction."""
    pairs = (positives + negatives) / 2.0 - 1.0
    spread = (1.0 - area) / (2.0 - area) + area / (1.0 + area)
    return area * (1.0 - area) * (1.0 + pairs * spread) / (positives * negatives)


def newcombe_area(area: float, positives: float, negatives: float) -> tuple[float, float]:
    """Newcombe's interval of an area (method 5): it stays wide where the area is 0 or 1.

    DeLong's interval and a bootstrap have no width there, however few the studies.
    """
    from scipy.optimize import brentq

    def off(true: float) -> float:
        return float((area - true) ** 2 - Z95**2 * area_variance(true, positives, negatives))

    low = 0.0 if area <= 0.0 or off(1e-9) <= 0.0 else float(brentq(off, 1e-9, area - 1e-12))
    high = (
        1.0 if area >= 1.0 or off(1 - 1e-9) <= 0.0 else float(brentq(off, area + 1e-12, 1 - 1e-9))
    )
    return low, high
