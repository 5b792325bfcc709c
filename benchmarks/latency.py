"""Latency from DICOM bytes to the result, beside what a user could take instead.

    python benchmarks/latency.py --quick
    python benchmarks/latency.py --json benchmarks/results/latency.json --plots plots

Needs the package with an engine and its reference bundle, and simulates its own radiographs. Peers
join where they are installed (the extra bench); whatever is missing is named with its reason. Cold
start is measured in fresh processes, stages, tail, memory and throughput in a process that holds
nothing but the package, and everything that is compared takes turns in one process, in an order
drawn anew for each round. The JSON follows benchmarks/latency.schema.json.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

if not __package__:  # called by its path: the folder above is where benchmarks is a package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.latency_cold import StartFailed
from benchmarks.latency_compare import check, compare
from benchmarks.latency_inputs import SYNTAXES
from benchmarks.latency_report import text
from benchmarks.latency_run import PEERS, Run
from benchmarks.latency_settings import QUICK, Settings, read_json
from export.provenance import write
from hipnet_edge.errors import HipNetError

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _size(_context: object, _parameter: object, value: str | None) -> tuple[int, int] | None:
    """3000x2500 as rows and columns."""
    if value is None:
        return None
    rows, _, columns = value.partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and min(int(rows), int(columns)) >= 256):
        raise click.BadParameter("must be ROWSxCOLUMNS, such as 3000x2500, 256 each at least")
    return int(rows), int(columns)


def _several(_context: object, _parameter: object, value: tuple[str, ...]) -> Any:
    """What was given, in the order of the report; None where nothing was."""
    return tuple(name for name in SYNTAXES if name in value) or None


def _peers(_context: object, _parameter: object, value: str | None) -> tuple[str, ...] | None:
    """Names between commas; none is the empty tuple."""
    if value is None:
        return None
    names = () if value == "none" else tuple(value.split(","))
    for name in names:
        if name not in PEERS:
            raise click.BadParameter(
                f"there is no {name!r}; there are: {', '.join(PEERS)}, or none"
            )
    return names


@click.command(help=__doc__, context_settings={"show_default": True})
@click.option("--bundle", help="Folder of a model.  [default: the reference bundle]")
@click.option("--backend", "--engine", help="Engine.  [default: auto]")
@click.option("--precision", help="int8, bf16, fp16, fp32.  [default: auto]")
@click.option("--threads", type=click.IntRange(min=1), help="Threads an inference may use.")
@click.option("--batch", type=click.IntRange(min=1), help="Studies at once, for predict_batch.")
@click.option("--syntax", "syntaxes", callback=_several, type=click.Choice(SYNTAXES), multiple=True,
              help="Transfer syntax; may be given again.  [default: all]")  # fmt: skip
@click.option("--size", callback=_size, help="ROWSxCOLUMNS of each view.  [default: 3000x2500]")
@click.option("--duration", type=click.FloatRange(min=0.1), help="Seconds of each throughput.")
@click.option("--repetitions", "rounds", type=click.IntRange(min=2), help="Rounds of inference.")
@click.option("--peers", callback=_peers, help="Names with commas, or none.  [default: all]")
@click.option("--soak", type=click.IntRange(min=0), help="Predictions, for memory's growth.")
@click.option("--quick", is_flag=True, help="Fewer repetitions: all of it within 50 seconds.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the report here.")
@click.option("--plots", type=click.Path(path_type=Path), help="Write pictures into this folder.")
@click.option("--compare", "pair", type=FILE, nargs=2, help="Two reports beside each other.")
@click.option("--check", "baseline", type=FILE,
              help="Measure as this report was; exit status 1 if a ratio fell far.")  # fmt: skip
@click.option("--report", "given", type=FILE, help="With --check: this report, none is measured.")
def main(
    quick: bool,
    out: Path | None,
    plots: Path | None,
    pair: tuple[Path, Path] | None,
    baseline: Path | None,
    given: Path | None,
    **chosen: Any,
) -> None:
    """Measure, compare or check."""
    if pair:
        click.echo(compare(*map(read_json, pair)))
        return
    settings = (
        Settings() if baseline is None else Settings.from_dict(read_json(baseline)["settings"])
    )
    settings = replace(settings, **(QUICK if quick else {}))
    named = {name: value for name, value in chosen.items() if value is not None}
    settings = replace(settings, **named)
    report = measure(settings) if given is None else read_json(given)
    click.echo(text(report))
    if out is not None:
        write(report, out)
    if plots is not None:
        from benchmarks.latency_plots import all_plots

        all_plots(report, plots)
    if baseline is not None:
        _judge(report, read_json(baseline))


def measure(settings: Settings) -> dict[str, Any]:
    """The report of one run; what is being measured is said on stderr."""
    try:
        with Run(settings, lambda part: click.echo(f"{part} ...", err=True)) as run:
            return run.report()
    except HipNetError as error:
        raise click.ClickException(f"{error.message} ({error.code.value})") from error
    except StartFailed as error:
        raise click.ClickException(f"A process of the package alone failed: {error}") from error


def _judge(report: Any, baseline: Any) -> None:
    """Say what the guard found; exit status 1 if a ratio is worse by far."""
    verdict = check(report, baseline)
    for sentence in (*verdict.said, *verdict.failed):
        click.echo(sentence)
    click.echo(f"{verdict.compared} ratios compared, {len(verdict.failed)} too bad")
    if verdict.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
