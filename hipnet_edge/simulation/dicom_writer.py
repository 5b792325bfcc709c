"""Simulated radiographs as DX objects for presentation (PS3.3 A.26), with a synthetic patient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from ..dicom.identifiers import derived_uid
from ..vocabulary import Laterality, View

if TYPE_CHECKING:
    from .study import SimulatedView

SIMULATED = "SIMULATED RADIOGRAPH, NOT A PATIENT"
"""Image Comments (0020,4000) of everything simulated; the reader raises a flag on it."""

_VIEW_CODES = {
    View.AP: ("399348003", "antero-posterior"),
    View.LATERAL: ("399067008", "lateral projection"),
}
_SIDE_CODES = {
    Laterality.LEFT: ("7771000", "Left"),
    Laterality.RIGHT: ("24028007", "Right"),
    Laterality.BOTH: ("51440002", "Right and left"),
}


def _code(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def to_dataset(view: SimulatedView) -> FileDataset:
    """One view as a complete DX object: explicit little endian, 14 bits, uncompressed."""
    causes = [cause.value for cause in (view.cause, view.also) if cause]
    identity = (view.site.value, *causes, view.seed, view.pixel_spacing_mm, view.twin)
    study_uid = derived_uid("study", *identity)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = derived_uid("image", view.view.value, *identity)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = derived_uid("series", view.view.value, *identity)
    _patient_and_study(dataset, view)
    _equipment_and_series(dataset, view)
    _positioning(dataset, view)
    _pixels(dataset, view)
    return dataset


def _patient_and_study(dataset: Dataset, view: SimulatedView) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    patient = f"{view.site.value[0].upper()}-{view.seed}"
    dataset.PatientName = f"Simulated^Study {patient}"
    dataset.PatientID = f"SIM-{patient}"
    dataset.PatientBirthDate = "19500101"
    dataset.PatientSex = "O"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Simulated: there is no patient"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = "20260101"
    dataset.ContentDate = "20260101"
    minute = "00" if view.view is View.AP else "05"
    dataset.StudyTime = "120000"
    dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = f"12{minute}00"
    dataset.AccessionNumber = ""
    dataset.StudyID = str(view.seed)[:16]
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Hip, two views (simulated)"


def _equipment_and_series(dataset: Dataset, view: SimulatedView) -> None:
    from .. import __version__

    dataset.Modality = "DX"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.SeriesNumber = 1 if view.view is View.AP else 2
    dataset.InstanceNumber = 1
    dataset.SeriesDescription = f"Hip {view.projection} (simulated)"
    dataset.Manufacturer = "hipnet_edge simulation"
    dataset.ManufacturerModelName = "hipnet_edge.simulation"
    dataset.SoftwareVersions = __version__
    dataset.DeviceSerialNumber = "0"
    dataset.ImageComments = SIMULATED
    dataset.AcquisitionContextSequence = []


def _positioning(dataset: Dataset, view: SimulatedView) -> None:
    dataset.BodyPartExamined = "PELVIS" if view.laterality is Laterality.BOTH else "HIP"
    dataset.ImageLaterality = view.laterality.dicom
    region = _code("24136001", "Hip joint")
    region.AnatomicRegionModifierSequence = [_code(*_SIDE_CODES[view.laterality])]
    dataset.AnatomicRegionSequence = [region]
    lateral = "RL" if view.laterality is Laterality.RIGHT else "LL"
    dataset.ViewPosition = "AP" if view.view is View.AP else lateral
    dataset.ViewCodeSequence = [_code(*_VIEW_CODES[view.view])]
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []
    orientation = "L"  # of the pelvis, which in a frog-leg lies as in an AP
    if view.projection == "cross-table":
        orientation = "A" if view.laterality is Laterality.RIGHT else "P"
    dataset.PatientOrientation = [orientation, "F"]
    dataset.PositionerType = "NONE"


def _pixels(dataset: Dataset, view: SimulatedView) -> None:
    top = 2**view.bits_stored - 1
    stored = view.stored if not view.monochrome1 else (top - view.stored).astype(np.uint16)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if view.monochrome1 else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if view.monochrome1 else "IDENTITY"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = view.bits_stored
    dataset.HighBit = view.bits_stored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if view.monochrome1 else -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.WindowCenter, dataset.WindowWidth = 2 ** (view.bits_stored - 1), 2**view.bits_stored
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    spacing = f"{view.pixel_spacing_mm:.6g}"
    dataset.ImagerPixelSpacing = [spacing, spacing]
    dataset.DetectorType = "SCINTILLATOR"
    dataset.PixelData = stored.astype("<u2").tobytes()
