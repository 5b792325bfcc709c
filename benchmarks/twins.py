"""Counterfactual twins: does erasing the sign from a film take the call with it?

    python -m benchmarks.twins --bundle engines/reference --site shifted --n 250 --seed 700 \
        --out benchmarks/results/twins.json

Each failed study and its twin (`hipnet_edge.simulation.study.erased`) are compared pixel by pixel,
which must agree outside the dilated truth mask, and read by the same bundle. Counted are the
studies that were called rightly. The call is gone when the cause's probability has fallen below
half of what it was, another cause leads, or the flag `no_sign_of_failure` is raised that was not
before: the probabilities assume a failed prosthesis and sum to 1 though nothing is to be seen.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.accuracy import named
from export.provenance import made_here, write
from hipnet_edge import Predictor, Radiograph, Study
from hipnet_edge.evaluation import bootstrap
from hipnet_edge.prediction import Prediction
from hipnet_edge.simulation.cohort import PlannedStudy, plan
from hipnet_edge.simulation.dimensions import Site
from hipnet_edge.simulation.study import ERASED_MM, SimulatedStudy, erased
from hipnet_edge.vocabulary import CAUSES, VIEWS, Cause, Flag

SLACK_MM = 1.0
"""Distances to the mask are known to about a pixel."""


def differences(study: SimulatedStudy, twin: SimulatedStudy) -> tuple[int, int]:
    """How many pixels of both views differ outside the dilated truth mask, and inside."""
    outside = inside = 0
    for view in VIEWS:
        a, b = study.views[view], twin.views[view]
        away = cv2.distanceTransform((~a.mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        # Without a mask there is no distance: nothing may differ.
        near = (away * a.pixel_spacing_mm <= ERASED_MM + SLACK_MM) & a.mask.any()
        different = a.stored != b.stored
        outside += int((different & ~near).sum())
        inside += int((different & near).sum())
    return outside, inside


def read(predictor: Predictor, study: SimulatedStudy) -> Prediction:
    """What the bundle says of a simulated study."""
    ap, lateral = (Radiograph.from_dicom(study.views[view].to_dataset()) for view in VIEWS)
    return predictor.predict(Study(ap, lateral, laterality=study.laterality))


def gone(cause: Cause, before: Prediction, after: Prediction) -> dict[str, bool]:
    """In which ways the call is gone from the twin, and whether in any."""
    ways = {
        "probability_halved": after.probabilities[cause] < before.probabilities[cause] / 2,
        "another_cause_leads": after.leading_cause is not cause,
        "no_sign_of_failure": Flag.NO_SIGN_OF_FAILURE in after.flags
        and Flag.NO_SIGN_OF_FAILURE not in before.flags,
    }
    return {**ways, "call_gone": any(ways.values())}


def compare(predictor: Predictor, planned: list[PlannedStudy], spacing: float) -> dict[str, Any]:
    """Make, compare and read every study and its twin."""
    studies = called = outside = unchanged = 0
    ways: dict[Cause, list[dict[str, bool]]] = defaultdict(list)
    signs: dict[Cause, list[tuple[float, float]]] = defaultdict(list)
    for one in tqdm(planned, desc="twins", mininterval=5):
        assert one.cause is not None
        study = one.simulate(spacing)
        healthy = PlannedStudy(one.patient_id, one.site, one.seed, None).simulate(spacing)
        twin = erased(study, healthy)
        differing_outside, differing_inside = differences(study, twin)
        studies += 1
        outside += differing_outside
        unchanged += differing_inside == 0
        before = read(predictor, study)
        if before.leading_cause is not one.cause:
            continue
        called += 1
        after = read(predictor, twin)
        ways[one.cause].append(gone(one.cause, before, after))
        if before.sign_of_failure is not None and after.sign_of_failure is not None:
            signs[one.cause].append((before.sign_of_failure, after.sign_of_failure))
    return {
        "studies": studies,
        "called_rightly": called,
        "pixels_that_differ_outside_the_dilated_mask": outside,
        "studies_whose_twin_is_the_same": unchanged,
        "causes": {
            cause.value: _figures(ways[cause], signs[cause]) for cause in CAUSES if ways[cause]
        },
    }


def _figures(ways: list[dict[str, bool]], signs: list[tuple[float, float]]) -> dict[str, Any]:
    """How often the call of one cause is gone, and how probable a sign of failure is."""
    figures: dict[str, Any] = {
        f"simulated_{way}": bootstrap.part(sum(one[way] for one in ways), len(ways))
        for way in ways[0]
    }
    if signs:
        before, after = (round(float(median), 4) for median in np.median(signs, axis=0))
        figures["simulated_sign_of_failure_median"] = {"before": before, "after": after}
    return figures


@click.command(help=__doc__)
@click.option("--bundle", type=click.Path(path_type=Path), required=True)
@click.option("--site", type=click.Choice([site.value for site in Site]), default="shifted")
@click.option("--n", type=click.IntRange(1), default=250, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=700, show_default=True)
@click.option("--pixel-spacing-mm", type=float, default=0.3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(bundle: Path, site: str, n: int, seed: int, pixel_spacing_mm: float, out: Path) -> None:
    """Compare, write, and fail if a pixel differs where none may."""
    planned = plan(Site(site), n, seed, causes=CAUSES)
    with Predictor(bundle, backend="onnxruntime", precision="fp32") as predictor:
        result = compare(predictor, planned, pixel_spacing_mm)
        read_by = named(predictor.bundle, predictor.provenance.variant)
    report = {
        "simulated": True,
        **made_here("numpy", "onnxruntime"),
        "bundle": read_by,
        "site": site,
        "seed": seed,
        "pixel_spacing_mm": pixel_spacing_mm,
        "erased_mm_around_the_mask": ERASED_MM,
        **result,
    }
    write(report, out)
    print(json.dumps(result, indent=1))
    sys.exit(bool(result["pixels_that_differ_outside_the_dilated_mask"]))


if __name__ == "__main__":
    main()
