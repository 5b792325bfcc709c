"""How small a sign is still found: sensitivity against size in millimetres, cause by cause.

A study counts as found when the probability of its cause exceeds what 95 % of all other studies
(the other causes' and the sound ones) stay at or below. Sensitivity can only rise with the size of
the sign, so the curve is the isotonic regression of found on size; the size from which it is at
least 90 % is the smallest sign found. Threshold and curve are fitted anew in each resample.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from benchmarks.outcome import Outcome
from hipnet_edge.evaluation import bootstrap
from hipnet_edge.evaluation.bootstrap import with_interval
from hipnet_edge.vocabulary import CAUSES, Cause

Array = NDArray[Any]

SPECIFICITY, SENSITIVITY = 0.95, 0.90
FEWEST = 20
"""Studies with a sign at least this large, without which no size is named."""
BINS = 8
POINTS = 41


@dataclass(frozen=True)
class SizedSign:
    """What a cause's `sign_mm` measures, and the size that should be found."""

    name: str
    aim_mm: float | None
    """None: every one of them, however small."""


SIGNS = {
    Cause.PJI: SizedSign("thickness of the periosteal reaction", 2.0),
    Cause.ASEPTIC_LOOSENING: SizedSign("width of the lucent line", 2.0),
    Cause.DISLOCATION: SizedSign("distance of the head from the cup's centre", None),
    Cause.PERIPROSTHETIC_FRACTURE: SizedSign("fracture gap", 1.5),
    Cause.POLYETHYLENE_WEAR: SizedSign("eccentricity of the head", 2.0),
}


def smallest_signs(outcome: Outcome, counts: Array) -> dict[str, Any]:
    """The curve and the smallest sign found of each cause; sound studies belong to the others."""
    sizes = outcome.numbers("sign_mm")
    return {
        "definition": f"sensitivity at a specificity of {SPECIFICITY:g} over all studies of other "
        "causes and sound ones; isotonic regression of found on size; the smallest size from "
        f"which it is at least {SENSITIVITY:g}, if at least {FEWEST} studies are that large. "
        "sensitivity_at_aim: the curve at the aim, or at the smallest simulated size above it",
        **{
            cause.value: _one_cause(outcome, counts, sizes, k, SIGNS[cause])
            for k, cause in enumerate(CAUSES)
            if (outcome.causes == k).any()
        },
    }


def _one_cause(
    outcome: Outcome, counts: Array, sizes: Array, k: int, sign: SizedSign
) -> dict[str, Any]:
    scores, own = outcome.probabilities[:, k], outcome.causes == k
    thresholds = bootstrap.threshold_at(counts[:, ~own], scores[~own], SPECIFICITY)
    found = scores[own][None, :] > thresholds[:, None]
    drawn, own_sizes = counts[:, own], sizes[own]
    sized = own_sizes > 0
    report: dict[str, Any] = {
        "size": sign.name,
        "aim_mm": sign.aim_mm,
        "threshold": round(float(thresholds[0]), 4),
        "sensitivity_over_all": _part_found(drawn, found),
    }
    if not sized.all():
        # No periosteal reaction: there is nothing to measure, which says nothing about the rest.
        report["without_this_sign"] = {
            "studies": int((~sized).sum()),
            "sensitivity": _part_found(drawn[:, ~sized], found[:, ~sized]),
        }
    report["studies"] = int(sized.sum())
    if sized.any():
        report |= _curve(drawn[:, sized], own_sizes[sized], found[:, sized], sign.aim_mm)
    return report


def _part_found(counts: Array, found: Array) -> dict[str, Any]:
    """Sensitivity where each row has findings [R, n] of its own."""
    return with_interval((counts * found).sum(axis=1) / np.maximum(counts.sum(axis=1), 1))


