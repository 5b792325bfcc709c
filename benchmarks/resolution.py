r"""Measure what resolution and the crop around the prosthesis are worth: AUC against size of sign.

    python -m benchmarks.resolution --cohort runs/shifted --member regnet \
        --run crop_full=runs/regnet-crop --run crop_half=runs/regnet-crop-half \
        --run whole_full=runs/regnet-whole --run whole_half=runs/regnet-whole-half \
        --out benchmarks/results/resolution.json

One backbone trained four times in the same way on the same studies, but for what it saw: the box
around the prosthesis or the whole film, at the full size of the input or at half of it. The cohort
must hold both pictures of each film: `python -m export.cohort --whole`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.smallest_sign import SIGNS
from export.cohort import SOUND, Cohort
from export.provenance import made_here, write
from hipnet_edge.evaluation import bootstrap
from hipnet_edge.evaluation.bootstrap import with_interval
from hipnet_edge.evaluation.causes import auc_by_cause
from hipnet_edge.vocabulary import CAUSES, VIEWS

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[Any]

PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "resolution.png"
BATCH = 8
BINS = 5


class Condition(NamedTuple):
    """What a backbone sees."""

    label: str
    whole: bool
    half: bool


CONDITIONS = {
    "crop_full": Condition("crop, full size", whole=False, half=False),
    "crop_half": Condition("crop, half size", whole=False, half=True),
    "whole_full": Condition("whole film, full size", whole=True, half=False),
    "whole_half": Condition("whole film, half size", whole=True, half=True),
}
REFERENCE = "crop_full"
"""With which the others are compared: what the bundle does."""


def probabilities(member: nn.Module, cohort: Cohort, half: bool) -> Array:
    """A backbone's own probabilities [N, 5]."""
    import torch
    from torch.nn import functional

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    member = member.to(device)
    parts = []
    for start in tqdm(range(0, len(cohort), BATCH), desc="studies", mininterval=5):
        batch = np.asarray(cohort.radiographs[start : start + BATCH], np.float32)
        radiographs = torch.from_numpy(batch).to(device)
        if half:
            radiographs = functional.avg_pool2d(radiographs, 2)
        with torch.inference_mode():
            parts.append(member(radiographs).logits.float().softmax(1).cpu().numpy())
    return np.concatenate(parts)


def by_size(answers: dict[str, Array], causes: Array, sizes: Array) -> dict[str, Any]:
    """The area under the ROC curve of each cause in bins of its sign's size, by condition.

    Args:
        answers: probabilities [N, 5] by condition.
        causes: [N], `SOUND` among them.
        sizes: [N], mm; 0 for a study without the sign that is measured.
    """
    report: dict[str, Any] = {}
    for k, cause in enumerate(CAUSES):
        own = np.flatnonzero((causes == k) & (sizes > 0))
        others = np.flatnonzero(causes != k)
        bins = []
        for part in np.array_split(own[np.argsort(sizes[own], kind="stable")], BINS):
            if part.size == 0:
                continue
            studies = np.concatenate([part, others])
            positive = np.arange(len(studies)) < len(part)
            counts = bootstrap.draw(positive)
            areas = {
                name: bootstrap.auc(counts, p[studies, k], positive) for name, p in answers.items()
            }
            bins.append(
                {
                    "mm": [round(float(s), 3) for s in (sizes[part].min(), sizes[part].max())],
                    "studies": len(part),
                    "auc": {name: with_interval(area) for name, area in areas.items()},
                    "less_than_reference": _differences(areas),
                }
            )
        report[cause.value] = {"size": SIGNS[cause].name, "bins": bins}
    return report


def _differences(values: dict[str, Array]) -> dict[str, Any]:
    """What each condition loses against the reference, paired."""
    if REFERENCE not in values:
        return {}
    return {
        name: with_interval(values[REFERENCE] - value)
        for name, value in values.items()
        if name != REFERENCE
    }


