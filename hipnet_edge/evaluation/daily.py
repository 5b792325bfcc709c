"""Counts of a day's answers that can be added up: what drift is looked for in. No patient data.

Each score falls into one of a few fixed bins, so that days, devices and years add up exactly, and
nothing of a single study can be read back once there are several. Quantiles are worked out from the
bins. An imaging cart keeps these records in its database (`hipnet_edge.cart.daily`); for a program
of one's own, `DailyStatistics` keeps them in a file, rebuilt from stored predictions at any time.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.errors import UsageError
from hipnet_edge.fields import Fields
from hipnet_edge.vocabulary import CAUSES, VIEWS

if TYPE_CHECKING:
    from hipnet_edge.prediction import Prediction, Provenance

SCHEMA = 1
DAILY_FILE = "daily.jsonl"
"""What a cart calls the file in its data folder."""
SAVE_EVERY_S = 60.0
"""What a power cut may cost of the counts; the predictions themselves are kept elsewhere."""

_PROBABILITY = tuple(
    [0.001, 0.003, 0.01, 0.02, 0.05]
    + [round(0.1 * tenth, 1) for tenth in range(1, 10)]
    + [0.95, 0.98, 0.99, 0.997, 0.999]
)
_NOVELTY = (0.5, *(round(0.7 + 0.05 * step, 2) for step in range(17)), 1.75, 2.0, 2.5, 3.0, 5.0)
_EXPOSURE_INDEX = tuple(round(50.0 * 2.0 ** (step / 2), 1) for step in range(15))
_DEVIATION_INDEX = tuple(float(step) for step in range(-10, 11))

EDGES: dict[str, tuple[float, ...]] = {
    **{f"p_{cause.value}": _PROBABILITY for cause in CAUSES},
    "highest_probability": _PROBABILITY,
    "disagreement": _PROBABILITY,
    "sign_of_failure": _PROBABILITY,
    "novelty": _NOVELTY,
    **{f"{view.value}_exposure_index": _EXPOSURE_INDEX for view in VIEWS},
    **{f"{view.value}_deviation_index": _DEVIATION_INDEX for view in VIEWS},
}
"""What is counted, and between which values: a bin before the first edge, between each two, and
from the last on. Records of other edges do not add up: a change here is a new `SCHEMA`."""

_MOST = 10**9


@dataclass(frozen=True)
class Model:
    """What decides an answer beside the radiographs: answers of two models are never mixed."""

    bundle: str
    variant: str
    overlay: str | None

    @classmethod
    def of(cls, made_by: Provenance) -> Model:
        """The model that a result names."""
        return cls(made_by.bundle_digest, made_by.variant, made_by.overlay_digest)

    def __str__(self) -> str:
        overlay = f" with overlay {self.overlay[:12]}" if self.overlay else ""
        return f"bundle {self.bundle[:12]}, {self.variant}{overlay}"


def scores(prediction: Prediction) -> dict[str, float | None]:
    """The value of each name of `EDGES`; None where there is none."""
    values: dict[str, float | None] = {
        f"p_{cause.value}": p for cause, p in prediction.probabilities.items()
    }
    values["highest_probability"] = prediction.probabilities[prediction.leading_cause]
    values["disagreement"] = prediction.disagreement
    values["sign_of_failure"] = prediction.sign_of_failure
    values["novelty"] = prediction.novelty
    for view, record in prediction.inputs.items():
        exposure = record.exposure
        values[f"{view.value}_exposure_index"] = exposure.index if exposure else None
        values[f"{view.value}_deviation_index"] = exposure.deviation if exposure else None
    return values


@dataclass
class Statistics:
    """Counts over some answers of one model; they add up.

    Attributes:
        model: that answered.
        studies: how many were answered.
        flags: how often each was raised.
        leading: how often each cause led.
        refused: refusals by reason code.
        bins: counts by name, one more than `EDGES` of that name.
    """

    model: Model
    studies: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    leading: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    bins: dict[str, NDArray[np.int64]] = field(
        default_factory=lambda: {
            name: np.zeros(len(edges) + 1, np.int64) for name, edges in EDGES.items()
        }
    )

    @classmethod
    def over(cls, predictions: Iterable[Prediction]) -> Statistics:
        """The statistics of some predictions, as of a validation's.

        Raises:
            UsageError: there are none, or they are of several models.
        """
        found: Statistics | None = None
        for prediction in predictions:
            found = cls(Model.of(prediction.provenance)) if found is None else found
            found.add(prediction)
        if found is None:
            raise UsageError("There are no predictions to count.")
        return found

    def add(self, prediction: Prediction) -> None:
        """Count an answer.

        Raises:
            UsageError: it is of another model.
        """
        if Model.of(prediction.provenance) != self.model:
            raise UsageError("Answers of two models are not counted together.")
        self.studies += 1
        self.flags.update(flag.value for flag in prediction.flags)
        self.leading[prediction.leading_cause.value] += 1
        for name, value in scores(prediction).items():
            if value is not None:
                self.bins[name][int(np.searchsorted(EDGES[name], value, side="right"))] += 1

    def merge(self, other: Statistics) -> None:
        """Add another's counts.

        Raises:
            UsageError: they are of another model.
        """
        if other.model != self.model:
            raise UsageError("Answers of two models are not counted together.")
        self.studies += other.studies
        for name in ("flags", "leading", "refused"):
            getattr(self, name).update(getattr(other, name))
        for name, counts in other.bins.items():
            self.bins[name] += counts

    def quantile(self, name: str, part: float) -> float | None:
        """The value below which a part lies, as far as bins can tell; None where nothing counted.

        Within a bin values are taken as evenly spread; beyond the outer edges the edge is given.
        """
        counts, edges = self.bins[name], np.array(EDGES[name])
        if not counts.any():
            return None
        reached = np.concatenate(([0], np.cumsum(counts)))
        ends = np.concatenate((edges[:1], edges, edges[-1:]))
        wanted = part * reached[-1]
        one = min(int(np.searchsorted(reached[1:], wanted)), len(counts) - 1)
        within = (wanted - reached[one]) / max(counts[one], 1)
        return float(ends[one] + within * (ends[one + 1] - ends[one]))

    def to_dict(self) -> dict[str, Any]:
        """The statistics as a JSON object; quantiles are there for its reader."""
        return {
            "schema": SCHEMA,
            "model": dict(vars(self.model)),
            "studies": self.studies,
            "flags": dict(sorted(self.flags.items())),
            "leading": dict(sorted(self.leading.items())),
            "refused": dict(sorted(self.refused.items())),
            "bins": {name: counts.tolist() for name, counts in self.bins.items() if counts.any()},
            "quantiles": {
                name: [round(self.quantile(name, part) or 0.0, 4) for part in (0.1, 0.5, 0.9)]
                for name, counts in self.bins.items()
                if counts.any()
            },
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Statistics:
        """The statistics from what `to_dict` gave.

        Raises:
            HipNetError: what `fields` complains with; the field is named.
        """
        if fields.integer("schema", 0, _MOST) != SCHEMA:
            raise fields.wrong("schema", f"is not {SCHEMA}, the only one this version reads")
        model, bins = fields.child("model"), fields.child("bins")
        bins.only(*EDGES)
        found = cls(
            Model(model.text("bundle"), model.text("variant"), model.text_or_none("overlay")),
            fields.integer("studies", 0, _MOST),
        )
        for name in ("flags", "leading", "refused"):
            counted = fields.child(name)
            getattr(found, name).update({key: counted.integer(key, 0, _MOST) for key in counted})
        for name in bins:
            counts = bins.integers(name, len(EDGES[name]) + 1)
            if not all(0 <= count <= _MOST for count in counts):
                raise bins.wrong(name, "holds what is no count")
            found.bins[name] += np.array(counts)
        return found


Day = tuple[str, Model]


class DailyStatistics:
    """The days of one device: a JSON-lines file with one record a day.

    Feed it after each prediction; safe from many threads of one process. It writes the whole small
    file anew (never half of it) at most every `SAVE_EVERY_S`, on `save` and on a new day. A day on
    which the model was exchanged has two records.

    Args:
        path: the file; made if missing.
        made_by: the provenance of the predictor, whose refusals are counted.
        clock: seconds, for the pause between two writings.
    """

    def __init__(
        self, path: Path, made_by: Provenance, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path, self._model, self._clock = path, Model.of(made_by), clock
        self._lock = threading.Lock()
        self._days = read_days(path) if path.exists() else {}
        self._saved_at = clock()
        self._last: Day | None = None

    def add(self, prediction: Prediction, day: date | None = None) -> None:
        """Count an answer.

        Args:
            prediction: the answer.
            day: on which it was given; today if not given.
        """
        with self._lock:
            self._of(day, Model.of(prediction.provenance)).add(prediction)
            self._save_now_and_then()

    def refused(self, code: str, day: date | None = None) -> None:
        """Count a refusal by its reason code."""
        with self._lock:
            self._of(day, self._model).refused[code] += 1
            self._save_now_and_then()

    def rebuild(self, predictions: Mapping[date, Iterable[Prediction]]) -> None:
        """Count some days anew from stored predictions; refusals of those days are kept."""
        with self._lock:
            for day, given in predictions.items():
                before = [key for key in self._days if key[0] == day.isoformat()]
                refused = {key: self._days.pop(key).refused for key in before}
                for prediction in given:
                    self._of(day, Model.of(prediction.provenance)).add(prediction)
                for (_, model), codes in refused.items():
                    if codes:
                        self._of(day, model).refused.update(codes)
            self._save()

    def save(self) -> None:
        """Write what was counted."""
        with self._lock:
            self._save()

    def _of(self, day: date | None, model: Model) -> Statistics:
        key = ((day or date.today()).isoformat(), model)
        if self._last is not None and key != self._last:
            self._saved_at = -np.inf  # what was counted before is written with this one
        self._last = key
        return self._days.setdefault(key, Statistics(model))

    def _save_now_and_then(self) -> None:
        if self._clock() - self._saved_at >= SAVE_EVERY_S:
            self._save()

    def _save(self) -> None:
        lines = [
            as_line(day, statistics)
            for (day, _), statistics in sorted(self._days.items(), key=lambda item: item[0][0])
        ]
        part = self._path.with_name(self._path.name + ".part")
        with part.open("w", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
        self._saved_at = self._clock()


def as_line(day: str, statistics: Statistics) -> str:
    """A day's record as a line of a daily file."""
    return json.dumps({"day": day, **statistics.to_dict()}) + "\n"


def from_line(line: str, where: str) -> tuple[str, Statistics]:
    """A day (ISO 8601) and its record, from what `as_line` gave.

    Raises:
        UsageError: it is none; `where` is named.
    """
    fields = _fields(line, where)
    return fields.text("day"), Statistics.from_fields(fields)


def read_days(path: Path) -> dict[Day, Statistics]:
    """The records of a daily file.

    Raises:
        UsageError: it cannot be read or is none; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read.") from error
    days: dict[Day, Statistics] = {}
    for number, line in enumerate(lines, 1):
        day, statistics = from_line(line, f"line {number} of {path}")
        days.setdefault((day, statistics.model), Statistics(statistics.model)).merge(statistics)
    return days


def read_statistics(path: Path) -> Statistics:
    """A baseline, as `drift --make-baseline` wrote it.

    Raises:
        UsageError: it cannot be read or is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read.") from error
    return Statistics.from_fields(_fields(text, str(path)))


def _fields(text: str, where: str) -> Fields:
    def complain(what: str) -> UsageError:
        return UsageError(f"There are no daily statistics in {where}: {what}")

    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise complain("it is not JSON") from error
    return Fields(value, "", complain)
