"""Both views against the AP alone and the lateral alone, like for like.

A network trained on pairs and shown a blank in place of one view is judged on something it never
saw. So every reader here has a decision of the same kind of its own: for each backbone a logistic
regression on the pooled features (mean and peak of every channel) of the AP, of the lateral or of
both, fitted on the validation cohort with the penalty that cross-validation there prefers; the
four backbones' probabilities are averaged. The trunks, shared by both views, stay as they are.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from export.cohort import SOUND, Cohort
from hipnet_edge.evaluation import bootstrap
from hipnet_edge.evaluation.bootstrap import with_interval
from hipnet_edge.evaluation.causes import auc_by_cause
from hipnet_edge.vocabulary import CAUSES, VIEWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from export.backbones import Backbone

Array = NDArray[Any]

READERS = {"ap": [0], "lateral": [1], "both": [0, 1]}
PENALTIES = np.logspace(-5, -1, 5)
"""Inverse strengths of the penalty among which cross-validation chooses."""


def pooled_features(backbones: Sequence[Backbone], cohort: Cohort) -> dict[str, Array]:
    """Mean and peak of every channel of each backbone's features: name to [N, 2, 2 C]."""
    from export.backbones import open_session

    sessions = {backbone.name: open_session(backbone.model) for backbone in backbones}
    kept: dict[str, list[Array]] = {name: [] for name in sessions}
    for i in tqdm(range(len(cohort)), desc="features", unit="study", mininterval=5):
        radiographs = np.asarray(cohort.radiographs[i : i + 1], np.float32)
        for name, session in sessions.items():
            (features,) = session.run(["features"], {"radiographs": radiographs})
            pooled = [features.mean(axis=(3, 4)), features.max(axis=(3, 4))]
            kept[name].append(np.concatenate(pooled, axis=2))
    return {name: np.concatenate(parts) for name, parts in kept.items()}


def view_comparison(
    fitted_on: dict[str, Array], fitted_causes: Array, features: dict[str, Array], causes: Array
) -> dict[str, Any]:
    """Fit the three readers and compare them.

    Args:
        fitted_on: pooled features of the validation cohort, a backbone's name to [M, 2, D].
        fitted_causes: [M], sound ones are left out.
        features: the same of the cohort that is measured, [N, 2, D].
        causes: [N], sound ones are left out.
    """
    known, failed = fitted_causes != SOUND, causes != SOUND
    counts = bootstrap.draw(causes[failed])
    macro: dict[str, Array] = {}
    top1: dict[str, Array] = {}
    for reader, views in READERS.items():
        members = [
            _refitted(
                _joined(fitted_on[name][known], views),
                fitted_causes[known],
                _joined(features[name][failed], views),
            )
            for name in features
        ]
        probabilities = np.mean(members, axis=0)
        macro[reader] = auc_by_cause(counts, probabilities, causes[failed]).mean(axis=1)
        correct = probabilities.argmax(axis=1) == causes[failed]
        top1[reader] = bootstrap.mean(counts, correct)
    figures = {"macro_auc": macro, "top1_accuracy": top1}
    return {
        "definition": "decisions refitted on the validation cohort for the AP alone, the lateral "
        "alone and both, in the same way (logistic regression on each backbone's pooled features, "
        "averaged over the four); not the bundle's own decision, which is trained with the "
        "backbones. Differences are paired: both views less one.",
        "studies": {"fitted_on": int(known.sum()), "measured": int(failed.sum())},
        **{
            reader: {name: with_interval(values[reader]) for name, values in figures.items()}
            for reader in READERS
        },
        **{
            f"both_less_{view.value}": {
                name: with_interval(values["both"] - values[view.value])
                for name, values in figures.items()
            }
            for view in VIEWS
        },
    }


def _joined(features: Array, views: list[int]) -> Array:
    """[N, 2, D] to the named views' features side by side, [N, len(views) * D]."""
    return np.asarray(features[:, views].reshape(len(features), -1))


def _refitted(train: Array, causes: Array, test: Array) -> Array:
    """Probabilities [N, 5] for `test` of a logistic regression fitted on `train`."""
    model = make_pipeline(
        StandardScaler(), LogisticRegressionCV(Cs=PENALTIES, cv=5, scoring="neg_log_loss")
    )
    with warnings.catch_warnings():
        # The weakest penalties need not converge; cross-validation does not choose them.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)
        model.fit(train, causes)
    probabilities = np.zeros((len(test), len(CAUSES)))
    probabilities[:, model[-1].classes_] = model.predict_proba(test)
    return probabilities