def figures(
    answers: dict[str, Array], causes: Array, sizes: Array, pixel_mm: dict[str, float]
) -> dict[str, Any]:
    """All figures: overall, and by size."""
    failed = causes != SOUND
    counts = bootstrap.draw(causes[failed])
    macro = {
        name: auc_by_cause(counts, p[failed], causes[failed]).mean(axis=1)
        for name, p in answers.items()
    }
    return {
        "definition": "area under the ROC curve of studies of one cause whose sign has a size in "
        "the bin against all studies of other causes and sound ones; bins of equal numbers; "
        "less_than_reference: crop at full size less this condition, paired",
        "conditions": {name: CONDITIONS[name].label for name in answers},
        "mm_per_network_pixel": {name: round(pixel_mm[name], 4) for name in answers},
        "simulated_macro_auc": {name: with_interval(values) for name, values in macro.items()},
        "simulated_macro_auc_less_than_reference": _differences(macro),
        "simulated_auc_by_size": by_size(answers, causes, sizes),
    }


def plot(report: dict[str, Any], target: Path) -> None:
    """Draw each cause's area under the curve against the size of its sign."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(CAUSES), figsize=(3.1 * len(CAUSES), 3.3), sharey=True)
    for panel, cause in zip(panels, CAUSES, strict=True):
        part = report["simulated_auc_by_size"][cause.value]
        for shift, (name, label) in enumerate(report["conditions"].items()):
            known = [one for one in part["bins"] if one["auc"][name]["value"] is not None]
            areas = [one["auc"][name] for one in known]
            value = np.array([area["value"] for area in areas])
            reach = np.abs(np.array([area["ci95"] for area in areas]).T - value)
            # A little apart, so that the intervals do not hide one another.
            places = [float(np.mean(one["mm"])) * (1 + 0.012 * shift) for one in known]
            panel.errorbar(places, value, reach, lw=1.2, elinewidth=0.7, marker=".", label=label)
        panel.set_title(cause.label, fontsize=9)
        panel.set_xlabel(f"{part['size']}, mm", fontsize=7.5)
        panel.tick_params(labelsize=8)
    panels[0].set_ylabel("AUC", fontsize=8.5)
    panels[0].legend(fontsize=7)
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110, metadata={"Software": None})
    plt.close(figure)


def pixel_size(cohort: Cohort, half: bool) -> float:
    """Median size of a network pixel on the detector, mm."""
    columns = [cohort.table[f"{view.value}_mm_per_pixel"].astype(float) for view in VIEWS]
    return float(np.median(np.concatenate(columns))) * (2 if half else 1)


def _parsed(runs: tuple[str, ...]) -> dict[str, Path]:
    given = dict(run.partition("=")[::2] for run in runs)
    if unknown := set(given) - set(CONDITIONS):
        raise click.ClickException(f"unknown: {', '.join(unknown)}; use {', '.join(CONDITIONS)}")
    return {name: Path(given[name]) for name in CONDITIONS if name in given}


@click.command(help=__doc__)
@click.option("--cohort", "directory", type=click.Path(path_type=Path), required=True)
@click.option("--run", "runs", multiple=True, required=True, help="CONDITION=directory.")
@click.option("--member", required=True, help="The backbone that was trained.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--picture", type=click.Path(path_type=Path), default=PICTURE, show_default=True)
def main(directory: Path, runs: tuple[str, ...], member: str, out: Path, picture: Path) -> None:
    """Measure one backbone under several conditions."""
    from export.network import deploy
    from export.train import load_member

    answers, pixel_mm, training = {}, {}, {}
    try:
        for name, run in _parsed(runs).items():
            condition = CONDITIONS[name]
            cohort = Cohort.load(directory, whole=condition.whole)
            backbone = deploy(load_member(run, member))
            answers[name] = probabilities(backbone, cohort, condition.half)
            pixel_mm[name] = pixel_size(cohort, condition.half)
            training[name] = (run / member / "metrics.jsonl").read_text().splitlines()[-1]
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    report: dict[str, Any] = {
        "what": "one backbone trained under several conditions; simulated studies of a site that "
        "took no part in training",
        **made_here("numpy", "torch", "scikit-learn"),
        "member": member,
        "last_epochs": {name: json.loads(line) for name, line in training.items()},
        "cohort": {"studies": len(cohort), **cohort.index},
        "bootstrap_resamples": bootstrap.RESAMPLES,
        "figures": figures(answers, cohort.causes, cohort.table["sign_mm"].astype(float), pixel_mm),
    }
    write(report, out)
    plot(report["figures"], picture)
    print(json.dumps(report["figures"], indent=1))


if __name__ == "__main__":
    main()
