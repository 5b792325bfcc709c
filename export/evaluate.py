"""Figures of merit over a cohort: how well causes are told apart and where the maps point.

Probabilities are conditional on failure, so figures about causes are over the failed studies
alone: sound ones (cause -1) take no part in them.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from export.cohort import SOUND
from hipnet_edge.evaluation.maps import DISEASED_CELL
from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]


def _failed(probabilities: Array, causes: Array) -> tuple[Array, Array]:
    failed = causes != SOUND
    return probabilities[failed], causes[failed]


def rank_auc(scores: Array, positive: Array) -> float:
    """Area under the ROC curve; ties count half.

    Args:
        scores: [N].
        positive: bool [N]; NaN is returned where it is all one or the other.
    """
    with_sign = int(positive.sum())
    pairs = with_sign * (len(scores) - with_sign)
    if not pairs:
        return float("nan")
    _, which, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    midranks = np.cumsum(sizes) - (sizes - 1) / 2.0
    above = midranks[which][positive].sum() - with_sign * (with_sign + 1) / 2.0
    return float(above / pairs)


def auc(probabilities: Array, causes: Array, k: int) -> float:
    """Area under the ROC curve of cause k against the other causes.

    Args:
        probabilities: [N, 5].
        causes: [N], true index into `CAUSES` or `SOUND`; NaN where cause k is none or all of them.
        k: index into `CAUSES`.
    """
    p, c = _failed(probabilities, causes)
    return rank_auc(p[:, k], c == k)


def auc_by_cause(probabilities: Array, causes: Array) -> dict[str, float]:
    """The one-against-rest area of each cause by its name."""
    return {cause.value: auc(probabilities, causes, k) for k, cause in enumerate(CAUSES)}


def macro_auc(probabilities: Array, causes: Array) -> float:
    """Mean of the five one-against-rest areas."""
    return float(np.mean(list(auc_by_cause(probabilities, causes).values())))


def accuracy(probabilities: Array, causes: Array) -> float:
    """Part of the failed studies whose leading cause is the true one."""
    p, c = _failed(probabilities, causes)
    return float((p.argmax(axis=1) == c).mean())


def negative_log_likelihood(probabilities: Array, causes: Array) -> float:
    """Mean of -log p(true cause) over the failed studies."""
    p, c = _failed(probabilities, causes)
    return float(-np.log(np.maximum(p[np.arange(len(c)), c], 1e-12)).mean())


def calibration_error(probabilities: Array, causes: Array, bins: int = 15) -> float:
    """Expected calibration error of the leading cause, in bins of equal width."""
    p, c = _failed(probabilities, causes)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == c
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float(confidence[which == b].mean() - correct[which == b].mean())) * (which == b).mean()
        for b in np.unique(which)
    ]
    return float(np.sum(gaps))


def map_metrics(maps: Array, occupancy: Array, causes: Array) -> dict[str, float]:
    """Whether the map of the true cause points at the disease, over views that show any.

    Args:
        maps: [N, 2, 5, h, w], 0 to 1.
        occupancy: [N, 2, h, w], diseased part of each cell; NaN where nobody has drawn it.
        causes: [N]; sound studies take no part.

    Returns:
        `pointing`: part of the views whose peak lies on a diseased cell or next to one;
        `pointing_chance`: the same for a peak at random; `average_precision`: over all cells.
        All NaN where no view shows any disease.
    """
    from sklearn.metrics import average_precision_score

    true_maps, diseased = _shown(maps, occupancy, causes)
    if not len(true_maps):
        nothing = dict.fromkeys(("pointing", "pointing_chance", "average_precision"), float("nan"))
        return {**nothing, "views": 0}
    hits, chance = _hits(true_maps, diseased)
    return {
        "pointing": float(np.mean(hits)),
        "pointing_chance": float(np.mean(chance)),
        "average_precision": float(average_precision_score(diseased.ravel(), true_maps.ravel())),
        "views": len(true_maps),
    }


def pointing(maps: Array, occupancy: Array, causes: Array) -> float:
    """`pointing` of `map_metrics` alone; NaN where no view shows any disease."""
    true_maps, diseased = _shown(maps, occupancy, causes)
    return float(np.mean(_hits(true_maps, diseased)[0])) if len(true_maps) else float("nan")


def _shown(maps: Array, occupancy: Array, causes: Array) -> tuple[Array, Array]:
    """The true cause's maps [V, h, w] of all views that show the disease, and its cells."""
    failed = np.flatnonzero(causes != SOUND)
    true_maps = np.asarray(maps[failed, :, causes[failed]], dtype=np.float32)
    true_maps = true_maps.reshape(-1, *maps.shape[3:])
    truth = np.asarray(occupancy[failed], dtype=np.float32).reshape(true_maps.shape)
    diseased = truth >= DISEASED_CELL  # NaN is not
    shown = diseased.any(axis=(1, 2))
    return true_maps[shown], diseased[shown]


def _hits(true_maps: Array, diseased: Array) -> tuple[list[int], list[float]]:
    """For each view: whether its peak lies on or beside the disease, and how often one would."""
    hits, chance = [], []
    for one_map, one_truth in zip(true_maps, diseased, strict=True):
        near = cv2.dilate(one_truth.astype(np.uint8), np.ones((3, 3), np.uint8))
        hits.append(int(near.flat[int(one_map.argmax())]))
        chance.append(float(near.mean()))
    return hits, chance


def sign_auc(maps: Array, causes: Array) -> float:
    """Area under the ROC curve of the maps' largest peak for failed against sound studies.

    Args:
        maps: [N, 2, 5, h, w], or any evidence that rises with disease.
        causes: [N].

    Returns:
        NaN where there are only failed or only sound ones.
    """
    return rank_auc(np.asarray(maps).max(axis=(1, 2, 3, 4)), causes != SOUND)
