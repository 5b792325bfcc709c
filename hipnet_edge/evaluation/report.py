"""A validation from table to report: all figures, the verdict, `report.json` and `report.html`."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hipnet_edge import machine
from hipnet_edge.evaluation import causes, maps, risk, subgroups
from hipnet_edge.evaluation.criteria import Criteria, Judged
from hipnet_edge.evaluation.figure import FEWEST_PATIENTS, Figure
from hipnet_edge.evaluation.outcome import (
    LEFT_OUT_WORDS,
    Outcome,
    exchanged_labels,
    no_better_than_chance,
    outcome,
    write_results,
)
from hipnet_edge.evaluation.run import CohortRun, made_by, write_whole
from hipnet_edge.evaluation.sample import SOUND, Sample
from hipnet_edge.evaluation.table import CohortTable
from hipnet_edge.vocabulary import CAUSES
from hipnet_edge.wording import RESEARCH_USE

if TYPE_CHECKING:
    from hipnet_edge.decision import Decision
    from hipnet_edge.predictor import Predictor

SCHEMA = 1
REPORT_NAME, PAGE_NAME = "report.json", "report.html"


@dataclass(frozen=True)
class Verdict:
    """The first line of a report.

    Attributes:
        accepted: None where there is no verdict.
        words: the line.
        judged: every criterion.
    """

    accepted: bool | None
    words: str
    judged: tuple[Judged, ...] = ()


@dataclass(frozen=True)
class Report:
    """A finished validation.

    Attributes:
        cohort: the studies and their answers.
        verdict: against the criteria.
        figures: by name, with dots in criteria.
        notices: what to know before the figures.
        tested: bundle, engine, precision, machine, table.
    """

    cohort: Outcome
    verdict: Verdict
    figures: Mapping[str, Any]
    notices: tuple[str, ...]
    tested: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As `report.json` holds it."""
        judged = self.verdict.judged
        return {
            "schema": SCHEMA,
            "verdict": self.verdict.words,
            "accepted": self.verdict.accepted,
            "criteria": [one.to_dict() for one in judged],
            "intended_use": RESEARCH_USE,
            "tested": self.tested,
            "notices": list(self.notices),
            "studies": counted(self.cohort),
            "figures": as_json(self.figures),
            "left_out": [vars(one) for one in self.cohort.left_out],
        }


