"""A site's own calibration: fitted on its cases, judged on cases that it was not fitted on.

Temperatures are fitted on all failed studies, and stay the bundle's where others are not shown to
be better. Thresholds and the conformal set come from probabilities of studies that no temperature
was fitted to: the patients are cut into folds, and those of each fold are answered with the
temperatures of the others. What the calibration gains is measured the same way, once more around
all of it. Maps, novelty and sign of failure are not fitted.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge import __version__
from hipnet_edge.errors import InputRefused, Reason, UsageError
from hipnet_edge.evaluation.calibration import (
    COVERAGE,
    HIGHEST,
    LOWEST,
    cause_thresholds,
    conformal_threshold,
    fit_temperatures,
)
from hipnet_edge.evaluation.gain import Calibrated, changes
from hipnet_edge.evaluation.outcome import exchanged_labels, no_better_than_chance
from hipnet_edge.evaluation.run import radiograph
from hipnet_edge.evaluation.sample import SOUND, Sample
from hipnet_edge.overlay import Overlay, at_temperatures, fused, image_names
from hipnet_edge.vocabulary import CAUSES, VIEWS
from hipnet_edge.workers import Workers

if TYPE_CHECKING:
    from hipnet_edge.bundle import Bundle
    from hipnet_edge.decision import Decision
    from hipnet_edge.evaluation.table import CohortRow
    from hipnet_edge.prediction import Prediction, Provenance
    from hipnet_edge.predictor import Predictor

Array = NDArray[Any]

FEWEST_PATIENTS = 20
"""Of each cause; with fewer no calibration is fitted."""
FEW_PATIENTS = 50
"""Of each cause; with fewer the overlay says that its thresholds are uncertain."""
FOLDS = 5


@dataclass(frozen=True)
class Answered:
    """A study of known cause and what the bundle, without any overlay, said of it.

    Attributes:
        cause: index into `CAUSES`.
        patient: equal for the studies of one patient.
        prediction: without its maps.
    """

    cause: int
    patient: int
    prediction: Prediction


def answer_failed(
    predictor: Predictor, rows: Iterable[CohortRow], progress: Callable[[], object]
) -> tuple[list[Answered], Counter[str]]:
    """Predict the failed studies of a table.

    Returns:
        The answers, and how many studies have no part in the fit, by the reason.

    Raises:
        EngineUnusable: the engine is gone.
    """
    skipped: Counter[str] = Counter()
    answers: list[Answered] = []

    def answer(row: CohortRow) -> Answered | str:
        if row.cause == SOUND:
            return "none"
        try:
            ap, lateral = (radiograph(row, view) for view in VIEWS)
            prediction = predictor.predict(ap, lateral, laterality=row.side)
        except InputRefused as refusal:
            return refusal.code.value
        return Answered(row.cause, row.patient, replace(prediction, maps={}))

    workers = Workers(predictor.threads)
    try:
        ahead = 0 if workers.limit == 1 else workers.limit
        for answered in workers.ahead(answer, rows, ahead):
            if isinstance(answered, str):
                skipped[answered] += 1
            else:
                answers.append(answered)
            progress()
    finally:
        workers.close()
    return answers, skipped


@dataclass(frozen=True)
class Fit:
    """What an overlay puts in place of the bundle's calibration.

    Attributes:
        temperatures: [4], relative to the bundle's.
        thresholds: by cause.
        conformal_threshold: the largest 1 - p with which a cause is plausible.
    """

    temperatures: Array
    thresholds: Mapping[str, float]
    conformal_threshold: float


@dataclass(frozen=True)
class _Studies:
    """N studies: member probabilities [N, 4, 5], causes [N], patients [N]; weights [4]."""

    members: Array
    causes: Array
    patients: Array
    weights: Array

    def __getitem__(self, keep: Array) -> _Studies:
        return _Studies(self.members[keep], self.causes[keep], self.patients[keep], self.weights)

    def temperatures(self) -> Array:
        # A probability of 0 would have no logarithm; at_temperatures has the same floor.
        logs = np.log(np.maximum(self.members, np.finfo(np.float32).tiny)).transpose(1, 0, 2)
        return fit_temperatures(logs, self.causes, self.weights)

    def at(self, temperatures: Array) -> Array:
        return fused(at_temperatures(self.members, temperatures), self.weights)

    def folds(self, seed: int) -> Array:
        """A fold [N] for each study: a patient's all in one, every cause spread over all."""
        patients, first = np.unique(self.patients, return_index=True)
        order = np.random.default_rng(seed).permutation(len(patients))
        order = order[np.argsort(self.causes[first][order], kind="stable")]
        fold = np.empty(len(patients), int)
        fold[order] = np.arange(len(patients)) % FOLDS
        return np.asarray(fold[np.searchsorted(patients, self.patients)])

    def _better(self, probabilities: Array, others: Array) -> bool:
        """Whether log loss is lower by two standard errors, a patient's studies taken together."""
        own = np.arange(len(self.causes)), self.causes
        losses = [-np.log(np.maximum(p[own], 1e-12)) for p in (probabilities, others)]
        _, which = np.unique(self.patients, return_inverse=True)
        gain = np.bincount(which, losses[1] - losses[0])
        return bool(gain.mean() > 2.0 * gain.std(ddof=1) / np.sqrt(len(gain)))

    def apart(self, seed: int) -> Array:
        """Probabilities [N, 5] of each study at temperatures that it took no part in."""
        fold, found = self.folds(seed), np.empty((len(self.causes), len(CAUSES)))
        for one in range(FOLDS):
            own = fold == one
            found[own] = self[own].at(self[~own].temperatures())
        return found

    def fit(self, seed: int = 1) -> Fit:
        """Temperatures other than the bundle's only where they are shown to be better.

        A bundle was fitted on more studies than a site has; on fewer, the rule of succession makes
        a right one less sure than it may be.
        """
        unchanged = np.ones(len(self.weights))
        apart, of_bundle = self.apart(seed), self.at(unchanged)
        better = self._better(apart, of_bundle)
        apart = apart if better else of_bundle
        return Fit(
            self.temperatures() if better else unchanged,
            cause_thresholds(apart, self.causes),
            conformal_threshold(apart, self.causes, COVERAGE),
        )


