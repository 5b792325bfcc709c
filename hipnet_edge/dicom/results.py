"""The DICOM objects of one result: a report, the maps of each view, a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from hipnet_edge.dicom_reader import text
from hipnet_edge.errors import MissingExtra, UsageError
from hipnet_edge.input_limits import read_bytes
from hipnet_edge.opencv import in_calling_thread
from hipnet_edge.vocabulary import VIEWS, View

if TYPE_CHECKING:
    from hipnet_edge.dicom.source import SourceImage
    from hipnet_edge.dicom_reader import DicomSource
    from hipnet_edge.prediction import Prediction
    from hipnet_edge.study import Study

KINDS = ("report", "segmentation_ap", "segmentation_lateral", "capture")
"""What there is of one result, in this order."""


@dataclass(frozen=True, eq=False)
class ResultDataset:
    """One DICOM object of a result."""

    kind: str
    """One of `KINDS`."""
    dataset: Dataset
    """Complete, with file meta information; holds patient data."""

    def to_bytes(self) -> bytes:
        """The object as the bytes of a DICOM file (PS3.10)."""
        file = BytesIO()
        self.dataset.save_as(file, enforce_file_format=True)
        return file.getvalue()


def require_highdicom() -> None:
    """Complain early where the package that builds the objects is not installed.

    Raises:
        MissingExtra: highdicom is not installed.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise MissingExtra("dicom", "Writing results as DICOM") from error


def object_files(folder: Path) -> list[Path]:
    """Where `write_objects` writes the objects, in the order of `KINDS`."""
    return [folder / f"{kind}.dcm" for kind in KINDS]


def write_objects(objects: Sequence[ResultDataset], folder: Path) -> list[Path]:
    """Write the objects of one result into a folder, each whole or not at all.

    Returns:
        The files, in the order of `KINDS`.

    Raises:
        UsageError: they cannot be written.
    """
    files = object_files(folder)
    parts = [file.with_name(file.name + ".part") for file in files]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part, made in zip(parts, objects, strict=True):
            part.write_bytes(made.to_bytes())
        for part, file in zip(parts, files, strict=True):
            part.replace(file)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return files


def result_objects(
    prediction: Prediction,
    ap: DicomSource,
    lateral: DicomSource,
    *,
    study: Study | None = None,
    station_name: str | None = None,
) -> tuple[ResultDataset, ...]:
    """The result as DICOM objects to be filed beside its radiographs.

    Args:
        prediction: the result, with its maps.
        ap: the AP radiograph that it was made from, as a DICOM object.
        lateral: likewise the lateral.
        study: the two radiographs with every pixel decoded, if they are at hand; else they are
            decoded for the picture.
        station_name: names the device in Station Name (0008,1010).

    Returns:
        One object of each of `KINDS`, in their order.

    Raises:
        InputRefused: a source cannot be read or lacks a UID.
        UsageError: the prediction was made from other radiographs, or was stored without maps.
        MissingExtra: highdicom is not installed.
    """
    require_highdicom()
    from hipnet_edge.dicom.capture import capture
    from hipnet_edge.dicom.filing import Filing
    from hipnet_edge.dicom.identifiers import result_uids
    from hipnet_edge.dicom.report import report
    from hipnet_edge.dicom.segmentation import segmentation
    from hipnet_edge.dicom.source import read_sources

    if not prediction.maps:
        raise UsageError("This prediction was stored without its maps.")
    ap, lateral = (
        source if isinstance(source, Dataset) else read_bytes(source) for source in (ap, lateral)
    )
    sources = read_sources(prediction, ap, lateral)
    if study is None:
        study = _decoded(prediction, sources, {View.AP: ap, View.LATERAL: lateral})
    uids = result_uids(prediction, sources, station_name)
    filing = Filing(prediction, sources, uids, station_name, datetime.now().astimezone())
    with in_calling_thread():
        objects = (
            report(filing),
            *(segmentation(filing, view) for view in VIEWS),
            capture(filing, study),
        )
    return tuple(map(ResultDataset, KINDS, objects))


def _decoded(
    prediction: Prediction,
    sources: Mapping[View, SourceImage],
    encoded: Mapping[View, DicomSource],
) -> Study:
    """The radiographs with every pixel; what was believed of them then is believed again."""
    from hipnet_edge.radiograph import Radiograph
    from hipnet_edge.study import Study

    ap, lateral = (
        Radiograph.from_dicom(
            encoded[view],
            view=view,
            laterality=prediction.inputs[view].laterality,
            anatomy="hip",
            allow_modalities=[text(sources[view].header, "Modality")],
        )
        for view in VIEWS
    )
    return Study(ap, lateral)
