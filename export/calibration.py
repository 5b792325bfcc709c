"""What is fitted on validation studies: temperatures, thresholds, conformal set, sign of failure.

The first three are fitted as a site fits its own (`hipnet_edge.evaluation.calibration`), on failed
prostheses; sound ones (cause -1) serve the sign of failure and the limit of novelty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from hipnet_edge.decision import logit_of_peak
from hipnet_edge.evaluation.calibration import (
    COVERAGE,
    cause_thresholds,
    conformal_threshold,
    fit_temperatures,
)

__all__ = [
    "COVERAGE",
    "cause_thresholds",
    "conformal_threshold",
    "fit_sign_of_failure",
    "fit_temperatures",
    "novelty_threshold",
]

Array = NDArray[Any]

FALSE_ALARMS = 0.015
"""Part of the validation studies that novelty flags; a site with other detectors gives more."""
MISSED_SIGNS = 0.05
"""Part of the failed validation studies that may be said to show no sign, at most."""


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
