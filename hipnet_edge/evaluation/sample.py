"""The answered studies of a cohort beside what is true of them, and figures with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.evaluation import bootstrap
from hipnet_edge.evaluation.figure import (
    BOOTSTRAP,
    BOOTSTRAP_LOGIT,
    DELONG,
    FEW_PATIENTS,
    FEWEST_PATIENTS,
    NEWCOMBE,
    WILSON,
    WILSON_CLUSTERED,
    Figure,
    few_words,
    percentiles,
    refused,
)
from hipnet_edge.evaluation.intervals import (
    delong,
    effective_studies,
    logit_interval,
    newcombe_area,
    wilson,
)

Array = NDArray[Any]

SOUND = -1
"""In place of a cause's index: the prosthesis has not failed."""


@dataclass(frozen=True)
class Sample:
    """N answered studies.

    Attributes:
        probabilities: float64 [N, 5].
        causes: [N], index into `CAUSES` or `SOUND`.
        patients: [N], equal for the studies of one patient, numbered as they first appear.
        counts: [R, N], how often each study is in each resample; row 0 is all ones.
        columns: what else is known of each study, [N] by name.
    """

    probabilities: Array
    causes: Array
    patients: Array
    counts: Array
    columns: Mapping[str, Array]

    @classmethod
    def of(
        cls, probabilities: Array, causes: Array, patients: Array, columns: Mapping[str, Array]
    ) -> Sample:
        """A sample with its resamples drawn: patients within causes."""
        counts = bootstrap.draw(causes, clusters=patients)
        return cls(probabilities, causes, patients, counts, columns)

    def __len__(self) -> int:
        return len(self.causes)

    def subset(self, keep: Array) -> Sample:
        """The studies of a mask [N], in the same resamples."""
        return Sample(
            self.probabilities[keep],
            self.causes[keep],
            self.patients[keep],
            self.counts[:, keep],
            {name: column[keep] for name, column in self.columns.items()},
        )

    @property
    def failed(self) -> Sample:
        """The studies with a cause of failure: those about which probabilities speak."""
        return self.subset(self.causes != SOUND)

    @property
    def correct(self) -> Array:
        """Whether the leading cause is the true one, bool [N]."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.causes)

    @property
    def clustered(self) -> bool:
        """Whether a patient has more than one study."""
        return len(np.unique(self.patients)) < len(self)

    def patients_in(self, own: Array) -> int:
        """How many patients the studies of a mask [N] are of."""
        return len(np.unique(self.patients[own]))

    def proportion(self, right: Array, own: Array | None = None) -> Figure:
        """The part of the studies of a mask [N] for which `right` [N] holds, Wilson's interval.

        Where patients have several studies the number of studies is divided by the design effect.
        """
        own = np.ones(len(self), bool) if own is None else own
        if not own.any():
            return refused("No study to speak of.")
        hit = right[own]
        rows = bootstrap.mean(self.counts[:, own], hit.astype(float))
        return proportion(hit, self.patients[own], rows)

    def resampled(self, rows: Array, groups: Sequence[Array] | None = None) -> Figure:
        """A figure worked out for every resample.

        Args:
            rows: [R], the figure itself first.
            groups: masks [N] of the studies that it is over; each must have patients enough.
        """
        groups = [np.ones(len(self), bool)] if groups is None else groups
        patients = min(self.patients_in(group) for group in groups)
        studies = int(np.any(groups, axis=0).sum())
        if not np.isfinite(rows[0]):
            return refused("It has no value over these studies.", studies)
        interval = percentiles(rows) if patients >= FEWEST_PATIENTS else None
        note = few_words(patients)
        if interval is not None and interval[0] == interval[1]:
            interval, note = None, "No interval: every resample gives the same."
        method = BOOTSTRAP if interval else ""
        return Figure(float(rows[0]), interval, method, studies, patients, note)

    def area(
        self, scores: Array, positive: Array, missing: str, rows: Array | None = None
    ) -> Figure:
        """The area under the ROC curve of `scores` [N] for `positive` bool [N].

        DeLong's interval where each patient has one study, else the bootstrap's, both on the logit
        scale. Newcombe's where either kind has few patients, as it is then the only one that is
        not too narrow, and where the two are told apart without an error.

        Args:
            scores: larger is more likely positive.
            positive: which are.
            missing: why there is no figure where all are positive or none.
            rows: [R], the area of every resample, where it is known already.
        """
        groups = [positive, ~positive]
        if not all(group.any() for group in groups):
            return refused(missing, len(self))
        rows = bootstrap.auc(self.counts, scores, positive) if rows is None else rows
        resampled = self.resampled(rows, groups)
        value, patients = resampled.value, resampled.patients
        if value is None or patients < FEWEST_PATIENTS:
            return resampled
        if value in (0.0, 1.0) or patients < FEW_PATIENTS:
            sizes = [self.patients_in(group) for group in groups]
            interval, method = newcombe_area(value, sizes[0], sizes[1]), NEWCOMBE
        elif not self.clustered:
            interval, method = delong(scores, positive).interval(), DELONG
        else:
            return on_logit_scale(resampled, rows)
        also = {} if resampled.interval is None else {BOOTSTRAP: resampled.interval}
        return Figure(value, interval, method, len(self), patients, few_words(patients), also)


def on_logit_scale(figure: Figure, rows: Array) -> Figure:
    """A resampled area with the bootstrap's standard error on the logit scale.

    The percentiles stand beside it.
    """
    if figure.interval is None or figure.value is None or not 0.0 < figure.value < 1.0:
        return figure
    interval = logit_interval(figure.value, float(np.nanstd(rows[1:], ddof=1)))
    also = {BOOTSTRAP: figure.interval}
    return replace(figure, interval=interval, method=BOOTSTRAP_LOGIT, also=also)


def proportion(hit: Array, patients: Array, rows: Array) -> Figure:
    """A part of the whole with Wilson's interval.

    Args:
        hit: bool [N], of studies or views.
        patients: [N].
        rows: [R], the same figure of every resample.
    """
    n, distinct, value = len(hit), len(np.unique(patients)), float(hit.mean())
    worth = effective_studies(hit, patients)
    also = percentiles(rows)
    return Figure(
        value,
        wilson(value * worth, worth),
        WILSON if distinct == n else WILSON_CLUSTERED,
        n,
        distinct,
        # Wilson's interval is right for any number of studies; it is only wide.
        few_words(max(distinct, FEWEST_PATIENTS)) and f"Only {distinct} patients.",
        {} if also is None or distinct < FEWEST_PATIENTS else {BOOTSTRAP: also},
    )
