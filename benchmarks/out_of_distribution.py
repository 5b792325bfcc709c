r"""Measure whether a bundle knows a stranger: what it flags, what is refused before, false alarms.

    python -m benchmarks.out_of_distribution --cohort runs/shifted --keep runs/answers \
        --out benchmarks/results/out_of_distribution.json

The score must rank strangers above studies of the shifted site, none of whose implants the model
was fitted to. Every stranger goes the way of a patient's films twice: as it comes, where a film
without a header that says hip is refused unless a prosthesis is found in it; and with an operator
stating that it is a hip, so that the network has to answer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from tqdm import tqdm

from benchmarks.accuracy import answer, named
from benchmarks.outcome import Outcome
from benchmarks.strangers import MADE, WRONGLY_HELD, Pair, stored
from export.cohort import Cohort
from export.provenance import made_here, write
from hipnet_edge import Predictor
from hipnet_edge.backends import choose_backend
from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import HipNetError, InputRefused
from hipnet_edge.evaluation import bootstrap
from hipnet_edge.evaluation.bootstrap import with_interval
from hipnet_edge.preprocessing import preprocess, preprocess_study
from hipnet_edge.radiograph import Radiograph
from hipnet_edge.simulation import simulate_study
from hipnet_edge.simulation.dimensions import Site
from hipnet_edge.study import Study
from hipnet_edge.vocabulary import CAUSES, VIEWS, Flag, Laterality, View

Array = NDArray[Any]

SEED = 77
"""Of the strangers."""
FIRST_HIP = 990_000_000
"""Seed of the first hip that is held wrongly; beyond those of all cohorts."""
SUBGROUPS = ("stem", "cup", "cemented", "projection", "site")
TELLING = (Flag.NO_IMPLANT, Flag.OUT_OF_DISTRIBUTION)


@dataclass(frozen=True)
class Answered:
    """What became of one stranger.

    Attributes:
        refused: why it was refused as it came; None where it was read.
        refused_as_hip: why it was refused although it was stated to be a hip.
        novelty: the score, where the network was asked.
        flags: what the result says.
    """

    refused: str | None
    refused_as_hip: str | None
    novelty: float | None
    flags: tuple[Flag, ...]

    @property
    def noticed(self) -> bool:
        """Whether anything told the user, if the operator insisted that it is a hip."""
        return self.refused_as_hip is not None or any(flag in TELLING for flag in self.flags)


def study_of(pair: Pair, stated: bool) -> Study:
    """Two pictures without a header as a study of a left hip, stated to be one or not.

    Raises:
        InputRefused: they cannot be read.
    """
    ap, lateral = (
        Radiograph.from_array(
            picture, view=view, laterality="left", anatomy="hip" if stated else None
        )
        for picture, view in zip(pair, VIEWS, strict=True)
    )
    return Study(ap, lateral)


def ask(predictor: Predictor, pair: Pair) -> Answered:
    """Give a pair to a predictor, as it comes and stated to be a hip."""
    try:
        preprocess_study(study_of(pair, stated=False), predictor.bundle.manifest.input)
        refused = None
    except InputRefused as refusal:
        refused = refusal.code.value
    try:
        prediction = predictor.predict(study_of(pair, stated=True))
    except InputRefused as refusal:
        return Answered(refused, refusal.code.value, None, ())
    return Answered(refused, None, prediction.novelty, prediction.flags)


def hips(n: int, pixel_spacing_mm: float) -> Iterator[Pair]:
    """Simulated films of one hip of the shifted site, bone bright; right ones mirrored to left."""
    found, seed = 0, FIRST_HIP
    while found < n:
        cause = (None, *CAUSES)[found % (1 + len(CAUSES))]
        study = simulate_study(cause, seed, site=Site.SHIFTED, pixel_spacing_mm=pixel_spacing_mm)
        seed += 1
        if study.ap.laterality is Laterality.BOTH:
            continue
        step = -1 if study.laterality is Laterality.RIGHT else 1
        ap, lateral = (
            Radiograph.from_dicom(study.views[view].to_dataset()).grey_levels()[:, ::step]
            for view in VIEWS
        )
        yield stored(ap), stored(lateral)
        found += 1


def summary(answers: list[Answered], known: Outcome) -> dict[str, Any]:
    """What became of strangers of one kind, against the studies the score should not stop."""
    asked = np.array([a.novelty for a in answers if a.novelty is not None])
    report: dict[str, Any] = {
        "studies": len(answers),
        "refused_as_it_comes": dict(Counter(a.refused for a in answers if a.refused)),
        "stated_to_be_a_hip": {
            "refused": dict(Counter(a.refused_as_hip for a in answers if a.refused_as_hip)),
            "no_implant": sum(Flag.NO_IMPLANT in a.flags for a in answers),
            "out_of_distribution": sum(Flag.OUT_OF_DISTRIBUTION in a.flags for a in answers),
            "refused_or_flagged": bootstrap.part(sum(a.noticed for a in answers), len(answers)),
        },
    }
    if asked.size and known.novelty is not None:
        scores = np.concatenate([known.novelty, asked])
        strange = np.arange(len(scores)) >= len(known)
        report["auroc"] = with_interval(bootstrap.auc(bootstrap.draw(strange), scores, strange))
        report["median_novelty"] = round(float(np.median(asked)), 4)
    return report


def false_alarms(known: Outcome, threshold: float) -> dict[str, Any]:
    """How often studies of hips are flagged, also for each implant."""
    assert known.novelty is not None
    flagged = known.novelty > threshold
    report: dict[str, Any] = {
        "all": bootstrap.part(int(flagged.sum()), len(flagged)),
        "median_novelty": round(float(np.median(known.novelty)), 4),
    }
    for column in SUBGROUPS:
        if column in known.table:
            words = known.table[column].astype(str)
            report[column] = {
                str(word): bootstrap.part(
                    int(flagged[words == word].sum()), int((words == word).sum())
                )
                for word in np.unique(words)
            }
    return report


def real_strangers(predictor: Predictor) -> dict[str, Any]:
    """RG1, a real chest, and RG3, a real tibia, both of pydicom-data: as DICOM and as pictures."""
    spec = predictor.bundle.manifest.input
    films: dict[str, Array] = {}
    report: dict[str, Any] = {}
    for name in ("RG1", "RG3"):
        path = get_testdata_file(f"{name}_UNCR.dcm", download=False)
        if path is None:
            raise click.ClickException("pydicom-data with RG1 and RG3 is not installed")
        film = Radiograph.from_dicom(str(path), laterality="left")
        films[name] = stored(film.grey_levels())
        try:
            preprocess(film, View.AP, Laterality.LEFT, spec)
            report[f"{name} as DICOM"] = {"refused": None}
        except InputRefused as refusal:
            report[f"{name} as DICOM"] = {"refused": refusal.code.value}
    for first, second in (("RG1", "RG3"), ("RG3", "RG1")):
        answered = ask(predictor, (films[first], films[second]))
        report[f"{first} as AP, {second} as lateral"] = {
            "bare_pictures_refused": answered.refused,
            "stated_to_be_a_hip": {
                "refused": answered.refused_as_hip,
                "flags": [flag.value for flag in answered.flags],
                "novelty": None if answered.novelty is None else round(answered.novelty, 4),
                "refused_or_flagged": answered.noticed,
            },
        }
    return report


def measure(
    predictor: Predictor, known: Outcome, n: int, pixel_spacing_mm: float
) -> dict[str, Any]:
    """All figures about strangers.

    Raises:
        ValueError: the bundle has no score for strangers.
    """
    decision = predictor.bundle.manifest.decision
    if decision is None or known.novelty is None:
        raise ValueError("The bundle has no calibration and gives no novelty.")
    answers: dict[str, list[Answered]] = {}
    for kind, (name, make) in enumerate(tqdm(MADE.items(), desc="kinds")):
        answers[name] = [
            ask(predictor, make(np.random.default_rng((SEED, kind, i)))) for i in range(n)
        ]
    answers["upright"] = []
    for pair in tqdm(hips(n, pixel_spacing_mm), desc="hips", total=n, mininterval=5):
        answers["upright"].append(ask(predictor, pair))
        for name, held in WRONGLY_HELD.items():
            answers.setdefault(name, []).append(ask(predictor, held(*pair)))
    upright = answers.pop("upright")
    everyone = [one for kind in answers.values() for one in kind]
    return {
        "definition": "auroc: novelty of strangers stated to be hips against that of the cohort's "
        "studies; strangers that are refused even so have no score and stand in `refused`. "
        "Chest, tibia, hand and knee are crude simulations; RG1 and RG3 are real, n = 2.",
        "threshold": round(decision.novelty_threshold, 4),
        "simulated_false_alarms": false_alarms(known, decision.novelty_threshold),
        "simulated_all_strangers": summary(everyone, known),
        "simulated_by_kind": {name: summary(kind, known) for name, kind in answers.items()},
        "simulated_the_same_hips_upright": summary(upright, known),
        "real_strangers": real_strangers(predictor),
    }


@click.command(help=__doc__)
@click.option("--bundle", type=click.Path(path_type=Path), help="Default: the reference bundle.")
@click.option("--cohort", "directory", type=click.Path(path_type=Path), required=True)
@click.option("--n", type=click.IntRange(2), default=60, show_default=True, help="Of each kind.")
@click.option("--pixel-spacing-mm", type=float, default=0.3, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Where answers are kept.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(
    bundle: Path | None,
    directory: Path,
    n: int,
    pixel_spacing_mm: float,
    keep: Path | None,
    out: Path,
) -> None:
    """Measure a bundle's knowledge of strangers."""
    try:
        model = Bundle.load(bundle) if bundle else Bundle.reference()
        cohort = Cohort.load(directory)
        choice = choose_backend(model, "onnxruntime", "fp32")
        known = answer(model, choice, cohort, keep and keep / "answers.npz")
        choice.backend.close()
        with Predictor(model, backend="onnxruntime", precision="fp32") as predictor:
            figures = measure(predictor, known, n, pixel_spacing_mm)
            engine = predictor.backend.name
    except (HipNetError, FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    report = {
        "what": "simulated strangers, and two real radiographs that are no hips",
        **made_here("numpy", "scikit-learn"),
        "bundle": named(model, choice.variant),
        "engine": {"backend": engine, "variant": choice.variant},
        "cohort": {"studies": len(cohort), **cohort.index},
        "figures": figures,
    }
    write(report, out)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
