"""What all objects of a result have in common: whose they are, what made them, their identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from hipnet_edge.dicom import codes
from hipnet_edge.dicom.identifiers import derived_uid
from hipnet_edge.dicom.source import COPIED, EQUIPMENT, LOSSY, NEVER_ABSENT
from hipnet_edge.dicom_reader import text
from hipnet_edge.vocabulary import View

if TYPE_CHECKING:
    from hipnet_edge.dicom.identifiers import ResultUids
    from hipnet_edge.dicom.source import SourceImage
    from hipnet_edge.prediction import Prediction, Provenance

MAKER = "hipnet_edge"
NOT_FOR_CLINICAL_USE = "NOT FOR CLINICAL USE"
SERIES = {"report": 9601, "segmentation": 9602, "capture": 9603}
"""Series Number (0020,0011) of each kind; high, to stand behind what was acquired."""


@dataclass(frozen=True, eq=False)
class Filing:
    """One result and the radiographs that its objects are filed beside."""

    prediction: Prediction
    sources: Mapping[View, SourceImage]
    uids: ResultUids
    station_name: str | None
    made_at: datetime

    def complete(self, dataset: Dataset, kind: str, transfer_syntax: str) -> Dataset:
        """Add to an object what every one has; its own modules are there already.

        Patient and study are those of the AP radiograph, as they stand in its header.

        Args:
            dataset: the object, with its SOP Class UID.
            kind: one of `hipnet_edge.dicom.results.KINDS`.
            transfer_syntax: in which it is written.
        """
        name, _, view = kind.partition("_")
        made_by = self.prediction.provenance
        self._patient_and_study(dataset)
        dataset.SOPInstanceUID = self.uids.instance(kind)
        dataset.SeriesInstanceUID = self.uids.series(name)
        dataset.SeriesNumber = SERIES[name]
        dataset.InstanceNumber = 2 if view == View.LATERAL.value else 1
        dataset.SeriesDescription = f"Hip {name} by {MAKER}, {NOT_FOR_CLINICAL_USE}"
        date, time = self.made_at.strftime("%Y%m%d"), self.made_at.strftime("%H%M%S")
        dataset.ContentDate = dataset.SeriesDate = dataset.InstanceCreationDate = date
        dataset.ContentTime = dataset.SeriesTime = dataset.InstanceCreationTime = time
        dataset.Manufacturer = dataset.ManufacturerModelName = MAKER
        dataset.SoftwareVersions = made_by.package_version
        # A device has a serial number; of a program only its model tells it from others.
        dataset.DeviceSerialNumber = made_by.bundle_digest[:64]
        dataset.DeviceUID = device_uid(made_by)
        if self.station_name:
            dataset.StationName = plain(self.station_name, 16)
        dataset.CodingSchemeIdentificationSequence = [codes.scheme_identification()]
        dataset.ContributingEquipmentSequence = self._equipment()
        dataset.file_meta = _file_meta(dataset, transfer_syntax)
        return dataset

    def lossy_history(self, dataset: Dataset, *views: View) -> None:
        """Say whether what an object was made from has ever been compressed with loss."""
        dataset.LossyImageCompression = "00"
        for header in (self.sources[view].header for view in views):
            if text(header, "LossyImageCompression") == "01":
                for keyword in LOSSY:
                    if keyword in header:
                        dataset[keyword] = header[keyword]

    def _patient_and_study(self, dataset: Dataset) -> None:
        header = self.sources[View.AP].header
        for keyword in COPIED:
            if keyword in dataset:
                del dataset[keyword]
            if keyword in header:
                dataset[keyword] = header[keyword]
            elif keyword in NEVER_ABSENT:
                setattr(dataset, keyword, "")

    def _equipment(self) -> list[Dataset]:
        """What took the radiographs and what read them (PS3.3 C.12.1.1.5)."""
        acquired = [source.header for source in self.sources.values()]
        devices: list[Dataset] = []
        for header in acquired:
            device = Dataset()
            for keyword in EQUIPMENT:
                if text(header, keyword):
                    device[keyword] = header[keyword]
            if "Manufacturer" in device and device not in devices:  # type 1 in an item
                devices.append(device)
        for device in devices:
            device.PurposeOfReferenceCodeSequence = [codes.item(codes.ACQUISITION_EQUIPMENT)]
        return [*devices, _reader(self.prediction.provenance)]


def _reader(made_by: Provenance) -> Dataset:
    """This package with the bundle, the engine and the precision that answered."""
    reader = Dataset()
    reader.PurposeOfReferenceCodeSequence = [codes.item(codes.PROCESSING_EQUIPMENT)]
    reader.Manufacturer = reader.ManufacturerModelName = MAKER
    reader.SoftwareVersions = [
        plain(made_by.package_version, 64),
        plain(f"{made_by.backend} {made_by.backend_version}", 64),
    ]
    reader.DeviceSerialNumber = made_by.bundle_digest[:64]
    reader.ContributionDescription = plain("; ".join(parameters(made_by)), 1024)
    return reader


def device_uid(made_by: Provenance) -> str:
    """Names the program with its model: another one after every training, as IHE AIR asks."""
    return derived_uid("observer", made_by.package_version, made_by.bundle_digest)


def parameters(made_by: Provenance) -> list[str]:
    """With what the answer was made, one statement each."""
    stated = [f"override {name}={value}" for name, value in sorted(made_by.overrides.items())]
    settings = ", ".join(f"{name}={value}" for name, value in sorted(made_by.settings.items()))
    return [
        plain(statement, 1024)
        for statement in (
            f"bundle {made_by.bundle_name} {made_by.bundle_version}",
            f"bundle sha256 {made_by.bundle_digest}",
            *([f"overlay sha256 {made_by.overlay_digest}"] if made_by.overlay_digest else []),
            f"variant {made_by.variant}",
            f"engine {made_by.backend} {made_by.backend_version} on {made_by.device}",
            f"settings {settings or 'none'}",
            *stated,
        )
    ]


def plain(words: str, longest: int) -> str:
    """Text that every character set has, cut to the length of its attribute."""
    written = words.encode("ascii", "replace").decode("ascii").replace("\\", "/")
    return written if len(written) <= longest else written[: longest - 2] + ".."


def _file_meta(dataset: Dataset, transfer_syntax: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = derived_uid("implementation", MAKER)
    meta.ImplementationVersionName = plain(f"HIPNET_{dataset.SoftwareVersions}", 16)
    return meta
