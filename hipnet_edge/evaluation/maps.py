"""Whether the maps point at the disease: over all studies of a cause, called rightly or not.

The map is that of the study's true cause. Only views in which the sign can be seen take part: at
least one cell of the map with `DISEASED_CELL` of its area diseased. `benchmarks/map_figures.py`
uses the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hipnet_edge.evaluation import bootstrap
from hipnet_edge.evaluation.figure import Figure, refused
from hipnet_edge.evaluation.sample import Sample, proportion
from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]

DISEASED_CELL = 1.0 / 16.0
"""Part of a map cell's area from which it counts as diseased: half of what training calls full."""
NEAR_MM = 5.0
SCORE_BINS = 1000
CALLED = 0.5
"""Probability from which on a cell of a map is called diseased, for Dice."""
DEFINITION = f"""\
Views in which the sign can be seen, of every study whatever it was called, in the map of its true
cause. pointing: the map's peak lies within {NEAR_MM:g} mm on the detector of the mask, from the
centre of the peak's cell to that of the nearest diseased cell (from 1/16 of its area); only views
that state their pixel spacing. pointing_on_mask: the peak's cell is itself diseased. dice: of the
cells from {CALLED:g} on and the mask, by area, mean over views. pixel_average_precision: over all
network pixels, with the mask's exact share of each cell; its ceiling is what a map equal to these
shares would reach."""


def area_fraction(mask: Array, cell: int) -> NDArray[np.float16]:
    """A truth mask [H, W] on the network's pixels as the diseased part of each cell.

    Args:
        mask: bool or the part of each network pixel.
        cell: network pixels per side of a cell.

    Returns:
        float16 [H / cell, W / cell].
    """
    rows, columns = mask.shape
    cells = mask.reshape(rows // cell, cell, columns // cell, cell).astype(np.float32)
    fraction: NDArray[np.float16] = cells.mean(axis=(1, 3)).astype(np.float16)
    return fraction


def shows_sign(truth: Array) -> Array:
    """Which views [N, 2] of diseased parts [N, 2, h, w] show the sign."""
    return np.asarray((truth >= DISEASED_CELL).any(axis=(2, 3)))


def near_disease(truth: Array, cell_mm: Array) -> Array:
    """Which cells' centres lie within `NEAR_MM` of a diseased cell's, bool [N, 2, h, w].

    Args:
        truth: [N, 2, h, w], diseased part of each cell.
        cell_mm: [N, 2], the side of a cell on the detector.
    """
    near = np.zeros(truth.shape, bool)
    for study, view in np.argwhere(shows_sign(truth)):
        sound = (truth[study, view] < DISEASED_CELL).astype(np.uint8)
        away = cv2.distanceTransform(sound, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        near[study, view] = away * cell_mm[study, view] <= NEAR_MM
    return near


def at_peak(maps: Array, where: Array) -> Array:
    """Whether each map's peak lies where bool [N, 2, h, w] is true, [N, 2]."""
    flat = maps.reshape(*maps.shape[:2], -1)
    found = np.take_along_axis(where.reshape(flat.shape), flat.argmax(axis=2)[..., None], axis=2)
    return np.asarray(found[..., 0])


def mean_over_views(counts: Array, values: Array, shown: Array) -> Array:
    """Mean of `values` [N, 2] over the views shown; a study is drawn with both its views."""
    views = counts @ shown.sum(axis=1)
    total = counts @ np.where(shown, values, 0.0).sum(axis=1)
    return np.asarray(np.divide(total, views, np.full(len(views), np.nan), where=views > 0))


def score_histograms(maps: Array, truth: Array, shown: Array) -> dict[str, tuple[Array, Array]]:
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


def dice(maps: Array, truth: Array) -> Array:
    """Dice [N, 2] of the cells from `CALLED` on and the diseased area."""
    called = (maps >= CALLED).astype(np.float64)
    both = (called * truth).sum(axis=(2, 3))
    either = called.sum(axis=(2, 3)) + truth.sum(axis=(2, 3))
    return np.asarray(np.divide(2.0 * both, either, np.zeros_like(either), where=either > 0))


@dataclass(frozen=True)
class MaskedMaps:
    """The maps of the studies for which somebody has drawn what is diseased.

    Attributes:
        rows: [M], which studies of the sample they are.
        maps: float32 [M, 2, h, w], of each study's true cause.
        truth: float32 [M, 2, h, w], the diseased part of each cell; NaN in a view without a mask.
        cell_mm: [M, 2], the side of a cell on the detector; NaN where no spacing is stated.
    """

    rows: Array
    maps: Array
    truth: Array
    cell_mm: Array


def figures(failed: Sample, masked: MaskedMaps | None) -> dict[str, Any]:
    """The maps against the masks, over all and by cause; empty where there are no masks."""
    if masked is None or not shows_sign(masked.truth).any():
        return {}
    studies = failed.subset(masked.rows)
    parts = {"all": np.ones(len(studies), bool)}
    for k, cause in enumerate(CAUSES):
        if (studies.causes == k).any():
            parts[cause.value] = studies.causes == k
    shown = shows_sign(masked.truth)
    histograms = score_histograms(masked.maps, masked.truth, shown)
    per_view = _per_view(masked, shown)
    report: dict[str, Any] = {"definition": " ".join(DEFINITION.split())}
    for name, own in parts.items():
        report[name] = {
            "views": int(shown[own].sum()),
            **{key: _view_figure(studies, own, *values) for key, values in per_view.items()},
            **{
                key: _pixel_figure(studies, own & shown.any(axis=1), found, area)
                for key, (found, area) in histograms.items()
            },
        }
    return report


def _per_view(masked: MaskedMaps, shown: Array) -> Mapping[str, tuple[Array, Array]]:
    """Values [M, 2] and the views that they are over, by name."""
    truth = np.nan_to_num(masked.truth)
    near = near_disease(truth, masked.cell_mm)
    return {
        "pointing": (at_peak(masked.maps, near), shown & np.isfinite(masked.cell_mm)),
        "pointing_on_mask": (at_peak(masked.maps, truth >= DISEASED_CELL), shown),
        "dice": (dice(masked.maps, truth), shown),
    }


def _view_figure(studies: Sample, own: Array, values: Array, shown: Array) -> Figure:
    taking_part = own & shown.any(axis=1)
    if not taking_part.any():
        return refused("No view to speak of.")
    rows = mean_over_views(studies.counts[:, own], values[own], shown[own])
    if values.dtype != bool:
        return studies.resampled(rows, [taking_part])
    seen = shown & own[:, None]
    return proportion(
        values[seen], np.broadcast_to(studies.patients[:, None], seen.shape)[seen], rows
    )


def _pixel_figure(studies: Sample, own: Array, found: Array, area: Array) -> Figure:
    if not own.any():
        return refused("No view to speak of.")
    rows = bootstrap.average_precision(studies.counts[:, own], found[own], area[own])
    return studies.resampled(rows, [own])
