"""`hipnet-edge validate` and `plan-validation`: thin, what they need is imported when they run."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hipnet_edge.engine_options import FILE, FOLDER, engine_options, open_predictor
from hipnet_edge.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from hipnet_edge.evaluation.report import Report

NOT_ACCEPTED = 5
"""Exit code of a validation whose criteria are not all met, or cannot be judged."""


@click.command()
@click.argument("cohort", type=FILE, required=False, metavar="[COHORT.csv]")
@click.option("--out", type=FOLDER, required=True, help="The folder for the report.")
@click.option("--criteria", type=FILE, help="TOML file of what must be reached.")
@click.option(
    "--compare",
    nargs=2,
    type=FOLDER,
    metavar="FIRST SECOND",
    help="Compare two finished validations of one cohort instead.",
)
@engine_options()
@click.option("--trust-labels", is_flag=True, help="The labels are right, whatever they look like.")
def validate(cohort: Path | None, compare: tuple[Path, Path] | None, **options: Any) -> int:
    r"""Validate a bundle on your own labelled cases, and write a report.

    \b
    hipnet-edge validate COHORT.csv --out REPORT/ --criteria acceptance.toml
    hipnet-edge validate --compare REPORT-A/ REPORT-B/ --out COMPARISON/

    COHORT.csv has the columns ap, lateral, cause, and where known patient_id, crp, esr, site,
    scanner, sex, age, side, ap_mask, lateral_mask. Every bad row is named before anything is
    predicted. The same command goes on with a validation that was stopped. The exit code is 0, or
    5 where criteria were given and are not all met.
    """
    _need_extra()
    out: Path = options["out"]
    if compare is not None:
        if cohort is not None:
            raise click.UsageError("Name either COHORT.csv or --compare.")
        _compare(*compare, out)
        return 0
    if cohort is None:
        raise click.UsageError("Name COHORT.csv, or two validations with --compare.")
    report = _validate(cohort, out, options)
    click.echo(report.verdict.words)
    for said in report.notices:
        click.echo(f"  ! {said}")
    click.echo(f"Written: {out / 'report.html'}", err=True)
    return 0 if options["criteria"] is None or report.verdict.accepted else NOT_ACCEPTED


def _validate(cohort: Path, out: Path, options: dict[str, Any]) -> Report:
    from hipnet_edge.evaluation import report
    from hipnet_edge.evaluation.criteria import read_criteria
    from hipnet_edge.evaluation.table import read_table

    criteria = read_criteria(options["criteria"]) if options["criteria"] else None
    table = read_table(cohort)
    with (
        open_predictor(options) as predictor,
        click.progressbar(length=len(table.rows), label="Studies", file=sys.stderr) as bar,
    ):
        try:
            return report.validate(
                table,
                predictor,
                out,
                criteria=criteria,
                trust_labels=options["trust_labels"],
                threads=options["threads"],
                progress=lambda: bar.update(1),
            )
        except OSError as error:
            raise UsageError(f"{out} cannot be written: {error.strerror or error}.") from error


def _compare(first: Path, second: Path, out: Path) -> None:
    from hipnet_edge.evaluation.comparison import compare
    from hipnet_edge.evaluation.comparison_page import write_comparison

    comparison = compare(first, second)
    try:
        write_comparison(out, comparison)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or error}.") from error
    click.echo(json.dumps(comparison.to_dict(), indent=1))
    click.echo(f"Written: {out / 'comparison.html'}", err=True)


@click.command("plan-validation")
@click.option(
    "--figure",
    default="auc",
    show_default=True,
    type=click.Choice(["accuracy", "sensitivity", "specificity", "auc"]),
    help="Which figure is to be shown.",
)
@click.option("--expected", type=float, required=True, help="Its true value, as far as hoped for.")
@click.option("--lower-bound", type=float, required=True, help="What the interval must reach.")
@click.option("--power", type=float, default=0.8, show_default=True, help="How surely.")
@click.option("--prevalence", type=float, help="Part of the patients with the cause.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def plan_validation(as_json: bool, **options: Any) -> None:
    r"""Say how many cases a validation needs.

    \b
    hipnet-edge plan-validation --figure auc --expected 0.95 --lower-bound 0.90 --prevalence 0.2
    hipnet-edge plan-validation --figure accuracy --expected 0.92 --lower-bound 0.85

    So many that the lower end of the 95 % interval reaches the bound, if the true value is what is
    expected. For several causes plan with the rarest one.
    """
    _need_extra()
    from hipnet_edge.evaluation.planning import plan

    made = plan(**options)
    click.echo(json.dumps(made.to_dict(), indent=2) if as_json else made.in_words())


def _need_extra() -> None:
    if any(find_spec(name) is None for name in ("scipy", "matplotlib")):
        raise MissingExtra("evaluate", "Validation")
