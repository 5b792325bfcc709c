"""Whether the maps point at the disease: over all studies of a cause, called rightly or not.

The map is that of the study's true cause. Only views in which the sign can be seen take part: at
least one cell of the map with `DISEASED_CELL` of its area diseased.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.outcome import Outcome
from hipnet_edge.evaluation import bootstrap
from hipnet_edge.evaluation.bootstrap import with_interval
from hipnet_edge.evaluation.maps import (
    NEAR_MM,
    at_peak,
    mean_over_views,
    near_disease,
    score_histograms,
    shows_sign,
)
from hipnet_edge.vocabulary import CAUSES, VIEWS

Array = NDArray[Any]

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
    near = near_disease(truth, _pixel_mm(failed) * stride)
    shown = shows_sign(truth)
    hits = {
        "pointing": at_peak(maps, near),
        "pointing_by_a_peak_anywhere": near.mean(axis=(2, 3)),
        "pointing_by_another_study_of_the_cause": at_peak(_of_another(maps, failed.causes), near),
    }
    histograms = score_histograms(maps, truth, shown)

    def part(own: Array) -> dict[str, Any]:
        drawn, seen = counts[:, own], shown[own]
        return {
            "views": int(seen.sum()),
            **{
                name: with_interval(mean_over_views(drawn, values[own], seen))
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


def _of_another(maps: Array, causes: Array) -> Array:
    """For each study the maps of the next one of its cause."""
    other = np.arange(len(causes))
    for k in np.unique(causes):
        own = np.flatnonzero(causes == k)
        other[own] = np.roll(own, -1)
    return maps[other]
