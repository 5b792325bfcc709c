"""The DICOM objects of one result: a report, the maps of each view, a picture."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from hipnet_edge.errors import MissingExtra

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

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
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise MissingExtra("dicom", "Writing results as DICOM") from error
    raise NotImplementedError
