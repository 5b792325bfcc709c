"""The gate's report as one page of plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export.gate_figures import AT_LEAST, Answers, probability_change
from hipnet_edge.errors import EngineUnusable
from hipnet_edge.vocabulary import CAUSES

_SIZE = (11.0, 8.0)


def draw(
    report: dict[str, Any], reference: Answers, candidate: Answers | EngineUnusable, path: Path
) -> None:
    """Draw probabilities, their change, the maps' values and every figure against its limit.

    Args:
        report: of the gate.
        reference: the reference's answers.
        candidate: the judged network's; why there are none is all the page says then.
        path: PNG, PDF or SVG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    engine = report["engine"]
    word = "passed" if report["passed"] else "refused"
    figure.suptitle(
        f"{report['kind']}: {report['variant']['name']} on {engine['backend']} "
        f"{engine['version']} ({engine['device']}), {report['studies']} studies: {word}"
    )
    if isinstance(candidate, EngineUnusable):
        figure.text(0.5, 0.5, candidate.message, ha="center")
    else:
        ((probabilities, changes), (maps, limits)) = figure.subplots(2, 2)
        _probabilities(probabilities, reference, candidate)
        _changes(changes, reference, candidate, report["limits"])
        _maps(maps, reference, candidate)
        _limits(limits, report)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _probabilities(axes: Any, reference: Answers, candidate: Answers) -> None:
    for k, cause in enumerate(CAUSES):
        before, after = (answers.probabilities[:, k] for answers in (reference, candidate))
        axes.plot(before, after, ".", markersize=3, alpha=0.6, label=cause.label)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes.set(xlabel="probability, reference", ylabel="probability, judged")
    axes.legend(fontsize=7)


def _changes(axes: Any, reference: Answers, candidate: Answers, limits: dict[str, float]) -> None:
    change = np.sort(probability_change(reference, candidate))
    axes.plot(change, np.arange(1, len(change) + 1) / len(change))
    for name, part in (("probability_change_p99", 0.99), ("probability_change_max", 1.0)):
        axes.plot(limits[name], part, "|", color="red", markersize=14, label=name)
    axes.set(xlabel="largest change of a probability", ylabel="part of the studies", ylim=(0, 1.05))
    axes.legend(fontsize=7, loc="lower right")


def _maps(axes: Any, reference: Answers, candidate: Answers) -> None:
    before, after = (answers.maps.ravel() for answers in (reference, candidate))
    axes.hist2d(before, after, bins=60, range=((0, 1), (0, 1)), norm="log", cmap="viridis")
    axes.set(xlabel="cell of a map, reference", ylabel="cell of a map, judged")


def _limits(axes: Any, report: dict[str, Any]) -> None:
    """How much of each limit is used: 1 is all of it."""
    used = {
        name: _used(name, value, report["limits"][name])
        for name, value in report["figures"].items()
        if value is not None
    }
    colours = ["red" if name in report["failed"] else "green" for name in used]
    axes.barh(list(used), np.clip(list(used.values()), 0, 2), color=colours)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set(xlabel="part of the limit that is used", xlim=(0, 2))
    axes.tick_params(axis="y", labelsize=7)


def _used(name: str, value: float, limit: float) -> float:
    # A correlation may miss 1 by as much as its limit does.
    gap, allowed = (1.0 - value, 1.0 - limit) if name in AT_LEAST else (value, limit)
    return gap / max(allowed, 1e-12)
