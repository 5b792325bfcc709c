r"""Whether the 95 % intervals of a validation hold the truth in 95 of 100 cohorts.

    python -m benchmarks.interval_coverage --out benchmarks/results/interval_coverage.json

With `--page` the table of docs/validation.md is written too.

Synthetic scores: five causes, a study's log-odds are normal, those of its true cause raised; what
makes a patient hard is shared by all of his studies. The truth is the figure of a cohort of a
hundred thousand patients. Every cohort has the same number of studies of each cause, as the
bootstrap draws within causes. The code is that of `hipnet-edge validate`.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.page_tables import table, write_tables
from export.provenance import made_here, write
from hipnet_edge.evaluation import bootstrap, causes
from hipnet_edge.evaluation.causes import auc_by_cause, balanced_accuracy, brier
from hipnet_edge.evaluation.figure import Figure
from hipnet_edge.evaluation.intervals import Z95, delong, wilson
from hipnet_edge.evaluation.risk import PJI
from hipnet_edge.evaluation.sample import Sample
from hipnet_edge.vocabulary import CAUSES, Cause

Array = NDArray[Any]

FRACTURE = CAUSES.index(Cause.PERIPROSTHETIC_FRACTURE)
EVEN, UNEVEN = (40, 40, 40, 40, 40), (30, 70, 25, 15, 60)
SCENARIOS: dict[str, dict[str, Any]] = {
    "one study a patient": {"patients": EVEN, "skill": 1.5},
    "two studies a patient": {"patients": EVEN, "skill": 1.5, "studies": 2},
    "higher areas, causes of unequal frequency": {"patients": UNEVEN, "skill": 2.5},
}
"""Patients by cause, how far the true cause is raised, studies of each patient."""
OF_THE_TRUTH = 400
"""So many times the patients of a cohort are asked for the truth."""


def cohort(seed: int, patients: tuple[int, ...], skill: float, studies: int = 1) -> Sample:
    """One synthetic cohort, not yet resampled; column `marker` goes along with the first cause."""
    random = np.random.default_rng((seed, studies, *patients))
    labels = np.repeat(np.repeat(np.arange(5), patients), studies)
    whose = np.arange(len(labels)) // studies
    shared = random.normal(size=(sum(patients), 6))[whose]
    own = random.normal(size=(len(labels), 5))
    logits = (shared[:, :5] + own) / np.sqrt(2.0)
    logits[np.arange(len(labels)), labels] += skill
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    marker = shared[:, 5] + np.log(p[:, PJI])
    return Sample(p, labels, whose, np.ones((1, len(labels))), {"marker": marker})


def values(sample: Sample) -> dict[str, float]:
    """The figures themselves."""
    counts = sample.counts[:1]
    areas = auc_by_cause(counts, sample.probabilities, sample.causes)[0]
    return {
        "accuracy": float(sample.correct.mean()),
        "balanced_accuracy": float(balanced_accuracy(counts, sample.correct, sample.causes)[0]),
        "macro_auc": float(areas.mean()),
        "pji_auc": float(areas[PJI]),
        "fracture_auc": float(areas[FRACTURE]),
        "brier": float(brier(counts, sample.probabilities, sample.causes)[0]),
        "pji_sensitivity": float((sample.probabilities[sample.causes == PJI, PJI] >= 0.4).mean()),
        "marker_spearman": float(_spearman(counts, sample)[0]),
    }


def _spearman(counts: Array, sample: Sample) -> Array:
    return bootstrap.spearman(counts, sample.probabilities[:, PJI], sample.columns["marker"])


def intervals(sample: Sample) -> dict[str, dict[str, tuple[float, float]]]:
    """The intervals of every figure, by how they were made."""
    found: dict[str, Any] = causes.figures(sample)
    infected = sample.causes == PJI
    figures: dict[str, Figure] = {
        **{name: found[name] for name in ("accuracy", "balanced_accuracy", "macro_auc", "brier")},
        "pji_auc": found["auc"]["pji"],
        "fracture_auc": found["auc"]["periprosthetic_fracture"],
        "pji_sensitivity": sample.proportion(sample.probabilities[:, PJI] >= 0.4, infected),
        "marker_spearman": sample.resampled(_spearman(sample.counts, sample)),
    }
    made = {
        name: {
            **({figure.method: figure.interval} if figure.interval else {}),
            **figure.also,
        }
        for name, figure in figures.items()
    }
    n = len(sample)
    if sample.clustered:  # what taking every study for a patient would give
        made["accuracy"]["Wilson, patients ignored"] = wilson(float(sample.correct.sum()), n)
    else:
        own = sample.causes == PJI
        areas = delong(sample.probabilities[:, PJI], own)
        value, half = float(areas.values[0]), Z95 * float(areas.covariance[0, 0]) ** 0.5
        made["pji_auc"]["DeLong, symmetric"] = value - half, value + half
    return made


def coverage(scenario: dict[str, Any], repetitions: int) -> dict[str, Any]:
    """How often each interval holds the truth."""
    many = tuple(OF_THE_TRUTH * n for n in scenario["patients"])
    truth = values(cohort(0, **{**scenario, "patients": many}))
    held: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for seed in tqdm(range(1, repetitions + 1), desc="cohorts", mininterval=5):
        drawn = cohort(seed, **scenario)
        sample = Sample.of(drawn.probabilities, drawn.causes, drawn.patients, drawn.columns)
        for name, made in intervals(sample).items():
            for method, (low, high) in made.items():
                held[name, method].append(low <= truth[name] <= high)
    report: dict[str, Any] = {}
    for (name, method), hits in held.items():
        report.setdefault(name, {"truth": round(truth[name], 4), "coverage": {}})
        report[name]["coverage"][method] = round(float(np.mean(hits)), 4)
    return {"patients_by_cause": list(scenario["patients"]), "figures": report}


FIGURES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_auc": "Macro AUC",
    "pji_auc": "AUC of PJI",
    "fracture_auc": "AUC of fracture, the rarest",
    "brier": "Brier score",
    "pji_sensitivity": "Sensitivity for PJI",
    "marker_spearman": "Spearman's correlation",
}


def coverage_table(scenarios: dict[str, Any]) -> str:
    """Coverage by figure, by how the interval is made, and by scenario."""
    rows = []
    for figure, words in FIGURES.items():
        found = [one["figures"].get(figure, {}).get("coverage", {}) for one in scenarios.values()]
        for method in dict.fromkeys(method for one in found for method in one):
            cells = [f"{one[method]:.3f}" if method in one else "" for one in found]
            rows.append((words, method, *cells))
    return table(("Figure", "Interval", *scenarios), rows)


@click.command(help=__doc__)
@click.option("--repetitions", default=1000, show_default=True)
@click.option("--only", type=click.Choice(list(SCENARIOS)), help="One of the scenarios.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--page", type=click.Path(path_type=Path), help="A page with a place for the table.")
def main(repetitions: int, only: str | None, out: Path, page: Path | None) -> None:
    """Measure the intervals."""
    report: dict[str, Any] = {
        "what": "part of synthetic cohorts whose 95 % interval holds the true figure",
        **made_here("numpy", "scipy"),
        "repetitions": repetitions,
        "resamples": bootstrap.RESAMPLES,
        "scenarios": {
            name: coverage(scenario, repetitions)
            for name, scenario in SCENARIOS.items()
            if only in (None, name)
        },
    }
    write(report, out)
    if page is not None:
        write_tables(page, {"coverage": coverage_table(report["scenarios"])})


if __name__ == "__main__":
    main()
