"""Whether the maps point at the disease: over all studies of a cause, called rightly or not.

The map is that of the study's true cause. Only views in which the sign can be seen take part: at
least one cell of the map with `DISEASED_CELL` of its area diseased.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import bootstrap
from benchmarks.bootstrap import with_interval
from benchmarks.outcome import Outcome
from export.evaluate import DISEASED_CELL
from hipnet_edge.vocabulary import CAUSES, VIEWS

Array = NDArray[Any]

NEAR_MM = 5.0
SCORE_BINS = 1000
DEFINITION = f"""\
Views in which the sign can be seen, of every study whatever it was called, in the map of its true
cause. pointing: the map's peak lies within {NEAR_MM:g} mm on the detector of the truth mask, from
the centre of the peak's cell to that of the nearest diseased cell; a cell is diseased
from 1/16 of its area. Beside it the same for a peak anywhere in the
view, and for the peak of the next study of the same cause: what knowing where the sign usually is
would reach. cell_average_precision: over the maps' own cells. pixel_average_precision: over network
pixels, with the truth mask's exact share of each cell; its ceiling is what a map equal to these
shares would reach."""


def map_figures(failed: Outcome, counts: Array, stride: int) -> dict[str, Any]:
    """Pointing and average precision with intervals, overall and by cause.

    Args:
        failed: columns `ap_mm_per_pixel` and `lateral_mm_per_pixel` say how large a network pixel
            is on the detector.
        counts: [R, N].
        stride: network pixels per side of a map cell.
    """
    maps, truth = failed.true_maps(), failed.occupancy
    near = _near(truth, _pixel_mm(failed) * stride)
    shown = np.asarray((truth >= DISEASED_CELL).any(axis=(2, 3)))
    hits = {
        "pointing": _at_peak(maps, near),
        "pointing_by_a_peak_anywhere": near.mean(axis=(2, 3)),
        "pointing_by_another_study_of_the_cause": _at_peak(_of_another(maps, failed.causes), near),
    }
    histograms = _histograms(maps, truth, shown)

    def part(own: Array) -> dict[str, Any]:
        drawn, seen = counts[:, own], shown[own]
        return {
            "views": int(seen.sum()),
            **{
                name: with_interval(_mean_over_views(drawn, values[own], seen))
                for name, values in hits.items()
            },
            **{
                name: with_interval(bootstrap.average_precision(drawn, found[own], area[own]))
                for name, (found, area) in histograms.items()
            },
        }

    return {
        "definition": " ".join(DEFINITION.split()),
        "all": part(np.ones(len(failed), bool)),
        "by_cause": {
            cause.value: part(failed.causes == k)
            for k, cause in enumerate(CAUSES)
            if (failed.causes == k).any()
        },
    }


def _pixel_mm(failed: Outcome) -> Array:
    """The side of a network pixel in each view, mm on the detector [N, 2]."""
    columns = [failed.numbers(f"{view.value}_mm_per_pixel") for view in VIEWS]
    return np.stack(columns, axis=1)


def _near(truth: Array, cell_mm: Array) -> Array:
    """Which cells' centres lie within `NEAR_MM` of a diseased cell's, bool [N, 2, h, w]."""
    near = np.zeros(truth.shape, bool)
    for study, view in np.argwhere((truth >= DISEASED_CELL).any(axis=(2, 3))):
        sound = (truth[study, view] < DISEASED_CELL).astype(np.uint8)
        away = cv2.distanceTransform(sound, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        near[study, view] = away * cell_mm[study, view] <= NEAR_MM
    return near


def _at_peak(maps: Array, near: Array) -> Array:
    """Whether each map's peak is near, [N, 2]."""
    flat = maps.reshape(*maps.shape[:2], -1)
    found = np.take_along_axis(near.reshape(flat.shape), flat.argmax(axis=2)[..., None], axis=2)
    return np.asarray(found[..., 0])


def _of_another(maps: Array, causes: Array) -> Array:
    """For each study the maps of the next one of its cause."""
    other = np.arange(len(causes))
    for k in np.unique(causes):
        own = np.flatnonzero(causes == k)
        other[own] = np.roll(own, -1)
    return maps[other]


def _mean_over_views(counts: Array, values: Array, shown: Array) -> Array:
    """Mean of `values` [N, 2] over the views shown; a study is drawn with both its views."""
    views = counts @ shown.sum(axis=1)
    total = counts @ (values * shown).sum(axis=1)
    return np.asarray(np.divide(total, views, np.full(len(views), np.nan), where=views > 0))


def _histograms(maps: Array, truth: Array, shown: Array) -> dict[str, tuple[Array, Array]]:
    """Diseased and whole area of each study by score, [N, bins] each, for each kind of pixel."""
    share = np.where(shown[..., None, None], truth, 0.0)
    diseased = (share >= DISEASED_CELL).astype(np.float32)
    return {
        "cell_average_precision": _histogram(maps, diseased, shown),
        "pixel_average_precision": _histogram(maps, share, shown),
        "pixel_average_precision_ceiling": _histogram(share, share, shown),
    }


def _histogram(scores: Array, positive: Array, shown: Array) -> tuple[Array, Array]:
    """Positive and whole area by score; bins hold equal numbers of all the positive cells."""
    edges = np.unique(np.quantile(scores[positive > 0], np.linspace(0, 1, SCORE_BINS)))
    n, bins = len(scores), len(edges) + 1
    cells = np.searchsorted(edges, scores, side="right") + bins * np.arange(n)[:, None, None, None]
    area = np.broadcast_to(shown[..., None, None], scores.shape)
    return (
        np.bincount(cells.ravel(), positive.ravel(), n * bins).reshape(n, bins),
        np.bincount(cells.ravel(), area.ravel(), n * bins).reshape(n, bins),
    )
