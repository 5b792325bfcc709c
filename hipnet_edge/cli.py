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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hipnet_edge import __version__
from hipnet_edge.errors import (
    BundleUnusable,
    EngineUnusable,
    Fault,
    HipNetError,
    InputRefused,
    UsageError,
)
from hipnet_edge.evaluation.commands import plan_validation, validate
from hipnet_edge.scale.command import predict_cohort
from hipnet_edge.vocabulary import Cause, Laterality, View
from hipnet_edge.wording import bundle_table, result_table, selftest_table

if TYPE_CHECKING:
    from hipnet_edge.intake import Source
    from hipnet_edge.prediction import Prediction
    from hipnet_edge.predictor import Predictor
    from hipnet_edge.study import Study

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


hipnet_edge.add_command(predict_cohort)
hipnet_edge.add_command(validate)
hipnet_edge.add_command(plan_validation)


@hipnet_edge.command()
@click.argument("files", nargs=-1, type=_FILE, metavar="[AP LATERAL]")
@click.option("--study", "folder", type=_FOLDER, help="Find the one pair in this folder instead.")
@click.option("--json", "json_to", metavar="FILE|-", help="Write the result as JSON; - is stdout.")
@click.option("--maps", is_flag=True, help="Put the maps into the JSON as well.")
@click.option("--out", type=_FOLDER, help="Write report.png and prediction.json into this folder.")
@click.option("--bundle", type=_FOLDER, help="Use this model bundle instead of the reference one.")
@click.option("--backend", default="auto", show_default=True, help="Which engine to use.")
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "int8", "bf16", "fp16", "fp32"]),
    help="In which precision it computes.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads that may work for it.")
@click.option("--exact", is_flag=True, help="Decode every pixel, without any shortcut.")
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
def predict(json_to: str | None, out: Path | None, maps: bool, **options: Any) -> None:
    """Read an AP and a lateral radiograph of a hip.

    The order of the two files says which view is which where their headers do not.
    """
    _check_inputs(options)
    deliver = _Delivery(json_to, out, maps)
    deliver.clear(inputs=options["files"])
    try:
        ap, lateral = _sources(options)
        side = options["laterality"]
        # A page is drawn over every pixel: for it the study is decoded exactly, and once.
        study = None if out is None else _decoded(ap, lateral, side)
        with _predictor(options) as predictor:
            if study is not None:
                prediction = predictor.predict(study)
            else:
                prediction = predictor.predict(ap, lateral, laterality=side)
        deliver.result(prediction, study)
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
    with _writing(out):
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
    with _writing(out), click.progressbar(length=n, label="Studies", file=sys.stderr) as bar:
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
@click.option("--bundle", type=_FOLDER, help="Test this model bundle instead of the reference one.")
@click.option("--backend", default="auto", show_default=True, help="Which engine to use.")
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "int8", "bf16", "fp16", "fp32"]),
    help="In which precision it computes.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def selftest(bundle: Path | None, backend: str, precision: str, as_json: bool) -> int:
    """Compare the answers to known studies with the stored ones.

    The daily check of an installed device. The exit code is 0 if none differs, 4 if one does.
    """
    from hipnet_edge.selftest import selftest as check

    options = {"bundle": bundle, "backend": backend, "precision": precision, "threads": None}
    with _predictor(options) as predictor:
        report = check(predictor)
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else selftest_table(report))
    return 0 if report.passed else 4


