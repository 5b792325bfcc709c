"""Pictures of a report: where the time goes, and everything beside its peers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.latency_alone import STAGES

Report = Mapping[str, Any]

COLOURS = {
    "read": "#9aa5b1",
    "decode": "#c1553b",
    "preprocess": "#e0a13c",
    "transfer_in": "#7a68a6",
    "inference": "#2f6f8f",
    "transfer_out": "#b3a6cf",
    "other": "#d9dde2",
}


def parts_of(found: Mapping[str, Any]) -> dict[str, float]:
    """Median milliseconds of each stage of a study, and what of the median total they leave."""
    parts = {
        stage: found[stage]["p50"]
        for stage in STAGES
        if stage not in ("maps", "total") and found.get(stage) is not None
    }
    rest = found["total"]["p50"] - sum(parts.values())
    return {**parts, "other": max(0.0, rest)}


def stacked_bars(report: Report, out: Path) -> None:
    """Where the time goes: a bar for each transfer syntax, a part for each stage."""
    plot = _pyplot()
    figure, axes = plot.subplots(figsize=(6.4, 0.4 * len(report["stages"]) + 1.2))
    for row, found in enumerate(report["stages"].values()):
        left = 0.0
        for stage, milliseconds in parts_of(found).items():
            axes.barh(row, milliseconds, left=left, color=COLOURS[stage], height=0.65)
            left += milliseconds
        axes.text(left, row, f" {left:.0f}", va="center", fontsize=8)
    shown = [s for s in COLOURS if any(s in parts_of(f) for f in report["stages"].values())]
    handles = [plot.Rectangle((0, 0), 1, 1, color=COLOURS[stage]) for stage in shown]
    axes.legend(
        handles,
        [stage.replace("_", " ") for stage in shown],
        fontsize=7,
        ncols=len(shown),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        frameon=False,
    )
    axes.set_yticks(range(len(report["stages"])), list(report["stages"]), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("median milliseconds a study", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    _save(plot, figure, out)


def beside_peers(report: Report, out: Path) -> None:
    """Inference of every contestant: its median, and its 90th percentile as a thin line."""
    plot = _pyplot()
    contestants = sorted(report["inference"].items(), key=lambda item: float(item[1]["p50"]))
    figure, axes = plot.subplots(figsize=(6.4, 0.3 * len(contestants) + 0.9))
    for row, (name, found) in enumerate(contestants):
        colour = "#2f6f8f" if name.startswith("ours") else "#9aa5b1"
        axes.barh(row, found["p50"], color=colour, height=0.65)
        axes.plot([found["p50"], found["p90"]], [row, row], color="black", linewidth=0.8)
    axes.set_yticks(range(len(contestants)), [name for name, _ in contestants], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds of inference, median and 90th percentile", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    _save(plot, figure, out)


def all_plots(report: Report, folder: Path) -> list[Path]:
    """Every picture, into a folder that is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {folder / "stages.png": stacked_bars, folder / "inference.png": beside_peers}
    for path, draw in made.items():
        draw(report, path)
    return list(made)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(plot: Any, figure: Any, out: Path) -> None:
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    plot.close(figure)
