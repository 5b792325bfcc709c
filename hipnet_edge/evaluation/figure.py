"""A figure with its interval, how that was made, and why either may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FEWEST_PATIENTS = 5
"""In every group that a figure needs; with fewer it has no interval, as any would be too narrow."""
FEW_PATIENTS = 30
"""Below this the interval itself is uncertain, and the figure says so."""
BOOTSTRAP = "bootstrap over patients, percentiles"
WILSON = "Wilson"
WILSON_CLUSTERED = "Wilson, studies of one patient counted for what they add"
DELONG = "DeLong, on the logit scale"
BOOTSTRAP_LOGIT = "bootstrap over patients, on the logit scale"
NEWCOMBE = "Newcombe"


@dataclass(frozen=True)
class Figure:
    """One number of a report.

    Attributes:
        value: None where it cannot be said; `note` says why.
        interval: 95 %, None where it cannot be said; `note` says why.
        method: how the interval was made.
        studies: over how many.
        patients: of how many, in the smallest of the groups that it needs.
        note: what to know about it.
        also: intervals made in other ways, by method.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    method: str = ""
    studies: int = 0
    patients: int = 0
    note: str = ""
    also: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The figure as a JSON object, rounded to four digits."""
        return {
            "value": None if self.value is None else round(self.value, 4),
            "ci95": _rounded(self.interval),
            "interval": self.method,
            "studies": self.studies,
            "patients": self.patients,
            **({"note": self.note} if self.note else {}),
            **({"also": {k: _rounded(v) for k, v in self.also.items()}} if self.also else {}),
        }


def refused(note: str, studies: int = 0) -> Figure:
    """A figure that cannot be said, and why."""
    return Figure(None, studies=studies, note=note)


def percentiles(rows: Array) -> tuple[float, float] | None:
    """The 95 % percentile interval of all rows but the first; None where none is a number."""
    known = rows[1:][np.isfinite(rows[1:])]
    if known.size == 0:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def few_words(patients: int) -> str:
    """What to know of a figure over so few patients; empty if they are enough."""
    if patients < FEWEST_PATIENTS:
        return f"No interval: {patients} {'patient' if patients == 1 else 'patients'} in a group."
    if patients < FEW_PATIENTS:
        return f"Only {patients} patients in the smallest group: the interval is uncertain."
    return ""


def _rounded(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [round(end, 4) for end in interval]
