"""`hipnet-edge predict-cohort`: thin, what it needs is imported when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hipnet_edge.engine_options import FILE, engine_options

if TYPE_CHECKING:
    from hipnet_edge.scale.cohort import Summary


@click.command(name="predict-cohort")
@click.argument("cohort", type=FILE, metavar="COHORT.csv")
@click.option("--out", type=FILE, required=True, help="The results: .parquet or .csv.")
@engine_options(leave_out=("threads", "overlay", "overlay_key"))
@click.option("--workers", type=click.IntRange(min=1), help="How many; all cores if not given.")
@click.option("--ray", metavar="ADDRESS", help="Work on this Ray cluster instead of here.")
@click.option("--timings", is_flag=True, help="With columns of how long each study took.")
def predict_cohort(cohort: Path, out: Path, **options: Any) -> None:
    r"""Predict every study of a table: a row of results for each.

    \b
    hipnet-edge predict-cohort COHORT.csv --out results.parquet
    hipnet-edge predict-cohort COHORT.csv --out results.csv --ray 10.0.0.5:6379

    COHORT.csv has the columns ap and lateral, and where known side and pixel_spacing_mm. A refused
    study is a row with the reason. The same command goes on with a run that was stopped.
    """
    from hipnet_edge.scale.answers import Model
    from hipnet_edge.scale.cohort import Where
    from hipnet_edge.scale.cohort import predict_cohort as predict

    model = Model.choose(
        options["bundle"], options["backend"], options["precision"], options["exact"]
    )
    with click.progressbar(length=1, label="Studies", file=sys.stderr) as bar:

        def progress(done: int, of: int) -> None:
            bar.length = of
            bar.update(done - bar.pos)

        summary = predict(
            cohort,
            out,
            model,
            Where(options["workers"], options["ray"]),
            timings=options["timings"],
            progress=progress,
        )
    for line in summary_lines(summary):
        click.echo(line)
    click.echo(f"Written: {out}", err=True)


def summary_lines(summary: Summary) -> list[str]:
    """What became of a cohort, for a person."""
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(summary.statuses.items()))
    lines = [f"{summary.studies} studies: {statuses}"]
    if summary.known:
        lines.append(f"  {summary.known} of them were known from an earlier run")
    lines += [f"  {count} {code}" for code, count in sorted(summary.codes.items())]
    if len(summary.engines) > 1:
        engines = "; ".join(f"{count} by {name}" for name, count in sorted(summary.engines.items()))
        lines.append(f"  ! Engines of several versions answered ({engines})")
    return lines