class _Delivery:
    """Where one result, or the reason why there is none, is written."""

    def __init__(self, json_to: str | None, out: Path | None, maps: bool) -> None:
        self._to_stdout = json_to == "-"
        self._files = [] if json_to is None or self._to_stdout else [Path(json_to)]
        self._maps = maps
        self._page: Path | None = None
        if out is not None:
            self._page = out / "report.png"
            self._files.append(out / "prediction.json")

    @property
    def _outputs(self) -> list[Path]:
        return self._files if self._page is None else [self._page, *self._files]

    def clear(self, *, inputs: Sequence[Path]) -> None:
        """Remove what an earlier run left: it must never be taken for the result of this one."""
        for output in self._outputs:
            with _writing(output):
                if output.exists() and any(i.exists() and output.samefile(i) for i in inputs):
                    raise UsageError(f"{output} is one of the radiographs; name another output.")
                output.parent.mkdir(parents=True, exist_ok=True)
                output.unlink(missing_ok=True)

    def result(self, prediction: Prediction, study: Study | None) -> None:
        """Write the result: the page first, then the JSON that says that all is there."""
        if self._page is not None and study is not None:
            from hipnet_edge.render import write_page

            write_page(self._page, prediction, study)
        text = json.dumps(prediction.to_dict(maps=self._maps), indent=None if self._maps else 2)
        self._write(text)
        click.echo(text if self._to_stdout else result_table(prediction))
        for output in self._outputs:
            click.echo(f"Written: {output}", err=True)

    def error(self, error: HipNetError) -> None:
        """Write why there is no result."""
        text = json.dumps({"error": error.to_dict()}, indent=2)
        if self._to_stdout:
            click.echo(text)
        with suppress(UsageError):  # where nothing can be written, stderr still says why
            self._write(text)

    def _write(self, text: str) -> None:
        """Write every JSON file whole or not at all: somebody may be waiting for it."""
        for file in self._files:
            part = file.with_name(file.name + ".part")
            with _writing(file):
                part.write_text(text + "\n", encoding="utf-8")
                part.replace(file)


@contextmanager
def _writing(where: Path | str | None) -> Iterator[None]:
    """Turn what the operating system says of a place that cannot be written into our error."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{where} cannot be written: {error.strerror or error}.") from error


def _check_inputs(options: Mapping[str, Any]) -> None:
    """Refuse what does not go together, before anything is read, removed or written."""
    files, folder = options["files"], options["folder"]
    if len(files) != (2 if folder is None else 0):
        raise click.UsageError("Name the AP and the lateral file, or one folder with --study.")
    if folder is not None and any(
        options[name] for name in ("sure_views", "anatomy", "modalities")
    ):
        raise click.UsageError(
            "In a folder the headers choose the pair: name the two files to use "
            "--view-override, --anatomy or --allow-modality."
        )


def _sources(options: Mapping[str, Any]) -> tuple[Source, Source]:
    """The AP and the lateral radiograph that the command line names, not decoded yet."""
    from hipnet_edge.study import find_pair

    if options["folder"] is not None:
        return find_pair(options["folder"], laterality=options["laterality"])
    ap, lateral = (
        _source(path, view, options) for path, view in zip(options["files"], View, strict=True)
    )
    return ap, lateral


def _source(path: Path, position: View, options: Mapping[str, Any]) -> Source:
    """One file, with what the operator states of it against its header."""
    from hipnet_edge.encoded import EncodedRadiograph
    from hipnet_edge.image_files import IMAGE_SUFFIXES
    from hipnet_edge.radiograph import Radiograph

    view = position if position.value in options["sure_views"] else None
    anatomy, modalities = options["anatomy"], options["modalities"]
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Radiograph.from_image(path, view=view, anatomy=anatomy)
    if view or anatomy or modalities:
        return EncodedRadiograph.from_dicom(
            path, view=view, anatomy=anatomy, allow_modalities=modalities
        )
    return path


def _decoded(ap: Source, lateral: Source, side: Laterality | None) -> Study:
    """The study with every pixel."""
    from hipnet_edge.intake import read_study

    study, _ = read_study(ap, lateral, side, exact=True, decode_threads=1, mapper=map)
    return study


def _predictor(options: Mapping[str, Any]) -> Predictor:
    from hipnet_edge.predictor import Predictor

    bundle = options["bundle"]
    chosen = {
        "backend": options["backend"],
        "precision": options["precision"],
        "threads": options["threads"],
        "exact": options.get("exact", False),
        "progress": lambda line: click.echo(f"hipnet-edge: {line}", err=True),
    }
    return Predictor.reference(**chosen) if bundle is None else Predictor(bundle, **chosen)
