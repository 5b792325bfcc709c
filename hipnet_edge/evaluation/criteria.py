"""What a site asks of a bundle before it lets it speak: a TOML file of limits, and the verdict.

[at_least]
"macro_auc.lower" = 0.90      # the lower end of the 95 % interval
"answered.value" = 0.95       # the figure itself

[at_most]
"calibration_error.upper" = 0.10
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hipnet_edge.errors import UsageError
from hipnet_edge.evaluation.figure import Figure
from hipnet_edge.vocabulary import CAUSES

_CAUSE = "|".join(cause.value for cause in CAUSES)
_FIGURES = re.compile(
    "|".join(
        (
            "answered|accuracy|accuracy_if_left_out_are_wrong|balanced_accuracy|macro_auc|brier",
            "calibration_error|conformal\\.(coverage|mean_size)",
            f"(auc|recall|conformal\\.by_cause)\\.({_CAUSE})",
            f"at_thresholds\\.({_CAUSE})\\.(sensitivity|specificity|f1|(pos|neg)itive_predictive_value)",
            "sign_of_failure\\.(auc|sound_flagged|failed_flagged)",
            f"maps\\.(all|{_CAUSE})\\.(pointing|pointing_on_mask|dice|\\w+_average_precision)",
            "risk\\.(crp|esr)\\.(all|within_pji)\\.(spearman|pearson_log)",
            "subgroups\\.(site|scanner|sex|age|side)\\..+\\.(accuracy|macro_auc|pji_auc)",
        )
    )
)
"""The names that a criterion may use."""
_ENDS = ("value", "lower", "upper")


@dataclass(frozen=True)
class Criterion:
    """One limit.

    Attributes:
        figure: the name of a figure in the report, with dots.
        end: "value", or "lower" or "upper" end of its 95 % interval.
        limit: what it is held against.
        at_least: whether it must not be below the limit; else it must not be above.
    """

    figure: str
    end: str
    limit: float
    at_least: bool

    def judged(self, figures: Mapping[str, Any]) -> Judged:
        """Whether the figures of a report meet it; what is not known does not."""
        figure = _find(figures, self.figure)
        if not isinstance(figure, Figure):
            return Judged(self, None, False, "The report has no such figure.")
        reached = figure.value
        if self.end != "value":
            ends = figure.interval
            reached = None if ends is None else ends[0] if self.end == "lower" else ends[1]
        if reached is None:
            return Judged(self, None, False, figure.note or "It has no interval.")
        met = reached >= self.limit if self.at_least else reached <= self.limit
        return Judged(self, reached, met, "")

    def __str__(self) -> str:
        words = re.sub(
            r"\b(auc|pji|crp|esr)\b",
            lambda found: found[0].upper(),
            self.figure.replace("_", " ").replace(".", ", "),
        )
        end = {"value": "", "lower": ", lower end of the 95 % interval"}.get(
            self.end, ", upper end of the 95 % interval"
        )
        return f"{words}{end}: {'at least' if self.at_least else 'at most'} {self.limit:g}"


@dataclass(frozen=True)
class Judged:
    """A criterion and what became of it."""

    criterion: Criterion
    reached: float | None
    met: bool
    note: str

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        one = self.criterion
        return {
            "figure": one.figure,
            "end": one.end,
            "at_least" if one.at_least else "at_most": one.limit,
            "reached": None if self.reached is None else round(self.reached, 4),
            "met": self.met,
            **({"note": self.note} if self.note else {}),
        }


@dataclass(frozen=True)
class Criteria:
    """All limits of a file."""

    limits: tuple[Criterion, ...]
    sha256: str


def read_criteria(path: Path) -> Criteria:
    """Read a criteria file.

    Raises:
        UsageError: it cannot be read, or names something that no report has.
    """
    try:
        content = path.read_bytes()
        document = _parse(content.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}.") from error
    unknown = set(document) - {"at_least", "at_most"}
    if unknown or not document:
        raise UsageError(f"{path} has the tables at_least and at_most, and nothing else.")
    limits = tuple(
        _criterion(path, name, limit, kind == "at_least")
        for kind, section in document.items()
        for name, limit in _flat(section)
    )
    if not limits:
        raise UsageError(f"{path} names no criterion.")
    return Criteria(limits, hashlib.sha256(content).hexdigest())


def _parse(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return dict(tomllib.loads(text))


def _flat(section: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Names with dots, quoted or not: TOML reads bare dots as tables within tables."""
    if not isinstance(section, dict):
        yield before, section
        return
    for name, value in section.items():
        yield from _flat(value, f"{before}.{name}" if before else name)


def _criterion(path: Path, name: str, limit: Any, at_least: bool) -> Criterion:
    figure, _, end = name.rpartition(".")
    if end not in _ENDS or _FIGURES.fullmatch(figure) is None:
        raise UsageError(
            f"{path}: {name!r} is no figure of a report. It is named as in report.json, and ends "
            "in .value, .lower or .upper."
        )
    if isinstance(limit, bool) or not isinstance(limit, (int, float)):
        raise UsageError(f"{path}: the limit of {name} is no number.")
    return Criterion(figure, end, float(limit), at_least)


def _find(figures: Mapping[str, Any], name: str) -> Any:
    """The figure of a name with dots; a subgroup's own name may hold dots."""
    found: Any = figures
    parts = name.split(".")
    if parts[0] == "subgroups":
        parts = [parts[0], parts[1], ".".join(parts[2:-1]), parts[-1]]
    for part in parts:
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found