def fit_overlay(
    bundle: Bundle,
    made_by: Provenance,
    answers: Sequence[Answered],
    skipped: Mapping[str, int],
    *,
    table_sha256: str = "",
    trust_labels: bool = False,
) -> Overlay:
    """Fit a site's calibration and say what it gains.

    Args:
        bundle: that answered.
        made_by: the provenance of its answers.
        answers: of failed studies.
        skipped: how many studies of the table have no answer, by the reason.
        table_sha256: of the table.
        trust_labels: the labels are right even where they look exchanged.

    Raises:
        UsageError: CALIBRATION_REFUSED, with the reason; or the bundle has no calibration, or the
            answers were given with an overlay.
    """
    decision = bundle.manifest.decision
    if decision is None:
        raise UsageError(f"The bundle {bundle.manifest.name} has no calibration to fit anew.")
    if made_by.overlay_digest is not None:
        raise UsageError("An overlay is fitted on the answers of the bundle alone.")
    kept, repeated = _each_once(answers)
    skipped = {**skipped, **({"same_radiographs_twice": repeated} if repeated else {})}
    studies = _studies(kept, bundle)
    _require_enough(studies)
    before = Sample.of(studies.at(np.ones(len(studies.weights))), studies.causes,
                       studies.patients, {})  # fmt: skip
    unfit = "" if trust_labels else exchanged_labels(before) or no_better_than_chance(before)
    if not unfit and not _within(studies.temperatures()):
        unfit = (
            "The answers and the causes of this cohort do not fit each other: no temperature "
            "makes them agree. Are the causes right, and those of these files?"
        )
    if unfit:
        raise UsageError(unfit, Reason.CALIBRATION_REFUSED)
    fit = studies.fit()
    figures = _gain(studies, before.counts, decision)
    names = [backbone.name for backbone in bundle.manifest.backbones]
    salt = secrets.token_hex(16)
    content = {
        "bundle": {
            "name": made_by.bundle_name,
            "version": made_by.bundle_version,
            "digest": made_by.bundle_digest,
        },
        "variant": made_by.variant,
        "engine": {
            "name": made_by.backend,
            "version": made_by.backend_version,
            "device": made_by.device,
        },
        "package_version": __version__,
        "created": date.today().isoformat(),
        "intended_use": "Only at the site whose studies it was fitted on, with the bundle, and for "
        f"what that is intended for: {made_by.intended_use}",
        "temperatures": dict(zip(names, fit.temperatures.tolist(), strict=True)),
        "thresholds": dict(fit.thresholds),
        "conformal": {"coverage": COVERAGE, "threshold": fit.conformal_threshold},
        "fitted_on": {
            "table_sha256": table_sha256,
            "studies": len(kept),
            "patients": len(np.unique(studies.patients)),
            "by_cause": {c.value: int((studies.causes == k).sum()) for k, c in enumerate(CAUSES)},
            "without_part": dict(skipped),
            "salt": salt,
            "images": sorted(
                {
                    name
                    for one in kept
                    for record in one.prediction.inputs.values()
                    for name in image_names(record, salt)
                }
            ),
        },
        "figures": figures,
        "notices": _notices(studies, fit, figures, skipped),
    }
    return Overlay.from_content(content)


