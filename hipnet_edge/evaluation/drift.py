"""Whether a device's recent answers are still those of its acceptance, said in words.

Every score's distribution is compared by the two-sample Kolmogorov-Smirnov test on the common bins,
every flag and the refusals by Fisher's exact test; Holm's correction keeps the chance of any false
alarm in one comparison below `ALPHA`, however many are compared. Binning makes the first test more
cautious, never less. The population stability index says how large a change is; as it grows by
chance alone where studies are few, it never raises an alarm by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.errors import UsageError
from hipnet_edge.evaluation.daily import DAILY_FILE, EDGES, Day, Model, Statistics, read_days
from hipnet_edge.prediction import Prediction

Array = NDArray[Any]

ALPHA = 0.05
"""The most that the chance of an alarm in one comparison may be where nothing has changed."""
FEWEST_RECENT, FEWEST_BASELINE = 30, 100
LARGE_INDEX, LARGE_DIFFERENCE = 0.1, 0.05
"""Above these a change that is no chance is one to worry about: population stability index, and
the part of the studies that carry a flag."""
_SMALLEST_GROUP = 0.1
"""Of the baseline, in each group of bins over which the population stability index is summed."""


class Concern(str, Enum):
    """Whether to worry."""

    NOT_COMPARABLE = "not_comparable"
    TOO_FEW = "too_few"
    NONE = "none"
    WATCH = "watch"
    WORRY = "worry"


@dataclass(frozen=True)
class Change:
    """One comparison.

    Attributes:
        what: a name of `EDGES`, "flag ..." or "refused".
        baseline: the median, or the part of the studies.
        recent: likewise.
        size: population stability index, or the difference of the parts.
        p: of the test alone.
        adjusted: after Holm's correction over all comparisons.
        concern: NONE, WATCH (no chance, but small) or WORRY.
    """

    what: str
    baseline: float
    recent: float
    size: float
    p: float
    adjusted: float = 1.0
    concern: Concern = Concern.NONE

    def to_dict(self) -> dict[str, Any]:
        """The comparison as a JSON object."""
        numbers = ("baseline", "recent", "size", "p", "adjusted")
        return {
            "what": self.what,
            **{name: float(f"{getattr(self, name):.4g}") for name in numbers},
            "concern": self.concern.value,
        }


@dataclass(frozen=True)
class DriftReport:
    """What came of comparing recent answers with the baseline.

    Attributes:
        concern: whether to worry.
        words: the same for a person.
        baseline: its number of studies.
        recent: likewise.
        changes: every comparison, the least likely by chance first.
    """

    concern: Concern
    words: str
    baseline: int
    recent: int
    changes: tuple[Change, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {
            "concern": self.concern.value,
            "words": self.words,
            "baseline_studies": self.baseline,
            "recent_studies": self.recent,
            "alpha": ALPHA,
            "changes": [change.to_dict() for change in self.changes],
        }

    def in_words(self) -> str:
        """The report for a terminal."""
        lines = [self.words, ""]
        if self.changes:
            lines.append(f"  {'':<28}  baseline    recent    size   p (corrected)")
        for change in self.changes[:12]:
            mark = "!" if change.concern in (Concern.WATCH, Concern.WORRY) else " "
            lines.append(
                f"{mark} {change.what.replace('_', ' '):<28}  {change.baseline:8.3f}  "
                f"{change.recent:8.3f}  {change.size:6.3f}   {change.adjusted:.3g}"
            )
        return "\n".join(lines).rstrip()


def compare(baseline: Statistics, recent: Statistics) -> DriftReport:
    """Compare recent answers with those of the acceptance."""
    sizes = baseline.studies, recent.studies
    if baseline.model != recent.model:
        words = (
            f"Not comparable: the baseline is of {baseline.model}, recent answers are of "
            f"{recent.model}. Make a new baseline for it."
        )
        return DriftReport(Concern.NOT_COMPARABLE, words, *sizes, ())
    changes = _judged([*_distributions(baseline, recent), *_parts(baseline, recent)])
    if recent.studies < FEWEST_RECENT or baseline.studies < FEWEST_BASELINE:
        words = (
            f"Too few to tell: {recent.studies} recent studies and {baseline.studies} of the "
            f"baseline; at least {FEWEST_RECENT} and {FEWEST_BASELINE} are needed."
        )
        return DriftReport(Concern.TOO_FEW, words, *sizes, changes)
    named = {
        concern: [change.what.replace("_", " ") for change in changes if change.concern is concern]
        for concern in (Concern.WORRY, Concern.WATCH)
    }
    if named[Concern.WORRY]:
        words = (
            f"Worry: {', '.join(named[Concern.WORRY])} changed since the acceptance, by more than "
            "chance and by much. Look at these studies, at what changed in the department "
            "(detector, protocol, patients), and validate again before trusting answers."
        )
        return DriftReport(Concern.WORRY, words, *sizes, changes)
    if named[Concern.WATCH]:
        words = (
            f"Watch: {', '.join(named[Concern.WATCH])} changed since the acceptance, by more than "
            "chance but by little."
        )
        return DriftReport(Concern.WATCH, words, *sizes, changes)
    words = (
        f"No sign of drift in {recent.studies} studies. In so few a distribution must shift by "
        f"about {100 * _seen_from(*sizes, len(changes)):.0f} points in a hundred to be noticed."
    )
    return DriftReport(Concern.NONE, words, *sizes, changes)


def _distributions(baseline: Statistics, recent: Statistics) -> Iterable[Change]:
    from scipy.stats import kstwobign

    for name in EDGES:
        old, new = baseline.bins[name], recent.bins[name]
        m, n = int(old.sum()), int(new.sum())
        if m < FEWEST_BASELINE or n < FEWEST_RECENT:
            continue
        distance = float(np.abs(np.cumsum(old) / m - np.cumsum(new) / n).max())
        yield Change(
            name,
            baseline.quantile(name, 0.5) or 0.0,
            recent.quantile(name, 0.5) or 0.0,
            stability_index(old, new),
            float(kstwobign.sf(distance * np.sqrt(m * n / (m + n)))),
        )


def stability_index(old: Array, new: Array) -> float:
    """The population stability index, over groups of at least a tenth of the baseline.

    Half a study is added to every group, so that an empty one has a logarithm.
    """
    starts, filled = [0], 0
    for place, count in enumerate(old):
        filled += int(count)
        if filled >= _SMALLEST_GROUP * old.sum() and old[place + 1 :].sum() >= (
            _SMALLEST_GROUP * old.sum()
        ):
            starts.append(place + 1)
            filled = 0
    groups = [np.add.reduceat(counts, starts) + 0.5 for counts in (old, new)]
    p, q = (counts / counts.sum() for counts in groups)
    return float(((q - p) * np.log(q / p)).sum())


def _parts(baseline: Statistics, recent: Statistics) -> Iterable[Change]:
    """Flags among the answered studies, and refusals among all."""
    m, n = baseline.studies, recent.studies
    for flag in sorted({*baseline.flags, *recent.flags}):
        yield from _part(f"flag {flag}", baseline.flags[flag], m, recent.flags[flag], n)
    gone = baseline.refused.total(), recent.refused.total()
    yield from _part("refused", gone[0], m + gone[0], gone[1], n + gone[1])


def _part(what: str, old: int, m: int, new: int, n: int) -> Iterable[Change]:
    from scipy.stats import fisher_exact

    always, never = old == m and new == n, old == 0 and new == 0
    if always or never or not m or not n:
        return  # nothing that could have changed
    p = float(fisher_exact([[old, m - old], [new, n - new]]).pvalue)
    yield Change(what, old / m, new / n, new / n - old / m, p)


def _judged(changes: Sequence[Change]) -> tuple[Change, ...]:
    """With Holm's correction (Scand J Statist 1979), and what each means."""
    ordered, floor, judged = sorted(changes, key=lambda change: change.p), 0.0, []
    for place, change in enumerate(ordered):
        floor = max(floor, min(1.0, change.p * (len(ordered) - place)))
        concern = Concern.NONE
        if floor < ALPHA:
            limit = LARGE_INDEX if change.what in EDGES else LARGE_DIFFERENCE
            concern = Concern.WORRY if abs(change.size) >= limit else Concern.WATCH
        judged.append(
            Change(
                change.what, change.baseline, change.recent, change.size, change.p, floor, concern
            )
        )
    return tuple(judged)


