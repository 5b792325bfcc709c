"""`hipnet-edge calibrate` and `drift`: thin, what they need is imported when they run."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hipnet_edge.engine_options import FILE, engine_options, open_predictor
from hipnet_edge.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from hipnet_edge.overlay import Overlay

WORRY = 5
"""Exit code of a comparison that says that it is time to worry."""


@click.command()
@click.argument("cohort", type=FILE, metavar="COHORT.csv")
@click.option("--out", type=FILE, required=True, help="The overlay's file.")
@click.option("--sign", "key", type=FILE, help="Sign it with this Ed25519 private key (PEM).")
@engine_options(leave_out=("exact", "overlay", "overlay_key"))
@click.option("--trust-labels", is_flag=True, help="The labels are right, whatever they look like.")
def calibrate(cohort: Path, out: Path, key: Path | None, **options: Any) -> None:
    r"""Fit a site's own calibration of a bundle on labelled cases, into a file beside it.

    \b
    hipnet-edge calibrate COHORT.csv --out site.overlay.json --sign site-key.pem

    Temperatures, thresholds and conformal set; the bundle stays as it is. COHORT.csv as for
    validate. At least 20 patients of every cause are needed. What the calibration changes is
    printed, each figure over studies that it was not fitted on. It is good for the precision that
    it was fitted in alone.
    """
    _need_extra("evaluate", "scipy", "Calibration")
    if key is not None:
        _need_extra("sign", "cryptography", "Signing an overlay")
    overlay = _fitted(cohort, options)
    try:
        overlay.save(out, key)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or error}.") from error
    click.echo(overlay_table(overlay))
    click.echo(f"Written: {out}, digest {overlay.digest}", err=True)


def _fitted(cohort: Path, options: dict[str, Any]) -> Overlay:
    from hipnet_edge.evaluation.recalibration import answer_failed, fit_overlay
    from hipnet_edge.evaluation.table import read_table

    table = read_table(cohort)
    with (
        open_predictor(options) as predictor,
        click.progressbar(length=len(table.rows), label="Studies", file=sys.stderr) as bar,
    ):
        answers, skipped = answer_failed(predictor, table.rows, lambda: bar.update(1))
        return fit_overlay(
            predictor.bundle,
            predictor.provenance,
            answers,
            skipped,
            table_sha256=table.sha256,
            trust_labels=options["trust_labels"],
        )


def overlay_table(overlay: Overlay) -> str:
    """What an overlay changes, and what to know of it, for a terminal."""
    content: Any = overlay.content
    fitted_on = content["fitted_on"]
    lines = [
        f"Overlay {overlay.digest[:12]} for bundle {overlay.bundle_digest[:12]}, "
        f"{overlay.variant}: {fitted_on['studies']} studies of {fitted_on['patients']} patients",
        "",
        f"  {'':<32}  bundle  overlay   change (95 % CI)",
    ]
    for name, figure in content["figures"].items():
        before, after, change = (figure[key] for key in ("bundle", "overlay", "change"))
        low, high = change["ci95"]
        lines.append(
            f"  {name.replace('_', ' '):<32}  {before['value']:.3f}   {after['value']:.3f}   "
            f"{change['value']:+.3f} ({low:+.3f} to {high:+.3f})"
        )
    return "\n".join([*lines, *(f"  ! {said}" for said in content["notices"])])


def _need_extra(extra: str, package: str, needed_for: str) -> None:
    if find_spec(package) is None:
        raise MissingExtra(extra, needed_for)


@click.command()
@click.option("--baseline", type=FILE, help="What the acceptance found, from --make-baseline.")
@click.option(
    "--recent",
    type=click.Path(path_type=Path),
    required=True,
    help="The device's daily file, a cart's data folder, or a folder of results as JSON.",
)
@click.option(
    "--days",
    type=click.IntRange(min=1),
    default=7,
    show_default=True,
    help="How many of the last days on record count.",
)
@click.option("--make-baseline", "made", type=FILE, help="Write a baseline of --recent instead.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def drift(baseline: Path | None, recent: Path, days: int, made: Path | None, as_json: bool) -> int:
    r"""Say whether recent answers are still those of the acceptance.

    \b
    hipnet-edge drift --recent accepted/ --make-baseline baseline.json
    hipnet-edge drift --baseline baseline.json --recent daily.jsonl

    Distributions of scores and exposure, flags and refusals are compared; with few studies it says
    that they are too few. The exit code is 5 where it is time to worry, else 0.
    """
    from hipnet_edge.evaluation.daily import read_statistics
    from hipnet_edge.evaluation.drift import Concern, compare, recent_statistics
    from hipnet_edge.predict_files import writing

    _need_extra("evaluate", "scipy", "Looking for drift")
    if made is not None and baseline is None:
        found = recent_statistics(recent, days)
        with writing(made):
            made.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
        click.echo(f"{made}: {found.studies} studies, {found.model}")
        return 0
    if baseline is None or made is not None:
        raise click.UsageError("Name either --baseline or --make-baseline.")
    accepted = read_statistics(baseline)
    report = compare(accepted, recent_statistics(recent, days, accepted.model))
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.in_words())
    return WORRY if report.concern is Concern.WORRY else 0
