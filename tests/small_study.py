"""Small DX objects for tests of the runtime: no picture of a hip, but each one different."""

from __future__ import annotations

from io import BytesIO

import cv2
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

PATIENT = "Doe^Secret"
PATIENT_ID = "SECRET-4711"
BIRTH_DATE = "19550413"


def small_dicom(
    view: str, seed: int, *, laterality: str = "L", rows: int = 480, columns: int = 400
) -> Dataset:
    """A few soft clouds as a complete DX object of a hip; `view` is "ap" or "lateral"."""
    drawn = np.random.default_rng([seed, view == "ap"]).random((4, 3))
    smooth = cv2.resize(drawn, (columns, rows), interpolation=cv2.INTER_LINEAR)
    stored = np.clip(smooth * 3000 + 500, 0, 4095).astype(np.uint16)
    dataset = Dataset()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = f"1.2.3.{seed}.{1 if view == 'ap' else 2}"
    dataset.StudyInstanceUID = f"1.2.3.{seed}"
    dataset.SeriesInstanceUID = f"1.2.3.{seed}.0"
    dataset.PatientName, dataset.PatientID = PATIENT, PATIENT_ID
    dataset.PatientBirthDate = BIRTH_DATE
    dataset.Modality, dataset.PresentationIntentType = "DX", "FOR PRESENTATION"
    dataset.BodyPartExamined, dataset.ImageLaterality = "HIP", laterality
    dataset.ViewPosition = "AP" if view == "ap" else "LL"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.ImagerPixelSpacing = ["0.4", "0.4"]
    dataset.PixelData = stored.tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def dicom_bytes(dataset: Dataset) -> bytes:
    """The dataset as the bytes of a DICOM file."""
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def pair(
    seed: int, *, laterality: str = "L", rows: int = 480, columns: int = 400
) -> tuple[bytes, bytes]:
    """AP and lateral of one small study, as the bytes of DICOM files."""
    ap, lateral = (
        dicom_bytes(small_dicom(view, seed, laterality=laterality, rows=rows, columns=columns))
        for view in ("ap", "lateral")
    )
    return ap, lateral