def _seen_from(m: int, n: int, comparisons: int) -> float:
    """The Kolmogorov-Smirnov distance from which one distribution alone gives an alarm."""
    from scipy.stats import kstwobign

    return float(kstwobign.isf(ALPHA / max(comparisons, 1)) * np.sqrt((m + n) / (m * n)))


def recent_statistics(path: Path, days: int, model: Model | None = None) -> Statistics:
    """What is to be compared: the last days of a daily file, or a folder of results.

    Args:
        path: a daily file (JSON lines), a cart's data folder, or a folder of daily files or of
            results as JSON.
        days: how many of the last days on record count; results in a folder count all.
        model: of the baseline; where there are answers of it, only those count.

    Raises:
        UsageError: nothing is there, or what is there cannot be read.
    """
    files = [path]
    if path.is_dir():
        of_cart = path / DAILY_FILE  # beside its audit file, which is JSON lines too
        files = [of_cart] if of_cart.exists() else sorted(path.glob("*.jsonl"))
    if not files:
        return _of_results(sorted(path.glob("**/*.json")), path)
    records: list[tuple[Day, Statistics]] = []
    for file in files:
        records += read_days(file).items()
    last = sorted({day for (day, _), _ in records})[-days:]
    kept = [statistics for (day, _), statistics in records if day in last]
    models = {statistics.model for statistics in kept}
    if model is None and len(models) > 1:
        raise UsageError("These days have answers of several models; a baseline is of one.")
    if not kept:
        raise UsageError(f"{path} has no day on record.")
    wanted = model if model in models else kept[-1].model
    found = Statistics(wanted)
    for statistics in kept:
        if statistics.model == wanted:
            found.merge(statistics)
    return found


def _of_results(files: Sequence[Path], folder: Path) -> Statistics:
    predictions, refused = [], []
    for file in files:
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{file} cannot be read as JSON.") from error
        if isinstance(value, dict) and isinstance(value.get("error"), dict):
            refused.append(str(value["error"].get("code")))
        elif isinstance(value, dict):
            value.pop("maps", None)
            predictions.append(Prediction.from_dict(value))
    if not predictions:
        raise UsageError(f"{folder} holds neither daily statistics nor results.")
    found = Statistics.over(predictions)
    found.refused.update(refused)
    return found