def _studies(answers: Sequence[Answered], bundle: Bundle) -> _Studies:
    names = [backbone.name for backbone in bundle.manifest.backbones]
    members = [
        [[one.prediction.member_probabilities[name][cause] for cause in CAUSES] for name in names]
        for one in answers
    ]
    return _Studies(
        np.array(members, float).reshape(len(answers), len(names), len(CAUSES)),
        np.array([one.cause for one in answers], int),
        np.array([one.patient for one in answers], int),
        np.array(bundle.manifest.fusion_weights),
    )


def _each_once(answers: Sequence[Answered]) -> tuple[list[Answered], int]:
    """Studies whose images no other one holds too: nobody knows which of their labels is right."""
    names = [
        {name for record in one.prediction.inputs.values() for name in image_names(record, "")}
        for one in answers
    ]
    times = Counter(name for images in names for name in images)
    kept = [
        one
        for one, images in zip(answers, names, strict=True)
        if all(times[name] == 1 for name in images)
    ]
    return kept, len(answers) - len(kept)


def _require_enough(studies: _Studies) -> None:
    few = [
        f"{cause.label.lower()} {patients}"
        for k, cause in enumerate(CAUSES)
        if (patients := len(np.unique(studies.patients[studies.causes == k]))) < FEWEST_PATIENTS
    ]
    if few:
        raise UsageError(
            f"Too few patients to calibrate on: {', '.join(few)}. Of every cause at least "
            f"{FEWEST_PATIENTS} patients with answered studies are needed; until then the bundle's "
            "own calibration is the better one.",
            Reason.CALIBRATION_REFUSED,
        )


def _within(temperatures: Array) -> bool:
    return bool(((temperatures > 1.05 * LOWEST) & (temperatures < 0.95 * HIGHEST)).all())


def _gain(studies: _Studies, counts: Array, decision: Decision) -> dict[str, Any]:
    """What the site's calibration changes, each study answered by one that it was not fitted on."""
    given = {cause.value: limit for cause, limit in decision.thresholds.items()}
    unchanged = studies.at(np.ones(len(studies.weights)))
    before = Calibrated.under(unchanged, given, decision.conformal_threshold)
    fold, parts = studies.folds(seed=2), []
    for one in range(FOLDS):
        fit, own = studies[fold != one].fit(), studies[fold == one]
        parts.append(
            Calibrated.under(own.at(fit.temperatures), fit.thresholds, fit.conformal_threshold)
        )
    order = np.argsort(np.concatenate([np.flatnonzero(fold == one) for one in range(FOLDS)]))
    return changes(before, Calibrated.together(parts, order), studies.causes, counts)


def _notices(
    studies: _Studies, fit: Fit, figures: Mapping[str, Any], skipped: Mapping[str, int]
) -> list[str]:
    """What the overlay's user should know, in sentences."""
    said = []
    low, high = figures["log_loss"]["change"]["ci95"]
    if (fit.temperatures == 1.0).all():
        said.append(
            "Probabilities stay the bundle's: no other temperatures were shown to be better. Only "
            "thresholds and the conformal set are the site's."
        )
    elif low > 0:
        said.append("WORSE than the bundle's own calibration on these studies: do not use it.")
    elif high >= 0:
        said.append(
            "Not shown to be better than the bundle's own calibration: the interval of the change "
            "in log loss reaches 0. Use the bundle alone, or calibrate on more studies."
        )
    few = [
        f"{cause.label.lower()} {patients}"
        for k, cause in enumerate(CAUSES)
        if (patients := len(np.unique(studies.patients[studies.causes == k]))) < FEW_PATIENTS
    ]
    if few:
        said.append(
            f"Fewer than {FEW_PATIENTS} patients with {', '.join(few)}: thresholds are uncertain."
        )
    apart = {reason: n for reason, n in skipped.items() if n and reason != "none"}
    if apart:
        words = ", ".join(f"{reason} {n}" for reason, n in sorted(apart.items()))
        said.append(f"{sum(apart.values())} studies had no part in the fit: {words}.")
    return said
