"""Two reports beside each other, and the guard that a report is no worse than a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.latency_ratios import BESIDE, RATIOS

MARGIN = 0.6
"""A ratio may fall to this part of the baseline's; one that should be small may rise likewise."""
NOISY_MARGIN = 0.3
"""The same on a machine that was too noisy to compare: only what no noise explains counts."""

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What the guard found.

    Attributes:
        failed: a sentence for each ratio that is too bad.
        said: what a reader should know beside that, such as what could not be compared.
        compared: how many ratios were.
    """

    failed: tuple[str, ...]
    said: tuple[str, ...]
    compared: int


def check(report: Report, baseline: Report) -> Verdict:
    """Hold a report's ratios against a baseline's. Milliseconds take no part.

    A ratio fails when even the better end of its interval is beyond the margin. Processors with
    other vector instructions have other ratios between the precisions: there nothing is compared.
    """
    differs = _not_comparable(report, baseline)
    if differs:
        return Verdict((), (f"Nothing was compared: {differs}.",), 0)
    noise = report["noise"]
    margin = MARGIN if noise["quiet"] else NOISY_MARGIN
    said = [] if noise["quiet"] else [f"The machine was too noisy to compare: {noise['reason']}."]
    failed, compared = [], 0
    for aim in RATIOS:
        before, now = baseline["ratios"][aim.key], report["ratios"][aim.key]
        if before is None:
            continue
        if now is None:
            said.append(f"{aim.key} was not measured ({report['not_measured'][aim.key]}).")
            continue
        compared += 1
        low, high = report["details"][aim.key]["ci95"] or (now, now)
        limit = before * margin if aim.at_least else before / margin
        if (high < limit) if aim.at_least else (low > limit):
            failed.append(
                f"{aim.key} is {now:.3g} ({low:.3g} to {high:.3g}); the baseline has {before:.3g}, "
                f"and {'less' if aim.at_least else 'more'} than {limit:.3g} is too far from it."
            )
    if not compared:
        failed.append("No ratio was compared: what the baseline measured is not there.")
    return Verdict(tuple(failed), tuple(said), compared)


def _not_comparable(report: Report, baseline: Report) -> str | None:
    """Why two reports have no ratios to compare; None where they have.

    Another variant from the same engine is a change of ours and is compared; from another engine or
    version it is the gate's answer to what is installed.
    """
    for what in ("architecture", "instructions"):
        if report["machine"][what] != baseline["machine"][what]:
            return f"the processor differs from the baseline's in its {what}"
    (variant, engine), (before, known) = (
        (
            one["configuration"]["variant"],
            "{name} {version}".format_map(one["configuration"]["backend"]),
        )
        for one in (report, baseline)
    )
    if variant != before and engine != known:
        return f"{engine} answered with {variant}; for the baseline {known} did with {before}"
    return None


def compare(first: Report, second: Report) -> str:
    """Ratios, figures beside them and stages of two reports, as lines of text."""
    lines = [f"{'':<42}{'first':>12}{'second':>12}{'second/first':>14}"]
    lines += [_line(a.key, first["ratios"][a.key], second["ratios"][a.key]) for a in RATIOS]
    lines += [_line(a.key, first[a.key], second[a.key]) for a in BESIDE]
    lines += ["", "Median milliseconds"]
    for name in {**first["inference"], **second["inference"]}:
        lines.append(_line(f"inference, {name}", *_medians(first, second, "inference", name)))
    for syntax in {**first["stages"], **second["stages"]}:
        here, there = (report["stages"].get(syntax, {}) for report in (first, second))
        for stage in {**here, **there}:
            found = [(one.get(stage) or {}).get("p50") for one in (here, there)]
            if found != [None, None]:
                lines.append(_line(f"{syntax}, {stage}", *found))
    for name, report in (("first", first), ("second", second)):
        if not report["noise"]["quiet"]:
            lines.append(f"The {name} is of a noisy machine: {report['noise']['reason']}.")
    return "\n".join(lines)


def _medians(first: Report, second: Report, place: str, name: str) -> list[float | None]:
    return [report[place].get(name, {}).get("p50") for report in (first, second)]


def _line(name: str, first: float | None, second: float | None) -> str:
    both = first is not None and second is not None and first > 0
    ratio = f"{second / first:.3f}" if both else "-"  # type: ignore[operator]
    shown = ["-" if value is None else f"{value:.3f}" for value in (first, second)]
    return f"{name:<42}{shown[0]:>12}{shown[1]:>12}{ratio:>14}"
