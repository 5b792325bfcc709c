"""Answers beside labels: which studies count, which do not and why, and a table of them all."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.errors import Reason
from hipnet_edge.evaluation.causes import confusion
from hipnet_edge.evaluation.maps import MaskedMaps
from hipnet_edge.evaluation.run import (
    ANSWERED,
    PROBABILITIES,
    Answer,
    CohortRun,
    write_whole,
)
from hipnet_edge.evaluation.sample import SOUND, Sample
from hipnet_edge.evaluation.table import NUMBERS, WORDS, CohortRow, CohortTable
from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]

SAME_STUDY = "same_radiographs_twice"
OTHER_LABEL = "same_radiographs_other_cause"
RESULTS_NAME = "results.csv"
LEFT_OUT_WORDS = {
    "refused": "refused",
    "missing": "files missing",
    "failed": "failed in the engine",
    "excluded": "given twice",
}
_RESULT_FIELDS = (
    *("line", "status", "code", "cause", "leading", "patient", *PROBABILITIES, "disagreement"),
    *("novelty", "sign_of_failure", "flags", "side", *WORDS, *NUMBERS, "masks", "total_ms"),
    *("ap_image", "lateral_image"),
)


@dataclass(frozen=True)
class LeftOut:
    """A study without a part in the figures: its line, and why."""

    line: int
    status: str
    code: str


@dataclass(frozen=True)
class Outcome:
    """A cohort with its answers.

    Attributes:
        table: all of its rows.
        answers: by line.
        sample: the studies that count, in the order of the table.
        rows: the table's rows of the sample's studies.
        left_out: all others.
        masked: maps beside masks, over the failed studies of the sample; None without masks.
    """

    table: CohortTable
    answers: Mapping[int, Answer]
    sample: Sample
    rows: tuple[CohortRow, ...]
    left_out: tuple[LeftOut, ...]
    masked: MaskedMaps | None

    def notices(self) -> list[str]:
        """What to know about studies without a part, and about masks."""
        said = []
        wrong_view = sum(one.code == Reason.WRONG_VIEW.value for one in self.left_out)
        if wrong_view * 2 > len(self.table.rows):
            said.append(
                f"{wrong_view} of {len(self.table.rows)} studies were refused because a view is "
                "not the one stated: are the columns ap and lateral exchanged?"
            )
        twice = Counter(one.code for one in self.left_out)
        if twice[SAME_STUDY]:
            said.append(
                f"{twice[SAME_STUDY]} studies hold the same radiographs as an earlier one: "
                "each counts once."
            )
        if twice[OTHER_LABEL]:
            said.append(
                f"{twice[OTHER_LABEL]} studies hold the same radiographs as another one with "
                "another cause: none of them counts."
            )
        unread = sum(len(r.masks) > len(_drawn(self.answers[r.line])) for r in self.rows)
        unread -= sum(bool(r.masks) and r.cause == SOUND for r in self.rows)
        if unread:
            said.append(
                f"{unread} studies name a mask that cannot be read or does not have the "
                "radiograph's size: they have no part in the figures about maps."
            )
        return said


def outcome(table: CohortTable, answers: Mapping[int, Answer], run: CohortRun) -> Outcome:
    """Sort out which studies count."""
    excluded = _given_twice(table.rows, answers)
    counting, left_out = [], []
    for row in table.rows:
        answer = answers[row.line]
        if answer["status"] != ANSWERED:
            left_out.append(LeftOut(row.line, answer["status"], answer["code"]))
        elif row.line in excluded:
            left_out.append(LeftOut(row.line, "excluded", excluded[row.line]))
        else:
            counting.append(row)
    sample = _sample(counting, answers)
    masked = _masked([row for row in counting if row.cause != SOUND], answers, run)
    return Outcome(table, answers, sample, tuple(counting), tuple(left_out), masked)


def _given_twice(rows: Sequence[CohortRow], answers: Mapping[int, Answer]) -> dict[int, str]:
    """Studies that hold the very radiographs of another one, by line, and what is made of them.

    The first of them counts if all have one label; where labels differ nobody knows which is right.
    """
    same: dict[tuple[str, str], list[CohortRow]] = {}
    for row in rows:
        answer = answers[row.line]
        if answer["status"] == ANSWERED:
            same.setdefault((answer["ap_image"], answer["lateral_image"]), []).append(row)
    excluded = {}
    for group in same.values():
        agree = len({row.cause for row in group}) == 1
        for row in group[1:] if agree else group:
            excluded[row.line] = SAME_STUDY if agree else OTHER_LABEL
    return excluded


def _number(cell: str) -> float:
    return float(cell) if cell else float("nan")


def _sample(rows: Sequence[CohortRow], answers: Mapping[int, Answer]) -> Sample:
    said = [answers[row.line] for row in rows]
    columns: dict[str, Array] = {
        column: np.array([row.numbers[column] for row in rows], float) for column in NUMBERS
    }
    columns.update({word: np.array([row.words[word] for row in rows], str) for word in WORDS})
    columns["line"] = np.array([row.line for row in rows], int)
    columns["side"] = np.array([answer["side"] for answer in said], str)
    columns["sign_of_failure"] = np.array([_number(a["sign_of_failure"]) for a in said], float)
    patients = np.array([row.patient for row in rows], int)
    probabilities = np.array([[float(a[name]) for name in PROBABILITIES] for a in said], float)
    return Sample.of(
        probabilities.reshape(len(rows), len(CAUSES)),
        np.array([row.cause for row in rows], int),
        np.unique(patients, return_inverse=True)[1] if len(rows) else patients,
        columns,
    )


def _drawn(answer: Answer) -> list[str]:
    return [view for view in answer.get("masks", "").split(";") if view]


def _masked(
    failed: Sequence[CohortRow], answers: Mapping[int, Answer], run: CohortRun
) -> MaskedMaps | None:
    """The maps and masks of the failed studies that have any."""
    kept = []
    for place, row in enumerate(failed):
        answer = answers[row.line]
        pair = run.map_of(answer)
        if pair is not None:
            cell_mm = [_number(answer[f"{view}_cell_mm"]) for view in ("ap", "lateral")]
            kept.append((place, *pair, cell_mm))
    if not kept:
        return None
    places, maps, truth, cell_mm_all = zip(*kept, strict=True)
    return MaskedMaps(np.array(places), np.stack(maps), np.stack(truth), np.array(cell_mm_all))


def exchanged_labels(failed: Sample) -> str:
    """Whether labels look exchanged; a sentence if they do, else empty.

    They do if, with some causes' names exchanged throughout, at least half of all studies would be
    right, a tenth more than now, and far more than chance would gain (sign test, p < 0.001 for any
    of the 119 ways to exchange them).
    """
    if len(failed) == 0:
        return ""
    counted = confusion(failed.probabilities, failed.causes)
    right = {
        order: int(counted[range(len(CAUSES)), order].sum())
        for order in permutations(range(len(CAUSES)))
    }
    now = right[tuple(range(len(CAUSES)))]
    best = max(right, key=right.__getitem__)
    moved = [k for k, other in enumerate(best) if k != other]
    gained = int(sum(counted[k, best[k]] for k in moved))
    lost = int(sum(counted[k, k] for k in moved))
    n = len(failed)
    if right[best] < 0.5 * n or right[best] < now + 0.1 * n:
        return ""
    from scipy.stats import binomtest

    tries = len(right) - 1
    if binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue * tries > 1e-3:
        return ""
    names = ", ".join(
        f"{CAUSES[k].label.lower()} for {CAUSES[best[k]].label.lower()}"
        for k in moved
        if counted[k].any()
    )
    return (
        f"The labels look exchanged: the leading cause is right in {now} of {n} studies, and would "
        f"be in {right[best]} with {names}. Mend the table, or state that its labels are right "
        "with --trust-labels."
    )


def no_better_than_chance(failed: Sample) -> str:
    """Whether answers have nothing to do with labels; a sentence if they have not, else empty."""
    n = len(failed)
    if n < 20 or len(np.unique(failed.causes)) < 2:
        return ""
    from scipy.stats import binomtest

    counted = confusion(failed.probabilities, failed.causes)
    by_chance = float((counted.sum(axis=0) * counted.sum(axis=1)).sum()) / n**2
    hits = int(np.trace(counted))
    if binomtest(hits, n, min(by_chance, 1.0), alternative="greater").pvalue < 0.01:
        return ""
    return (
        f"The answers have nothing to do with the labels: {hits} of {n} leading causes are right, "
        f"{by_chance * n:.0f} would be by chance. Do the rows name the right files?"
    )


def write_results(folder: Path, cohort: Outcome) -> None:
    """Write `results.csv`: every row of the table once, whatever became of it.

    With pyarrow installed `results.parquet` too.
    """
    excluded = {one.line: one for one in cohort.left_out}
    text = io.StringIO()
    writer = csv.DictWriter(
        text, _RESULT_FIELDS, restval="", extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    for row in cohort.table.rows:
        answer, out = cohort.answers[row.line], excluded.get(row.line)
        numbers = {name: "" if np.isnan(x) else f"{x:g}" for name, x in row.numbers.items()}
        why = {} if out is None else {"status": out.status, "code": out.code}
        writer.writerow(
            {
                **numbers,
                **row.words,
                "side": row.side.value if row.side else "",
                **answer,
                **why,
                "line": row.line,
                "patient": row.patient,
                "cause": "none" if row.cause == SOUND else CAUSES[row.cause].value,
                "leading": _leading(answer),
            }
        )
    write_whole(folder / RESULTS_NAME, text.getvalue())
    _write_parquet(folder / RESULTS_NAME)


def _leading(answer: Answer) -> str:
    if answer["status"] != ANSWERED:
        return ""
    return CAUSES[int(np.argmax([float(answer[name]) for name in PROBABILITIES]))].value


def _write_parquet(table: Path) -> None:
    try:
        from pyarrow import csv as arrow_csv
        from pyarrow import parquet
    except ImportError:
        return
    parquet.write_table(arrow_csv.read_csv(table), table.with_suffix(".parquet"))
