"""What another way to find the box around a prosthesis changes, study by study.

    python -m benchmarks.survey_change --before runs/old --after runs/new --out survey_change.json

Two cohorts made by `export.cohort` of two versions of the package are put to the same network, as
far as they hold the same studies. It says how well each is read, and by the gate's figures how far
the answers are apart. Maps are compared cell by cell: a box that moved counts against it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from export import evaluate
from export.cohort import Cohort
from export.gate import answers_of
from export.gate_figures import Answers, compare
from export.provenance import made_here, write
from hipnet_edge.backends import choose_backend
from hipnet_edge.bundle import Bundle


def read(cohort: Cohort, answers: Answers) -> dict[str, Any]:
    """How well a cohort is read: failed studies, and the maps of all."""
    causes, occupancy = np.asarray(cohort.causes), np.asarray(cohort.occupancy)
    return {
        "leading_cause_right": evaluate.accuracy(answers.probabilities, causes),
        "macro_auc": evaluate.macro_auc(answers.probabilities, causes),
        "calibration_error": evaluate.calibration_error(answers.probabilities, causes),
        "maps_pointing": evaluate.pointing(answers.maps, occupancy, causes),
        "no_implant": float(np.mean(["no_implant" in flags for flags in cohort.table["flags"]])),
        "source_sha256": cohort.index["source_sha256"],
    }


@click.command(help=__doc__)
@click.option("--before", type=click.Path(path_type=Path), required=True, help="A cohort.")
@click.option("--after", type=click.Path(path_type=Path), required=True, help="The same studies.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Report as JSON.")
def main(before: Path, after: Path, out: Path) -> None:
    """Compare two versions of the survey."""
    bundle = Bundle.reference()
    one, other = Cohort.load(before), Cohort.load(after)
    ids = [cohort.table["patient_id"] for cohort in (one, other)]
    one, other = (
        cohort.subset(np.isin(own, np.intersect1d(ids[0], ids[1])))
        for cohort, own in zip((one, other), ids, strict=True)
    )
    if not len(one) or list(one.table["patient_id"]) != list(other.table["patient_id"]):
        raise click.ClickException("the two cohorts do not hold the same studies")
    cohorts = {"before": one, "after": other}
    backend = choose_backend(bundle, "onnxruntime", "fp32").backend
    answers = {name: answers_of(backend, cohort, name) for name, cohort in cohorts.items()}
    change = np.abs(answers["before"].probabilities - answers["after"].probabilities).max(axis=1)
    report = {
        "what": "simulated studies of a site that took no part in training; the reference network",
        "studies": len(one),
        **{name: read(cohorts[name], answers[name]) for name in cohorts},
        "studies_whose_answer_changed_by_a_hundredth": float((change > 0.01).mean()),
        "change": compare(
            answers["before"],
            answers["after"],
            np.asarray(one.causes),
            np.asarray(one.occupancy),
            bundle.manifest.decision,
        ),
        "cohort": {k: one.index[k] for k in ("site", "seed", "sound", "pixel_spacing_mm")},
        "bundle": {"name": bundle.manifest.name, "digest": bundle.digest},
        **made_here("onnxruntime", "numpy", "opencv-python-headless"),
    }
    write(report, out)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