def _curve(counts: Array, sizes: Array, found: Array, aim_mm: float | None) -> dict[str, Any]:
    """The curve with its interval, the size where it is high enough, and what the bins say."""
    grid = np.linspace(sizes.min(), sizes.max(), POINTS)
    asked = grid if aim_mm is None else np.append(grid, aim_mm)
    fits = [_isotonic(sizes, hits, drawn, asked) for hits, drawn in zip(found, counts, strict=True)]
    values = np.array([fit[1] for fit in fits])
    low, high = np.percentile(values[1:], [2.5, 97.5], axis=0)
    report = {
        "smallest_found_mm": _smallest(np.array([fit[0] for fit in fits]), float(sizes.min())),
        "curve": {
            "mm": grid.round(3).tolist(),
            "sensitivity": values[0, :POINTS].round(4).tolist(),
            "low": low[:POINTS].round(4).tolist(),
            "high": high[:POINTS].round(4).tolist(),
        },
        "bins": _bins(sizes, found[0]),
    }
    if aim_mm is not None and aim_mm <= sizes.max():
        report["sensitivity_at_aim"] = with_interval(values[:, POINTS])
    return report


def _isotonic(sizes: Array, hits: Array, drawn: Array, asked: Array) -> tuple[float, Array]:
    """The size from which sensitivity is high enough (inf: none), and the curve where asked."""
    fit = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    fit.fit(sizes, hits.astype(np.float64), sample_weight=drawn)
    enough = fit.X_thresholds_[fit.y_thresholds_ >= SENSITIVITY - 1e-9]
    size = float(enough.min()) if enough.size else np.inf
    if drawn[sizes >= size].sum() < FEWEST:
        size = np.inf
    return size, np.asarray(fit.predict(asked))


def _smallest(found_from: Array, smallest_simulated: float) -> dict[str, Any]:
    """The size with its interval; None stands for a size larger than any that was simulated."""
    low, high = np.percentile(found_from[1:], [2.5, 97.5], method="inverted_cdf")
    value, low, high = (
        round(float(x), 3) if np.isfinite(x) else None for x in (found_from[0], low, high)
    )
    return {
        "value": value,
        "ci95": [low, high],
        "every_simulated_size": value is not None and value <= round(smallest_simulated, 3),
    }


def _bins(sizes: Array, found: Array) -> list[dict[str, Any]]:
    """Plain parts in bins of equal numbers, to hold against the fitted curve."""
    bins = []
    for part in np.array_split(np.argsort(sizes, kind="stable"), min(BINS, len(sizes))):
        bounds = [round(float(sizes[part].min()), 3), round(float(sizes[part].max()), 3)]
        bins.append({"mm": bounds, **bootstrap.part(int(found[part].sum()), len(part))})
    return bins


def plot(report: dict[str, Any], target: Path) -> None:
    """Draw every cause's curve with its interval and bins."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    causes = [cause for cause in CAUSES if "curve" in report.get(cause.value, {})]
    figure, panels = plt.subplots(
        1, len(causes), figsize=(3.1 * len(causes), 3.2), sharey=True, squeeze=False
    )
    for panel, cause in zip(panels[0], causes, strict=True):
        part = report[cause.value]
        curve = part["curve"]
        panel.fill_between(curve["mm"], curve["low"], curve["high"], alpha=0.2, lw=0, step=None)
        panel.plot(curve["mm"], curve["sensitivity"], lw=1.8)
        middles = [sum(one["mm"]) / 2 for one in part["bins"]]
        panel.plot(middles, [one["value"] for one in part["bins"]], "k.", ms=5)
        panel.axhline(SENSITIVITY, color="grey", lw=0.8, ls="--")
        if part["aim_mm"] is not None:
            panel.axvline(part["aim_mm"], color="grey", lw=0.8, ls=":")
        panel.set_title(cause.label, fontsize=9)
        panel.set_xlabel(f"{part['size']}, mm", fontsize=7.5)
        panel.set_ylim(-0.03, 1.03)
        panel.tick_params(labelsize=8)
    panels[0][0].set_ylabel(f"sensitivity at {100 * SPECIFICITY:.0f} % specificity", fontsize=8.5)
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110, metadata={"Software": None})
    plt.close(figure)
