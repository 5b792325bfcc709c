"""What a bundle answered for every study of a cohort, beside what is true of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.cohort import SOUND, Cohort
from hipnet_edge.backends import Backend
from hipnet_edge.decision import Decision
from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]

OUTPUTS = ("probabilities", "member_probabilities", "maps", "novelty")


@dataclass(frozen=True)
class Outcome:
    """N studies: answers and truth.

    Attributes:
        probabilities: [N, 5].
        member_probabilities: [N, 4, 5].
        maps: float32 [N, 2, 5, h, w].
        novelty: [N], or None where the bundle has no such output.
        causes: [N], index into `CAUSES` or `SOUND`.
        occupancy: [N, 2, h, w], diseased part of each cell of the maps.
        table: what else is known of each study, [N] by column.
    """

    probabilities: Array
    member_probabilities: Array
    maps: Array
    novelty: Array | None
    causes: Array
    occupancy: Array
    table: dict[str, Array]

    def __len__(self) -> int:
        return len(self.causes)

    @property
    def failed(self) -> Outcome:
        """The studies with a cause of failure: those about which probabilities speak."""
        return self.subset(self.causes != SOUND)

    @property
    def correct(self) -> Array:
        """Whether the leading cause is the true one, bool [N]."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.causes)

    def subset(self, keep: Array) -> Outcome:
        """The studies of a mask [N] or of indices."""
        return Outcome(
            self.probabilities[keep],
            self.member_probabilities[keep],
            self.maps[keep],
            None if self.novelty is None else self.novelty[keep],
            self.causes[keep],
            self.occupancy[keep],
            {name: column[keep] for name, column in self.table.items()},
        )

    def numbers(self, column: str) -> Array:
        """A column as float64 [N]; NaN where it is empty."""
        values = self.table[column]
        if values.dtype.kind in "US":
            values = np.where(np.char.strip(values) == "", "nan", values)
        return values.astype(np.float64)

    def words(self, column: str) -> Array:
        """A column as str [N]."""
        return np.asarray(self.table[column].astype(str))

    def plausible(self, decision: Decision) -> Array:
        """Which causes are in each study's conformal set, as a prediction says it: bool [N, 5]."""
        sets = [
            decision.plausible_causes(dict(zip(CAUSES, map(float, row), strict=True)))
            for row in self.probabilities
        ]
        return np.array([[cause in plausible for cause in CAUSES] for plausible in sets])

    def true_maps(self) -> Array:
        """The maps [N, 2, h, w] of each study's own cause; there must be no sound study."""
        return np.asarray(self.maps[np.arange(len(self)), :, self.causes])


def infer_cohort(backend: Backend, cohort: Cohort) -> dict[str, Array]:
    """A backend's outputs for every study, as arrays by name."""
    kept: dict[str, list[Array]] = {}
    for i in tqdm(range(len(cohort)), desc="studies", unit="study", mininterval=5):
        outputs = backend.infer(np.asarray(cohort.radiographs[i : i + 1], np.float32))
        for name in OUTPUTS:
            value = getattr(outputs, name, None)
            if value is not None:
                kept.setdefault(name, []).append(value)
    return {name: np.concatenate(parts) for name, parts in kept.items()}


def outcome(answers: dict[str, Array], cohort: Cohort) -> Outcome:
    """Answers beside the truth of the cohort they are about."""
    return Outcome(
        probabilities=answers["probabilities"],
        member_probabilities=answers["member_probabilities"],
        maps=answers["maps"],
        novelty=answers.get("novelty"),
        causes=np.asarray(cohort.causes),
        occupancy=np.asarray(cohort.occupancy, np.float32),
        table=cohort.table,
    )


def remembered(
    file: Path | None, key: dict[str, Any], make: Callable[[], dict[str, Array]]
) -> dict[str, Array]:
    """Arrays from a file made with the same key; else they are made, and kept there.

    An inference over thousands of studies takes many minutes, the figures from it seconds.
    """
    text = json.dumps(key, sort_keys=True)
    if file is not None and file.exists():
        with np.load(file) as kept:
            if str(kept["key"]) == text:
                return {name: kept[name] for name in kept.files if name != "key"}
    arrays = make()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, key=np.array(text), **arrays)  # type: ignore[arg-type]
    return arrays
