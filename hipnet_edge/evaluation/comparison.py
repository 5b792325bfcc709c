"""Two bundles, precisions or engines on the same studies: differences, paired study by study."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.errors import UsageError
from hipnet_edge.evaluation import bootstrap
from hipnet_edge.evaluation.causes import auc_by_cause, brier, calibration_error
from hipnet_edge.evaluation.figure import Figure, refused
from hipnet_edge.evaluation.intervals import delong
from hipnet_edge.evaluation.outcome import RESULTS_NAME
from hipnet_edge.evaluation.run import ANSWERED, MADE_BY_NAME, PROBABILITIES
from hipnet_edge.evaluation.sample import SOUND, Sample
from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]

DEFINITION = (
    "Differences are the second less the first, over the studies that both answered; intervals by "
    "bootstrap of pairs over patients, within causes. p: McNemar's exact test for accuracy, "
    "DeLong's test for areas; both need one study a patient and are left out otherwise."
)


@dataclass(frozen=True)
class Comparison:
    """Two validations side by side.

    Attributes:
        made_by: what answered, of the first and of the second.
        counts: how many studies, by what became of them.
        figures: by name.
        p: of the differences that have a test, by the figure's name.
    """

    made_by: tuple[dict[str, Any], dict[str, Any]]
    counts: dict[str, int]
    figures: dict[str, Figure]
    p: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "definition": DEFINITION,
            "first": self.made_by[0],
            "second": self.made_by[1],
            "studies": self.counts,
            "second_less_first": {name: one.to_dict() for name, one in self.figures.items()},
            "p": {name: float(f"{p:.3g}") for name, p in self.p.items()},
        }


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of McNemar's exact test: studies right in the first alone, in the second alone.

    Source: McNemar, Psychometrika 1947; exact by the binomial distribution.
    """
    from scipy.stats import binomtest

    n = only_first + only_second
    return 1.0 if n == 0 else float(binomtest(only_first, n, 0.5).pvalue)


def compare(first: Path, second: Path) -> Comparison:
    """Compare the validations in two folders.

    Raises:
        UsageError: a folder holds none, or they share no study.
    """
    made_by, answered = zip(*(_read(folder) for folder in (first, second)), strict=True)
    shared = [key for key in answered[0] if key in answered[1]]
    agreeing = [key for key in shared if answered[0][key]["cause"] == answered[1][key]["cause"]]
    failed = [key for key in agreeing if answered[0][key]["cause"] != "none"]
    if not failed:
        raise UsageError("The two validations share no study with a cause.")
    counts = {
        "compared": len(failed),
        "sound": len(agreeing) - len(failed),
        "only_in_first": len(answered[0]) - len(shared),
        "only_in_second": len(answered[1]) - len(shared),
        "labelled_differently": len(shared) - len(agreeing),
    }
    samples = [_sample([lines[key] for key in failed]) for lines in answered]
    counts["same_leading_cause"] = int(
        (samples[0].probabilities.argmax(1) == samples[1].probabilities.argmax(1)).sum()
    )
    figures, p = _differences(samples[0], samples[1])
    return Comparison((made_by[0], made_by[1]), counts, figures, p)


def _read(folder: Path) -> tuple[dict[str, Any], dict[tuple[str, str], dict[str, str]]]:
    """What answered, and the answered studies by their radiographs."""
    try:
        made_by: dict[str, Any] = json.loads((folder / MADE_BY_NAME).read_text(encoding="utf-8"))
        with (folder / RESULTS_NAME).open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} holds no finished validation.") from error
    return made_by, {
        (line["ap_image"], line["lateral_image"]): line
        for line in lines
        if line["status"] == ANSWERED
    }


def _sample(lines: list[dict[str, str]]) -> Sample:
    names = {cause.value: k for k, cause in enumerate(CAUSES)}
    _, first_seen, patients = np.unique(
        [int(line["patient"]) for line in lines], return_index=True, return_inverse=True
    )
    return Sample.of(
        np.array([[float(line[name]) for name in PROBABILITIES] for line in lines]),
        np.array([names.get(line["cause"], SOUND) for line in lines]),
        np.argsort(np.argsort(first_seen))[patients],
        {},
    )


def _differences(first: Sample, second: Sample) -> tuple[dict[str, Figure], dict[str, float]]:
    counts, causes = first.counts, first.causes
    of_cause = [causes == k for k in range(len(CAUSES))]
    pairs = (first, second)
    right = [one.correct for one in pairs]
    accuracy = bootstrap.mean(counts, right[1].astype(float) - right[0])
    figures = {"accuracy": first.resampled(accuracy)}
    p: dict[str, float] = {}
    if not first.clustered:
        only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        p["accuracy"] = mcnemar(*only)
    areas = [auc_by_cause(counts, one.probabilities, causes) for one in pairs]
    complete = all(own.any() for own in of_cause)
    figures["macro_auc"] = (
        first.resampled((areas[1] - areas[0]).mean(axis=1), of_cause)
        if complete
        else refused("Not every cause is among the studies.", len(first))
    )
    for k, cause in enumerate(CAUSES):
        own, name = of_cause[k], f"auc.{cause.value}"
        if not own.any() or own.all():
            figures[name] = refused("Needs studies with the cause and studies without.")
            continue
        figures[name] = first.resampled(areas[1][:, k] - areas[0][:, k], [own, ~own])
        if not first.clustered and min(own.sum(), (~own).sum()) > 1:
            scores = np.stack([one.probabilities[:, k] for one in pairs])
            value = delong(scores, own).p_of_difference()
            if np.isfinite(value):
                p[name] = value
    scored = [brier(counts, one.probabilities, causes) for one in pairs]
    errors = [calibration_error(counts, one.probabilities, one.correct)[0] for one in pairs]
    figures["brier"] = first.resampled(scored[1] - scored[0])
    figures["calibration_error"] = first.resampled(errors[1] - errors[0])
    return figures, p