def validate(
    table: CohortTable,
    predictor: Predictor,
    folder: Path,
    *,
    criteria: Criteria | None = None,
    trust_labels: bool = False,
    threads: int | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Report:
    """Predict every study of a table and write the report on it into a folder.

    Args:
        table: what `read_table` gave.
        predictor: answers.
        folder: for the report; a validation that it holds already is gone on with.
        criteria: of acceptance; without them there is no verdict.
        trust_labels: the labels are right even where they look exchanged.
        threads: studies under way at once; as many as there are cores if not given.
        progress: called after each study.

    Raises:
        UsageError: the folder holds something else.
        EngineUnusable: the engine is gone; the same call goes on from there.
    """
    from hipnet_edge.evaluation.page import write_page

    run = CohortRun.begin(folder, predictor, threads)
    for name in (REPORT_NAME, PAGE_NAME):  # never taken for the result of this run
        with suppress(FileNotFoundError):
            (folder / name).unlink()
    cohort = outcome(table, run.answers(table.rows, progress), run)
    write_results(folder, cohort)
    failed = cohort.sample.failed
    exchanged = "" if trust_labels else exchanged_labels(failed)
    decision = predictor.decision
    figures = evidence(cohort) if exchanged else all_figures(cohort, decision)
    notices = (
        [exchanged] if exchanged else [said for said in [no_better_than_chance(failed)] if said]
    )
    report = Report(
        cohort,
        _verdict(criteria, figures, exchanged),
        figures,
        (*notices, *table.notices, *cohort.notices()),
        _tested(predictor, table, criteria),
    )
    write_whole(folder / REPORT_NAME, json.dumps(report.to_dict(), indent=1) + "\n")
    write_page(folder / PAGE_NAME, report, predictor)
    return report


def all_figures(cohort: Outcome, decision: Decision | None) -> dict[str, Any]:
    """Every figure that the cohort and the bundle allow."""
    sample = cohort.sample
    failed = sample.failed
    figures: dict[str, Any] = {"answered": answered(cohort)}
    if len(failed) == 0:
        return figures
    figures.update(causes.figures(failed))
    figures["accuracy_if_left_out_are_wrong"] = _if_left_out_are_wrong(cohort)
    if decision is not None:
        figures["at_thresholds"] = causes.at_thresholds(failed, decision)
        figures["conformal"] = causes.conformal(failed, decision)
        if decision.sign_of_failure is not None:
            figures["sign_of_failure"] = risk.sign_of_failure(
                sample, decision.sign_of_failure.threshold
            )
    figures["risk"] = risk.figures(sample)
    figures["maps"] = maps.figures(failed, cohort.masked)
    figures["subgroups"] = subgroups.figures(failed)
    return {name: figure for name, figure in figures.items() if figure != {}}


def evidence(cohort: Outcome) -> dict[str, Any]:
    """What is shown where the labels look exchanged: nothing but why they do."""
    failed = cohort.sample.failed
    return {
        "answered": answered(cohort),
        "confusion": causes.confusion(failed.probabilities, failed.causes).tolist(),
    }


def _all_rows(cohort: Outcome, rows_that_count: Callable[[int], bool]) -> Sample:
    """All rows of the table but those given twice, as patients and causes alone."""
    import numpy as np

    twice = {one.line for one in cohort.left_out if one.status == "excluded"}
    rows = [r for r in cohort.table.rows if r.line not in twice and rows_that_count(r.cause)]
    patients = np.array([row.patient for row in rows], int)
    return Sample.of(
        np.zeros((len(rows), len(CAUSES))),
        np.array([row.cause for row in rows], int),
        patients,
        {"line": np.array([row.line for row in rows], int)},
    )


def answered(cohort: Outcome) -> Figure:
    """The part of the table's studies that was answered; those given twice count once."""
    import numpy as np

    every = _all_rows(cohort, lambda _: True)
    return every.proportion(np.isin(every.columns["line"], cohort.sample.columns["line"]))


def _if_left_out_are_wrong(cohort: Outcome) -> Figure:
    """Accuracy if every failed study without an answer counts as a wrong one."""
    import numpy as np

    every, failed = _all_rows(cohort, lambda cause: cause != SOUND), cohort.sample.failed
    right = failed.columns["line"][failed.correct]
    return every.proportion(np.isin(every.columns["line"], right))


def counted(cohort: Outcome) -> dict[str, Any]:
    """How many studies and patients, and what became of them."""
    by_status = Counter(one.status for one in cohort.left_out)
    sample = cohort.sample
    return {
        "in_table": len(cohort.table.rows),
        "counted": len(sample),
        "patients": len(set(sample.patients.tolist())),
        "by_cause": {
            **{cause.value: int((sample.causes == k).sum()) for k, cause in enumerate(CAUSES)},
            "none": int((sample.causes == SOUND).sum()),
        },
        "left_out": {status: by_status[status] for status in LEFT_OUT_WORDS},
        "left_out_by_code": dict(Counter(one.code for one in cohort.left_out)),
    }


def _verdict(criteria: Criteria | None, figures: Mapping[str, Any], exchanged: str) -> Verdict:
    if exchanged:
        return Verdict(None, "NO VERDICT: the labels look exchanged; no figure is given.")
    if criteria is None:
        return Verdict(None, "NO VERDICT: no acceptance criteria were given.")
    judged = tuple(criterion.judged(figures) for criterion in criteria.limits)
    unmet, n = sum(not one.met for one in judged), len(judged)
    if not unmet:
        return Verdict(True, f"ACCEPTED: {_of(n, n)} met.", judged)
    return Verdict(False, f"NOT ACCEPTED: {_of(unmet, n)} not met.", judged)


def _of(some: int, every: int) -> str:
    if every == 1:
        return "the one criterion is"
    if some == every:
        return f"all {every} criteria are"
    return f"{some} of {every} criteria {'is' if some == 1 else 'are'}"


def _tested(predictor: Predictor, table: CohortTable, criteria: Criteria | None) -> dict[str, Any]:
    here = machine.examine()
    return {
        **made_by(predictor),
        "intended_use": predictor.provenance.intended_use,
        "settings": dict(predictor.provenance.settings),
        "machine": {
            "system": here.system,
            "processor": here.processor.value,
            "usable_cores": here.usable_cores.value,
            "memory_mib": here.memory_mib.value,
        },
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "table_sha256": table.sha256,
        "criteria_sha256": None if criteria is None else criteria.sha256,
        "fewest_patients_for_an_interval": FEWEST_PATIENTS,
    }


def as_json(value: Any) -> Any:
    """Figures within mappings as JSON objects."""
    if isinstance(value, Figure):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {name: as_json(one) for name, one in value.items()}
    return value
