"""Bootstrap intervals for a whole cohort at once: a resample is a row of counts, one a study.

Row 0 counts every study once, so it gives the figure itself; the other rows give its interval.
Every function takes counts [R, N] and gives one value a row, which makes a thousand resamples of
thousands of studies a few matrix products. Figures of two models from the same rows are paired.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.evaluation.intervals import wilson

Array = NDArray[Any]
RESAMPLES = 1000


def draw(
    strata: Array, resamples: int = RESAMPLES, seed: int = 0, clusters: Array | None = None
) -> Array:
    """Studies drawn with replacement within each stratum, a patient's studies together.

    Args:
        strata: [N], equal for the studies among which one may stand for another.
        resamples: rows beside the first.
        seed: decides every draw.
        clusters: [N], equal for the studies of one patient; None: each is a patient's only one. A
            patient whose studies are of several strata is drawn among those of the rarest of
            them, so that no stratum is ever left without studies.

    Returns:
        float64 [1 + resamples, N]: how often each study was drawn; row 0 is all ones.
    """
    if clusters is not None and len(clusters):
        of_patient, which = _strata_of_clusters(strata, clusters)
        return draw(of_patient, resamples, seed)[:, which]
    random = np.random.default_rng(seed)
    counts = np.ones((1 + resamples, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        even = np.full(len(members), 1.0 / len(members))
        counts[1:, members] = random.multinomial(len(members), even, size=resamples)
    return counts


def _strata_of_clusters(strata: Array, clusters: Array) -> tuple[Array, Array]:
    """The stratum of each cluster, and the cluster [N] of each study."""
    _, which = np.unique(clusters, return_inverse=True)
    _, stratum, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    from_rarest = np.argsort(np.argsort(sizes, kind="stable"), kind="stable")
    rank = np.full(which.max() + 1, len(sizes))
    np.minimum.at(rank, which, from_rarest[stratum])
    return np.argsort(from_rarest, kind="stable")[rank], which


def with_interval(values: Array, digits: int = 4) -> dict[str, Any]:
    """The figure of row 0 and the 95 % percentile interval of the others; None for no number."""
    known = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or known.size == 0:
        return {"value": None, "ci95": None}
    low, high = np.percentile(known, [2.5, 97.5])
    return {
        "value": round(float(values[0]), digits),
        "ci95": [round(float(low), digits), round(float(high), digits)],
    }


def mean(counts: Array, values: Array) -> Array:
    """Mean of `values` [N] in every row; NaN for a row without studies."""
    total = counts.sum(axis=1)
    return np.asarray(
        np.divide(counts @ values, total, np.full(len(total), np.nan), where=total > 0)
    )


def _sorted_groups(values: Array) -> tuple[Array, Array, Array]:
    """Order of [N], where each run of equal values starts in it, and each study's run."""
    order = np.argsort(values, kind="stable")
    distinct, group = np.unique(values, return_inverse=True)
    return order, np.searchsorted(values[order], distinct), group


def auc(counts: Array, scores: Array, positive: Array) -> Array:
    """Area under the ROC curve of `scores` [N] for `positive` bool [N]; ties count half."""
    order, starts, _ = _sorted_groups(scores)
    drawn, hits = counts[:, order], (counts * positive)[:, order]
    with_sign = np.add.reduceat(hits, starts, axis=1)
    without = np.add.reduceat(drawn - hits, starts, axis=1)
    below = np.cumsum(without, axis=1) - without / 2.0
    pairs = with_sign.sum(axis=1) * without.sum(axis=1)
    won = (with_sign * below).sum(axis=1)
    return np.asarray(np.divide(won, pairs, np.full(len(pairs), np.nan), where=pairs > 0))


def midranks(counts: Array, values: Array) -> Array:
    """Each study's rank [R, N] in each row's resample; equal values share their mean rank."""
    order, starts, group = _sorted_groups(values)
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)
    return np.asarray((np.cumsum(sizes, axis=1) - sizes / 2.0 + 0.5)[:, group])


def spearman(counts: Array, a: Array, b: Array) -> Array:
    """Rank correlation of `a` [N] and `b` [N]; NaN where one of them is constant."""
    total = counts.sum(axis=1, keepdims=True)

    def centred(values: Array) -> Array:
        ranks = midranks(counts, values)
        return np.asarray(ranks - (counts * ranks).sum(axis=1, keepdims=True) / total)

    x, y = centred(a), centred(b)
    spread = np.sqrt((counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1))
    shared = (counts * x * y).sum(axis=1)
    return np.asarray(np.divide(shared, spread, np.full(len(total), np.nan), where=spread > 1e-9))


def threshold_at(counts: Array, scores: Array, part: float) -> Array:
    """The lowest score [R] at or below which `part` of each row's studies lie."""
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(counts[:, order], axis=1)
    first = np.argmax(reached >= part * reached[:, -1:] - 1e-9, axis=1)
    return np.asarray(scores[order][first])


def pearson(counts: Array, a: Array, b: Array) -> Array:
    """Linear correlation of `a` [N] and `b` [N]; NaN where one of them is constant."""
    total = counts.sum(axis=1)
    x, y = a - a.mean(), b - b.mean()
    sums = [counts @ values for values in (x, y, x * y, x * x, y * y)]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y, xy, xx, yy = (values / total for values in sums)
        spread = np.sqrt(np.maximum(xx - mean_x**2, 0.0) * np.maximum(yy - mean_y**2, 0.0))
        related = (xy - mean_x * mean_y) / spread
    return np.asarray(np.where(spread > 1e-12, related, np.nan))


def average_precision(counts: Array, positives: Array, totals: Array) -> Array:
    """Average precision from histograms.

    Args:
        counts: [R, N].
        positives: [N, B], how much of each study's positive area has a score in each bin.
        totals: [N, B], how much of its whole area; bins in rising order of score.
    """
    found = np.cumsum((counts @ positives)[:, ::-1], axis=1)
    called = np.cumsum((counts @ totals)[:, ::-1], axis=1)
    precision = np.divide(found, called, np.zeros_like(found), where=called > 0)
    gained = np.diff(found, axis=1, prepend=0.0)
    every = found[:, -1]
    won = (gained * precision).sum(axis=1)
    return np.asarray(np.divide(won, every, np.full(len(every), np.nan), where=every > 0))


def part(hits: int, n: int) -> dict[str, Any]:
    """A part with Wilson's 95 % interval, for groups too small to draw from; n at least 1."""
    low, high = wilson(hits, n)
    return {"studies": n, "value": round(hits / n, 4), "ci95": [round(low, 4), round(high, 4)]}
