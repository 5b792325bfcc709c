"""The `hipnet-edge` command: thin, for people at a terminal and for programs that call it.

Results go to stdout, everything else to stderr; with `--json -` stdout holds JSON and nothing else.
Exit codes: 0 result, 1 fault, 2 bad usage, 3 input refused, 4 bundle or engine unusable, 5 not
accepted by a validation.
What is heavy is imported by the command that needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from hipnet_edge import __version__
from hipnet_edge.cart import commands
from hipnet_edge.cart.serve_command import serve
from hipnet_edge.engine_options import engine_options, open_predictor
from hipnet_edge.errors import (
    BundleUnusable,
    EngineUnusable,
    Fault,
    HipNetError,
    InputRefused,
    UsageError,
)
from hipnet_edge.evaluation.commands import plan_validation, validate
from hipnet_edge.evaluation.site_commands import calibrate, drift
from hipnet_edge.predict_files import (
    Delivery,
    check_inputs,
    decoded,
    radiograph_files,
    sources,
    writing,
)
from hipnet_edge.scale.command import predict_cohort
from hipnet_edge.vocabulary import Cause, Laterality, View
from hipnet_edge.wording import bundle_table, selftest_table

EXIT_CODES: tuple[tuple[type[HipNetError], int], ...] = (
    (InputRefused, 3),
    (BundleUnusable, 4),
    (EngineUnusable, 4),
    (UsageError, 2),
    (HipNetError, 1),
)
"""The exit code of each kind of error; the first that fits counts."""

_FILE = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code and raises nothing."""
    try:
        with warnings.catch_warnings():
            # What a library warns of may quote a header, and a header may name a patient.
            warnings.simplefilter("ignore")
            code = hipnet_edge.main(arguments, prog_name="hipnet-edge", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show(sys.stderr)
        return 2
    except click.Abort:
        click.echo("hipnet-edge: stopped.", err=True)
        return 130
    except Exception as error:  # a person at a terminal gets a sentence, never a traceback
        return _complain(_as_ours(error))


def _as_ours(error: Exception) -> HipNetError:
    if isinstance(error, HipNetError):
        return error
    fault = Fault(
        f"A fault of hipnet-edge ({type(error).__name__}). Please report it; with "
        "HIPNET_EDGE_TRACEBACK=1 in the environment the same command shows where it happened."
    )
    fault.__cause__ = error
    return fault


def _complain(error: HipNetError) -> int:
    """Say on stderr what went wrong; returns the exit code."""
    if os.environ.get("HIPNET_EDGE_TRACEBACK") == "1":
        import traceback

        traceback.print_exception(error)
    click.echo(f"hipnet-edge: {error.message} [{error.code.value}]", err=True)
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hipnet-edge")
def hipnet_edge() -> None:
    """Read paired hip radiographs: five causes of arthroplasty failure, PJI risk and maps.

    Simulated / research use. Not for clinical use.
    """


hipnet_edge.add_command(calibrate)
hipnet_edge.add_command(drift)
hipnet_edge.add_command(predict_cohort)
hipnet_edge.add_command(validate)
hipnet_edge.add_command(plan_validation)


@hipnet_edge.command()
@click.argument("files", nargs=-1, type=_FILE, metavar="[AP LATERAL]")
@click.option("--study", "folder", type=_FOLDER, help="Find the one pair in this folder instead.")
@click.option("--json", "json_to", metavar="FILE|-", help="Write the result as JSON; - is stdout.")
@click.option("--maps", is_flag=True, help="Put the maps into the JSON as well.")
@click.option("--out", type=_FOLDER, help="Write report.png and prediction.json into this folder.")
@click.option("--dicom", type=_FOLDER, help="Write the result as DICOM objects into this folder.")
@engine_options()
@click.option(
    "--view-override",
    "sure_views",
    multiple=True,
    type=click.Choice([view.value for view in View]),
    help="The file given as this view is this view, whatever its header says. May be repeated.",
)
@click.option(
    "--laterality",
    type=click.Choice([Laterality.LEFT.value, Laterality.RIGHT.value]),
    help="Which hip to read, where the headers do not say or the AP shows both.",
)
@click.option(
    "--anatomy",
    type=click.Choice(["hip"]),
    help="These are hips, whatever headers and pixels say.",
)
@click.option(
    "--allow-modality",
    "modalities",
    multiple=True,
    metavar="CODE",
    help="Accept this DICOM modality (RF, XA, OT, SC) too. May be repeated.",
)
def predict(
    json_to: str | None, out: Path | None, dicom: Path | None, maps: bool, **options: Any
) -> None:
    """Read an AP and a lateral radiograph of a hip.

    The order of the two files says which view is which where their headers do not.
    """
    check_inputs(options, dicom)
    deliver = Delivery(json_to, out, dicom, maps)
    deliver.clear(inputs=options["files"])
    try:
        files = radiograph_files(options)
        ap, lateral = sources(files, options)
        side = options["laterality"]
        # A page is drawn over every pixel: for it the study is decoded exactly, and once.
        study = decoded(ap, lateral, side) if deliver.draws else None
        with open_predictor(options) as predictor:
            if study is not None:
                prediction = predictor.predict(study)
            else:
                prediction = predictor.predict(ap, lateral, laterality=side)
        deliver.result(prediction, study, files)
    except Exception as error:
        if not isinstance(error, click.ClickException):
            deliver.error(_as_ours(error))
        raise


@hipnet_edge.command()
@click.option("--n", type=click.IntRange(1, 100_000), help="Make a cohort of so many studies.")
@click.option(
    "--cause",
    type=click.Choice([*(cause.value for cause in Cause), "none"]),
    help="Make one study instead; what the hip suffers from, none is a sound one.",
)
@click.option("--seed", required=True, type=click.IntRange(min=0), help="Which cohort or study.")
@click.option("--out", required=True, type=_FOLDER, help="The folder for it; made if missing.")
@click.option(
    "--site",
    default="development",
    show_default=True,
    type=click.Choice(["development", "shifted"]),
    help="Whose implants, patients, devices and habits.",
)
@click.option(
    "--causes",
    default="",
    metavar="CAUSE,...",
    help="Causes to take in turn, none among them; without it as often as the site sees them.",
)
@click.option(
    "--format",
    "image_format",
    default="dicom",
    show_default=True,
    type=click.Choice(["dicom", "png"]),
    help="Of a cohort's radiographs; png is 16-bit grey without any header.",
)
@click.option("--twin", is_flag=True, help="After each failed study the same with disease erased.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; all cores if not given.")
@click.option(
    "--pixel-spacing-mm",
    "--pixel-spacing",
    "pixel_spacing",
    type=click.FloatRange(min=0.05, max=2.0),
    default=0.16,
    show_default=True,
    metavar="MM",
    help="Millimetres between two pixels of the detector.",
)
def simulate(n: int | None, cause: str | None, out: Path, **options: Any) -> None:
    r"""Make simulated studies with their truth: a cohort, or one study.

    \b
    hipnet-edge simulate --site shifted --n 200 --seed 5 --out cohort/
    hipnet-edge simulate --cause pji --seed 4 --out study/

    A cohort has a folder for each study and cohort.csv, which names the radiographs, the masks of
    what is diseased and all that is true of each study. The same options give the same files,
    whatever the number of processes; a cohort that was stopped is finished. One study is ap.dcm,
    lateral.dcm, their masks and truth.json.
    """
    if (n is None) == (cause is None):
        raise click.UsageError("Name either --n for a cohort, or --cause for one study.")
    if cause is not None:
        if options["causes"] or options["twin"] or options["image_format"] != "dicom":
            raise click.UsageError("--causes, --twin and --format are for a cohort (--n).")
        _simulate_one(cause, out, options)
    elif n is not None:
        _simulate_cohort(n, out, options)


def _simulate_one(cause: str, out: Path, options: Mapping[str, Any]) -> None:
    from hipnet_edge.simulation import simulate_study, write_study
    from hipnet_edge.simulation.dimensions import Site

    wanted = None if cause == "none" else Cause(cause)
    seed, spacing = options["seed"], options["pixel_spacing"]
    study = simulate_study(wanted, seed, site=Site(options["site"]), pixel_spacing_mm=spacing)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        write_study(study, out)
    click.echo(f"{out}: simulated {study.laterality.value} hip, cause {cause}, seed {seed}")


def _simulate_cohort(n: int, out: Path, options: Mapping[str, Any]) -> None:
    from hipnet_edge.backends.cores import available_cores
    from hipnet_edge.simulation.cohort import CohortSettings, causes_from, write_cohort
    from hipnet_edge.simulation.dimensions import Site

    settings = CohortSettings(
        site=Site(options["site"]),
        n=n,
        seed=options["seed"],
        causes=causes_from(options["causes"]),
        image_format=options["image_format"],
        twin=options["twin"],
        pixel_spacing_mm=options["pixel_spacing"],
    )
    workers = min(n, options["workers"] or available_cores())
    with writing(out), click.progressbar(length=n, label="Studies", file=sys.stderr) as bar:
        rows = write_cohort(out, settings, workers, lambda: bar.update(1))
    click.echo(f"{out}: {len(rows)} simulated studies, {settings.site.value} site")


@hipnet_edge.command()
@click.argument("bundle", type=_FOLDER, required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def info(bundle: Path | None, as_json: bool) -> None:
    """Verify a model bundle and say what it is.

    Without a name it is the reference bundle, which comes with the package.
    """
    from hipnet_edge.bundle import Bundle

    loaded = Bundle.load(bundle) if bundle is not None else Bundle.reference()
    manifest = loaded.manifest
    facts: dict[str, object] = {
        "name": manifest.name,
        "version": manifest.version,
        "digest": loaded.digest,
        "created": manifest.created,
        "intended_use": manifest.intended_use,
        "simulated": manifest.simulated,
        "input": manifest.input.to_dict(),
        "backbones": [vars(backbone) for backbone in manifest.backbones],
        "variants": {name: vars(variant) for name, variant in manifest.variants.items()},
        "files": {name: vars(file) for name, file in manifest.files.items()},
        "training": dict(manifest.training),
    }
    click.echo(json.dumps(facts, indent=2) if as_json else bundle_table(facts))


@hipnet_edge.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(as_json: bool) -> int:
    """Say what works on this machine, and why not.

    Cores, memory, GPU; every engine, every decoder and the reference bundle are really tried.
    The exit code is 0 if this machine can predict, 4 if it cannot.
    """
    from hipnet_edge.doctor import examine

    report = examine()
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.table())
    return 0 if report.can_predict else 4


@hipnet_edge.command()
@engine_options(leave_out=("threads", "exact", "overlay", "overlay_key"))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def selftest(as_json: bool, **options: Any) -> int:
    """Compare the answers to known studies with the stored ones.

    The daily check of an installed device. The exit code is 0 if none differs, 4 if one does.
    """
    from hipnet_edge.selftest import selftest as check

    with open_predictor(options) as predictor:
        report = check(predictor)
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else selftest_table(report))
    return 0 if report.passed else 4


hipnet_edge.add_command(commands.queue)
hipnet_edge.add_command(commands.audit)
hipnet_edge.add_command(serve)
