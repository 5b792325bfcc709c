"""`comparison.json` and `comparison.html`: two validations side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from hipnet_edge.evaluation.comparison import DEFINITION, Comparison
from hipnet_edge.evaluation.figure import Figure
from hipnet_edge.evaluation.page import document, paragraph, section, table, with_interval
from hipnet_edge.evaluation.run import write_whole
from hipnet_edge.vocabulary import Cause
from hipnet_edge.wording import RESEARCH_USE

_WORDS = {
    "accuracy": "Leading cause right",
    "macro_auc": "Macro AUC",
    "brier": "Brier score (less is better)",
    "calibration_error": "Calibration error (less is better)",
}


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write both files into a folder, made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "comparison.json", json.dumps(comparison.to_dict(), indent=1) + "\n")
    write_whole(folder / "comparison.html", _page(comparison))


def _page(comparison: Comparison) -> str:
    counts = comparison.counts
    first, second = map(_answered_by, comparison.made_by)
    rows = [
        (_name(name), with_interval(figure), _p(comparison.p.get(name)))
        for name, figure in comparison.figures.items()
    ]
    return document(
        "Comparison of two validations",
        f'<p class="verdict open">{escape(_first_line(comparison))}</p>'
        f"<h1>Two validations of one cohort</h1>{paragraph(RESEARCH_USE, 'use')}"
        + section(
            "What was compared",
            table(("", ""), [("First", first), ("Second", second)], "facts"),
            paragraph(
                f"{counts['compared']} studies with a cause that both answered; in "
                f"{counts['same_leading_cause']} the leading cause is the same. Only in the first: "
                f"{counts['only_in_first']}, only in the second: {counts['only_in_second']}, "
                f"labelled differently: {counts['labelled_differently']}."
            ),
        )
        + section(
            "Second less first",
            table(("Figure", "Difference (95 % interval)", "p"), rows),
            paragraph(DEFINITION, "note"),
        ),
    )


def _first_line(comparison: Comparison) -> str:
    figure: Figure = comparison.figures["macro_auc"]
    name = "macro AUC"
    if figure.value is None:
        figure, name = comparison.figures["accuracy"], "accuracy"
    if figure.value == 0.0 and figure.interval is None:
        return f"The two do not differ in {name}."
    if figure.value is None or figure.interval is None:
        return "Too few patients to compare."
    low, high = figure.interval
    which = "no difference shown" if low <= 0.0 <= high else "better" if low > 0.0 else "worse"
    said = f"{figure.value:+.3f} ({low:+.3f} to {high:+.3f})"
    if which == "no difference shown":
        return f"No difference in {name} is shown: {said}."
    return f"The second is {which} in {name}: {said}."


def _answered_by(made: Mapping[str, Any]) -> str:
    bundle, engine = made["bundle"], made["engine"]
    return escape(
        f"{bundle['name']} {bundle['version']} ({bundle['digest'][:12]}), {made['precision']}, "
        f"{engine['name']} {engine['version']} on {engine['device']}"
    )


def _name(name: str) -> str:
    if name in _WORDS:
        return _WORDS[name]
    return f"AUC of {Cause(name.partition('.')[2]).label.lower()}"


def _p(p: float | None) -> str:
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
