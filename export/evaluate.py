"""Figures of merit over a cohort: how well causes are told apart and where the maps point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]


def auc(probabilities: Array, causes: Array, k: int) -> float:
    """Area under the ROC curve of cause k against the rest.

    Args:
        probabilities: [N, 5].
        causes: [N], true index into `CAUSES`; cause k must occur, and not alone.
        k: index into `CAUSES`.
    """
    return float(roc_auc_score(causes == k, probabilities[:, k]))


def auc_by_cause(probabilities: Array, causes: Array) -> dict[str, float]:
    """The one-against-rest area of each cause by its name."""
    return {cause.value: auc(probabilities, causes, k) for k, cause in enumerate(CAUSES)}


def macro_auc(probabilities: Array, causes: Array) -> float:
    """Mean of the five one-against-rest areas."""
    return float(np.mean(list(auc_by_cause(probabilities, causes).values())))


def accuracy(probabilities: Array, causes: Array) -> float:
    """Part of the studies whose leading cause is the true one."""
    return float((probabilities.argmax(axis=1) == causes).mean())


def negative_log_likelihood(probabilities: Array, causes: Array) -> float:
    """Mean of -log p(true cause)."""
    true = probabilities[np.arange(len(causes)), causes]
    return float(-np.log(np.maximum(true, 1e-12)).mean())


def calibration_error(probabilities: Array, causes: Array, bins: int = 15) -> float:
    """Expected calibration error of the leading cause, in bins of equal width."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == causes
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float(confidence[which == b].mean() - correct[which == b].mean())) * (which == b).mean()
        for b in np.unique(which)
    ]
    return float(np.sum(gaps))


def bootstrap_interval(
    figure: Callable[[Array, Array], float],
    probabilities: Array,
    causes: Array,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of a figure, studies drawn with replacement within each cause."""
    random = np.random.default_rng(seed)
    groups = [np.flatnonzero(causes == k) for k in np.unique(causes)]
    values = []
    for _ in range(resamples):
        drawn = np.concatenate([random.choice(group, len(group)) for group in groups])
        values.append(figure(probabilities[drawn], causes[drawn]))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def map_metrics(maps: Array, occupancy: Array, causes: Array) -> dict[str, float]:
    """Whether the map of the true cause points at the disease, over views that show any.

    Args:
        maps: [N, 2, 5, h, w], 0 to 1.
        occupancy: [N, 2, h, w], diseased part of each cell.
        causes: [N].

    Returns:
        `pointing`: part of the views whose peak lies on a diseased cell or next to one;
        `pointing_chance`: the same for a peak at random; `average_precision`: over all cells.
    """
    true_maps = np.asarray(maps[np.arange(len(causes)), :, causes], dtype=np.float32)
    true_maps = true_maps.reshape(-1, *maps.shape[3:])
    diseased = (np.asarray(occupancy, dtype=np.float32) > 0.02).reshape(true_maps.shape)
    shown = diseased.any(axis=(1, 2))
    true_maps, diseased = true_maps[shown], diseased[shown]
    hits, chance = [], []
    for one_map, truth in zip(true_maps, diseased, strict=True):
        near = cv2.dilate(truth.astype(np.uint8), np.ones((3, 3), np.uint8))
        hits.append(near.flat[int(one_map.argmax())])
        chance.append(near.mean())
    return {
        "pointing": float(np.mean(hits)),
        "pointing_chance": float(np.mean(chance)),
        "average_precision": float(average_precision_score(diseased.ravel(), true_maps.ravel())),
        "views": int(shown.sum()),
    }
