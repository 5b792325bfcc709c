"""The pictures of a report as SVG that stands within a page: sharp on paper, a few kilobytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.evaluation.risk import MARKERS, PJI, SMALLEST_LOGGED
from hipnet_edge.evaluation.sample import SOUND, Sample
from hipnet_edge.vocabulary import CAUSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[Any]

COLOURS = ("#b2182b", "#2166ac", "#1b7837", "#e08214", "#762a83")
"""Of the five causes, told apart in grey and by the colour-blind too."""
_GREY = "#767676"


@contextmanager
def _drawn(name: str, size: tuple[float, float]) -> Iterator[tuple[Any, list[str]]]:
    """A figure to draw in, and where its SVG is found afterwards."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(style):
        figure, svg = Figure(figsize=size, layout="constrained"), [""]
        yield figure, svg
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    whole = text.getvalue()
    svg[0] = whole[whole.index("<svg") :]


def roc(failed: Sample) -> str:
    """The five curves of one cause against the rest."""
    with _drawn("roc", (3.6, 3.5)) as (figure, svg):
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.6, linestyle=":")
        for k, cause in enumerate(CAUSES):
            true = failed.causes == k
            if true.any() and not true.all():
                x, y = _curve(failed.probabilities[:, k], true)
                axes.plot(x, y, color=COLOURS[k], linewidth=1.4, label=cause.label)
        axes.set(xlabel="1 - specificity", ylabel="Sensitivity", xlim=(-0.01, 1), ylim=(0, 1.01))
        axes.set_aspect("equal")
        axes.legend(frameon=False, fontsize=7.5, loc="lower right")
    return svg[0]


def _curve(scores: Array, true: Array) -> tuple[Array, Array]:
    """False and true positive rates from the highest threshold to the lowest; ties are one step."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(true[order])[last] / true.sum()
    false = np.cumsum(~true[order])[last] / (~true).sum()
    return np.append(0.0, false), np.append(0.0, hits)


def reliability(bins: Sequence[dict[str, Any]]) -> str:
    """What the leading cause's probability claims, against how often it is right."""
    with _drawn("reliability", (3.6, 3.5)) as (figure, svg):
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.6, linestyle=":")
        most = max(one["studies"] for one in bins)
        for one in bins:
            axes.plot(
                one["mean_confidence"],
                one["accuracy"],
                "o",
                color=COLOURS[1],
                markersize=2.5 + 7 * np.sqrt(one["studies"] / most),
            )
        axes.plot(
            [one["mean_confidence"] for one in bins],
            [one["accuracy"] for one in bins],
            color=COLOURS[1],
            linewidth=0.8,
        )
        axes.set(
            xlabel="Probability of the leading cause",
            ylabel="Part that is right",
            xlim=(0, 1.02),
            ylim=(-0.02, 1.04),
        )
        axes.set_aspect("equal")
    return svg[0]


def intervals(rows: Sequence[tuple[str, float, tuple[float, float]]], name: str) -> str:
    """Values with their 95 % intervals, one a line, the first at the top."""
    with _drawn(name, (7.0, 0.5 + 0.24 * len(rows))) as (figure, svg):
        axes = figure.add_subplot()
        for place, (_, value, (low, high)) in enumerate(reversed(rows)):
            axes.plot([low, high], [place, place], color=COLOURS[1], linewidth=1.6)
            axes.plot(value, place, "o", color=COLOURS[1], markersize=4)
        axes.set_yticks(range(len(rows)), [label for label, *_ in reversed(rows)])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        lowest = min(low for _, _, (low, _) in rows)
        axes.set_xlim(max(0.0, np.floor(lowest * 20 - 0.2) / 20), 1.005)
        axes.set_ylim(-0.6, len(rows) - 0.4)
    return svg[0]


def markers(sample: Sample) -> str:
    """PJI risk against each marker that the table has, one panel each."""
    known = [m for m in MARKERS if np.isfinite(sample.columns[m]).any()]
    if not known:
        return ""
    with _drawn("markers", (3.5 * len(known), 3.0)) as (figure, svg):
        panels = figure.subplots(1, len(known), squeeze=False, sharey=True)[0]
        for axes, marker in zip(panels, known, strict=True):
            _scatter(axes, sample, marker)
        panels[0].set_ylabel("PJI risk")
        panels[-1].legend(frameon=False, fontsize=7.5, loc="center right", markerscale=1.6)
    return svg[0]


def _minor_tick(value: float, _place: float) -> str:
    """Twos and fives of a logarithmic axis; all nine would lie upon each other."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _scatter(axes: Axes, sample: Sample, marker: str) -> None:
    values = np.maximum(sample.columns[marker], SMALLEST_LOGGED)
    infected = sample.causes == PJI
    groups = (
        (~infected & (sample.causes != SOUND), _GREY, "another cause"),
        (sample.causes == SOUND, COLOURS[1], "not failed"),
        (infected, COLOURS[0], "infected"),
    )
    for own, colour, label in groups:
        if (own & np.isfinite(values)).any():
            axes.plot(
                values[own],
                sample.probabilities[own, PJI],
                "o",
                color=colour,
                markersize=2.4,
                alpha=0.6,
                markeredgewidth=0,
                label=label,
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(_minor_tick)
    axes.set_xlabel(MARKERS[marker])
    axes.set_ylim(-0.03, 1.03)
