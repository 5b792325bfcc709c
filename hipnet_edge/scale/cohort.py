"""A whole cohort predicted, whatever happens to those who work on it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hipnet_edge.backends.cores import available_cores
from hipnet_edge.errors import UsageError
from hipnet_edge.evaluation.run import study_key
from hipnet_edge.evaluation.table import CohortRow, read_table
from hipnet_edge.scale.answers import Answer, Model, missing_file, worker_died
from hipnet_edge.scale.cluster import on_cluster
from hipnet_edge.scale.journal import SUFFIX, Journal
from hipnet_edge.scale.processes import in_processes
from hipnet_edge.scale.results import check_output, write_results
from hipnet_edge.scale.work import MOST_DEATHS, workers_die

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], object]
"""Told how many studies are done now, and of how many."""


@dataclass(frozen=True)
class Where:
    """Who works.

    Attributes:
        workers: how many, each with one core; None: every core that there is.
        ray: the address of a Ray cluster; None: processes of this machine.
    """

    workers: int | None = None
    ray: str | None = None


@dataclass(frozen=True)
class Summary:
    """What became of a cohort.

    Attributes:
        studies: rows of the table and of the results.
        known: of them answered by an earlier run.
        statuses: how many of each status.
        codes: how many of each reason code.
        engines: what answered, by how many studies; of several, versions differ.
    """

    studies: int
    known: int
    statuses: Counter[str]
    codes: Counter[str]
    engines: Counter[str]


def predict_cohort(
    table: Path,
    out: Path,
    model: Model,
    where: Where,
    *,
    timings: bool = False,
    progress: Progress = lambda done, of: None,
) -> Summary:
    """Predict every study of a table and write the results, or go on with a run that was stopped.

    Args:
        table: COHORT.csv; paths in it are relative to it.
        out: `.csv` or `.parquet`. The journal lies beside it and stays: with it, only what is new
            or mended is predicted by another run.
        model: what answers.
        where: who works.
        timings: with columns of how long each study took, which differ from run to run.
        progress: called now and then.

    Raises:
        CohortInvalid: the table has bad rows; nothing was predicted.
        HipNetError: no worker can go on; what was answered is kept.
        UsageError: the output cannot be written, or another model's journal lies beside it.
    """
    check_output(out)
    rows = read_table(table.absolute(), labelled=False).rows
    keys = [study_key(row) for row in rows]
    model = _settled(model)
    try:
        with Journal(out.with_name(out.name + SUFFIX), model.to_dict()) as journal:
            open_rows = [
                (key, row)
                for key, row in zip(keys, rows, strict=True)
                if key is not None and key not in journal
            ]
            known = sum(key is not None for key in keys) - len(open_rows)
            _predict(open_rows, journal, model, where, progress)
            journal.sync()
            summary = Summary(len(rows), known, Counter(), Counter(), Counter())
            folder = table.absolute().parent
            write_results(out, _rows(rows, keys, journal, folder, summary), timings=timings)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or error}.") from error
    return summary


def _settled(model: Model) -> Model:
    """The model with one engine and precision for all workers, chosen in a process of this machine.

    Raises:
        BundleUnusable, EngineUnusable: none can run here.
    """
    if "auto" not in (model.backend, model.precision):
        return model
    ((_, settled),) = in_processes(model.open_chooser, [model], 1)
    if settled is None:
        raise workers_die()
    return settled


def _predict(
    open_rows: Sequence[tuple[str, CohortRow]],
    journal: Journal,
    model: Model,
    where: Where,
    progress: Progress,
) -> None:
    """Answer for what has no answer yet, whoever does it."""
    studies = [row for _, row in open_rows]
    if not studies:
        return
    logger.debug("cohort: %d studies to predict", len(studies))
    if where.ray is None:
        answers = in_processes(model.open, studies, where.workers or available_cores())
    else:
        answers = on_cluster(model.open, studies, where.workers, where.ray)
    for done, (place, answer) in enumerate(answers, 1):
        journal.add(open_rows[place][0], worker_died(MOST_DEATHS) if answer is None else answer)
        progress(done, len(studies))


def _rows(
    rows: Sequence[CohortRow],
    keys: Sequence[str | None],
    journal: Journal,
    folder: Path,
    summary: Summary,
) -> Iterator[Answer]:
    """The rows of the results in the table's order, counted on their way."""
    for row, key in zip(rows, keys, strict=True):
        answer = missing_file() if key is None else journal[key]
        files = {view.value: _named(path, folder) for view, path in row.files.items()}
        summary.statuses[str(answer["status"])] += 1
        if answer.get("code"):
            summary.codes[str(answer["code"])] += 1
        if answer.get("engine"):
            summary.engines[f"{answer['engine']}, {answer['variant']}"] += 1
        yield {"line": row.line, **files, **answer}


def _named(path: Path, folder: Path) -> str:
    """A radiograph's file as the table names it."""
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
