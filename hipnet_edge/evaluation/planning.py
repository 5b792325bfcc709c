"""How many cases a validation needs, so that the lower end of an interval reaches a limit."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.errors import UsageError
from hipnet_edge.evaluation.figure import FEW_PATIENTS
from hipnet_edge.evaluation.intervals import Z95, area_variance

PROPORTIONS = ("accuracy", "sensitivity", "specificity")
FIGURES = (*PROPORTIONS, "auc")
MOST_STUDIES = 1_000_000


@dataclass(frozen=True)
class Plan:
    """How many patients, one study each.

    Attributes:
        figure: one of `FIGURES`.
        expected: the true value that is hoped for.
        lower_bound: what the lower end of the 95 % interval must reach.
        power: how often it does if the hope is right.
        prevalence: part of the patients with the cause.
        counted: patients in the figure: with the cause for sensitivity, without for specificity.
        patients: in all.
        positives: of them with the cause; None for accuracy.
    """

    figure: str
    expected: float
    lower_bound: float
    power: float
    prevalence: float | None
    counted: int
    patients: int
    positives: int | None

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def in_words(self) -> str:
        """A sentence for a person."""
        among = ""
        if self.positives is not None:
            among = (
                f", {self.positives} of them with the cause and "
                f"{self.patients - self.positives} without"
            )
        return (
            f"{self.patients} patients with one study each{among}: if the true {self.figure} is "
            f"{self.expected:g}, the lower end of its 95 % interval then reaches "
            f"{self.lower_bound:g} in {100 * self.power:g} of 100 such validations."
        )


def plan(
    figure: str, expected: float, lower_bound: float, power: float, prevalence: float | None
) -> Plan:
    """How many patients a figure needs.

    A proportion is planned exactly, with Wilson's interval; an area under the ROC curve with
    Hanley and McNeil's variance on the logit scale, and at least `FEW_PATIENTS` of either kind.

    Raises:
        UsageError: the values do not go together, or a million patients are not enough.
    """
    if figure not in FIGURES:
        raise UsageError(f"Figures are {', '.join(FIGURES)}.")
    if not 0.0 < lower_bound < expected < 1.0 or not 0.5 <= power < 1.0:
        raise UsageError(
            "The lower bound must be below what is expected, both between 0 and 1; the power is "
            "0.5 or more and below 1."
        )
    if figure == "accuracy":
        counted = studies_for_proportion(expected, lower_bound, power)
        return Plan(figure, expected, lower_bound, power, None, counted, counted, None)
    if prevalence is None or not 0.0 < prevalence < 1.0:
        raise UsageError(f"For {figure} say which part of the patients has the cause, 0 to 1.")
    if figure == "auc":
        patients = studies_for_area(expected, lower_bound, power, prevalence)
        counted = patients
    else:
        counted = studies_for_proportion(expected, lower_bound, power)
        part = prevalence if figure == "sensitivity" else 1.0 - prevalence
        patients = math.ceil(counted / part - 1e-9)
    positives = (
        patients - counted
        if figure == "specificity"
        else counted
        if figure == "sensitivity"
        else math.ceil(patients * prevalence - 1e-9)
    )
    return Plan(figure, expected, lower_bound, power, prevalence, counted, patients, positives)


def chance_of_proportion(
    n: NDArray[Any], expected: float, lower_bound: float
) -> NDArray[np.float64]:
    """How probable it is that Wilson's lower end over `n` studies reaches the bound."""
    from scipy.stats import binom

    # Wilson's lower end is at least b exactly where (p - b) / sqrt(b (1 - b) / n) is at least z.
    needed = np.ceil(lower_bound * n + Z95 * np.sqrt(lower_bound * (1 - lower_bound) * n) - 1e-9)
    return np.asarray(binom.sf(needed - 1, n, expected), np.float64)


def studies_for_proportion(expected: float, lower_bound: float, power: float) -> int:
    """The smallest number from which on every number of studies is enough.

    The chance goes up and down with each study more: what is enough for one number of studies may
    not be for the next.
    """
    from scipy.stats import norm

    spread = Z95 * math.sqrt(lower_bound * (1 - lower_bound))
    spread += float(norm.ppf(power)) * math.sqrt(expected * (1 - expected))
    about = (spread / (expected - lower_bound)) ** 2
    if 4 * about > MOST_STUDIES:
        raise UsageError("More than a million patients would be needed.")
    n = np.arange(1, int(4 * about) + 200)
    return int(n[chance_of_proportion(n, expected, lower_bound) < power][-1]) + 1


def studies_for_area(expected: float, lower_bound: float, power: float, part: float) -> int:
    """The smallest number of studies, `part` of them with the cause."""
    from scipy.stats import norm

    errors = Z95 + float(norm.ppf(power))
    n = np.arange(4, MOST_STUDIES + 1)
    positives = np.clip(np.ceil(n * part - 1e-9), 1, n - 1)
    error = np.sqrt(area_variance(expected, positives, n - positives))
    error = error / (expected * (1.0 - expected))
    away = math.log(expected / (1.0 - expected)) - math.log(lower_bound / (1.0 - lower_bound))
    many = np.minimum(positives, n - positives) >= FEW_PATIENTS
    enough = np.flatnonzero((errors * error <= away) & many)
    if not len(enough):
        raise UsageError("More than a million patients would be needed.")
    return int(n[enough[0]])
