"""What the command `predict` reads and writes: its two radiographs, and where their result goes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hipnet_edge.errors import HipNetError, UsageError
from hipnet_edge.vocabulary import Laterality, View
from hipnet_edge.wording import result_table

if TYPE_CHECKING:
    from hipnet_edge.intake import Source
    from hipnet_edge.prediction import Prediction
    from hipnet_edge.study import Study


class Delivery:
    """Where one result, or the reason why there is none, is written."""

    def __init__(
        self, json_to: str | None, out: Path | None, dicom: Path | None, maps: bool
    ) -> None:
        self._to_stdout = json_to == "-"
        self._files = [] if json_to is None or self._to_stdout else [Path(json_to)]
        self._maps = maps
        self._page: Path | None = None
        if out is not None:
            self._page = out / "report.png"
            self._files.append(out / "prediction.json")
        self._dicom = dicom

    @property
    def draws(self) -> bool:
        """Whether a picture is asked for, over every pixel of the radiographs."""
        return self._page is not None or self._dicom is not None

    @property
    def _outputs(self) -> list[Path]:
        objects = []
        if self._dicom is not None:
            from hipnet_edge.dicom.results import object_files

            objects = object_files(self._dicom)
        pages = [] if self._page is None else [self._page]
        return [*objects, *pages, *self._files]

    def clear(self, *, inputs: Sequence[Path]) -> None:
        """Remove what an earlier run left: it must never be taken for the result of this one."""
        for output in self._outputs:
            with writing(output):
                if output.exists() and any(i.exists() and output.samefile(i) for i in inputs):
                    raise UsageError(f"{output} is one of the radiographs; name another output.")
                output.parent.mkdir(parents=True, exist_ok=True)
                output.unlink(missing_ok=True)

    def result(self, prediction: Prediction, study: Study | None, files: tuple[Path, Path]) -> None:
        """Write the result: pictures and objects first, then the JSON that says that all is there.

        Args:
            prediction: the result.
            study: with every pixel, where something is to be drawn.
            files: the AP and the lateral radiograph.
        """
        if self._dicom is not None:
            prediction.save_dicom(self._dicom, *files, study=study)
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
            with writing(file):
                part.write_text(text + "\n", encoding="utf-8")
                part.replace(file)


@contextmanager
def writing(where: Path | str | None) -> Iterator[None]:
    """Turn what the operating system says of a place that cannot be written into our error."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{where} cannot be written: {error.strerror or error}.") from error


def check_inputs(options: Mapping[str, Any], dicom: Path | None) -> None:
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
    if dicom is None:
        return
    if any(_is_image(path) for path in files):
        raise click.UsageError(
            "--dicom files a result beside DICOM radiographs; an image file says neither whose it "
            "is nor to which study it belongs."
        )
    from hipnet_edge.dicom.results import require_highdicom

    require_highdicom()


def radiograph_files(options: Mapping[str, Any]) -> tuple[Path, Path]:
    """The AP and the lateral file that the command line names, or the folder holds."""
    from hipnet_edge.study import find_pair

    if options["folder"] is not None:
        return find_pair(options["folder"], laterality=options["laterality"])
    ap, lateral = options["files"]
    return ap, lateral


def sources(files: tuple[Path, Path], options: Mapping[str, Any]) -> tuple[Source, Source]:
    """The two radiographs with what the operator states of them, not decoded yet."""
    if options["folder"] is not None:
        return files
    ap, lateral = (_source(path, view, options) for path, view in zip(files, View, strict=True))
    return ap, lateral


def _source(path: Path, position: View, options: Mapping[str, Any]) -> Source:
    """One file, with what the operator states of it against its header."""
    from hipnet_edge.encoded import EncodedRadiograph
    from hipnet_edge.radiograph import Radiograph

    view = position if position.value in options["sure_views"] else None
    anatomy, modalities = options["anatomy"], options["modalities"]
    if _is_image(path):
        return Radiograph.from_image(path, view=view, anatomy=anatomy)
    if view or anatomy or modalities:
        return EncodedRadiograph.from_dicom(
            path, view=view, anatomy=anatomy, allow_modalities=modalities
        )
    return path


def _is_image(path: Path) -> bool:
    from hipnet_edge.image_files import IMAGE_SUFFIXES

    return path.suffix.lower() in IMAGE_SUFFIXES


def decoded(ap: Source, lateral: Source, side: Laterality | None) -> Study:
    """The study with every pixel."""
    from hipnet_edge.intake import read_study

    study, _ = read_study(ap, lateral, side, exact=True, decode_threads=1, mapper=map)
    return study
