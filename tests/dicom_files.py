"""Makes DICOM radiographs for tests, in every transfer syntax that radiography uses.

    data = make_dicom(stored, transfer_syntax=HTJ2K_LOSSLESS, bits_stored=12)
    data = make_dicom(stored, photometric="MONOCHROME1", padding=0, ViewPosition="LL")

Any attribute can be given by its DICOM keyword; None leaves it out.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
HTJ2K_SYNTAXES = (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
LOSSLESS = (
    *NATIVE,
    RLELossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
)
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K)

PATIENT_NAME = "Mustermann^Erika"
PATIENT_ID = "HOSPITAL-0815"


def can_encode(transfer_syntax: str) -> bool:
    """imagecodecs for Python 3.10 has no HTJ2K."""
    return transfer_syntax not in HTJ2K_SYNTAXES or hasattr(imagecodecs, "htj2k_encode")


def scene(bits: int = 12, rows: int = 160, columns: int = 128, seed: int = 0) -> NDArray[Any]:
    """A smooth scene with noise and sharp edges, using the whole range of the bits.

    The same scene for every depth, so that it can be compared across depths.
    """
    y, x = np.mgrid[0:rows, 0:columns]
    picture = 0.45 + 0.35 * np.sin(y / 23 + seed) * np.cos(x / 17)
    picture += np.random.default_rng(seed).normal(0, 0.01, picture.shape)
    picture[rows // 3 : rows // 2, columns // 3 : columns // 2] = 1.0
    picture[-8:, :8] = 0.0
    levels = np.rint(np.clip(picture, 0, 1) * (2**bits - 1))
    return levels.astype(np.uint8 if bits <= 8 else np.uint16)


def make_dataset(
    stored: NDArray[Any],
    *,
    transfer_syntax: str = ExplicitVRLittleEndian,
    bits_stored: int | None = None,
    photometric: str = "MONOCHROME2",
    padding: int | None = None,
    frame: bytes | None = None,
    **attributes: Any,
) -> Dataset:
    """A complete DX radiograph of a left hip, AP, as a data set with its file meta information.

    Args:
        stored: uint8, uint16 or int16 [rows, columns], already holding padding if there is any.
        transfer_syntax: how the pixels are encoded.
        bits_stored: 16 or 8 unless given.
        photometric: MONOCHROME1 or MONOCHROME2.
        padding: the Pixel Padding Value (0028,0120).
        frame: the encoded frame, instead of encoding `stored`.
        **attributes: by keyword; None leaves an attribute out.
    """
    bits = bits_stored or stored.dtype.itemsize * 8
    dataset = Dataset()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.2"
    dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.3"
    dataset.PatientName, dataset.PatientID = PATIENT_NAME, PATIENT_ID
    dataset.Modality, dataset.PresentationIntentType = "DX", "FOR PRESENTATION"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.BodyPartExamined, dataset.ImageLaterality, dataset.ViewPosition = "HIP", "L", "AP"
    dataset.PatientOrientation = ["L", "F"]
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20240513", "101500"
    dataset.ImagerPixelSpacing = [0.15, 0.15]
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "01" if transfer_syntax in LOSSY else "00"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored = stored.dtype.itemsize * 8, bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(stored.dtype.kind == "i")
    dataset.PresentationLUTShape = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    if padding is not None:
        dataset.PixelPaddingValue = padding
    if transfer_syntax in NATIVE and frame is None:
        order = ">" if transfer_syntax == ExplicitVRBigEndian else "<"
        pixels = np.ascontiguousarray(stored, stored.dtype.newbyteorder(order)).tobytes()
        pixels += b"\0" * (len(pixels) % 2)
    else:
        pixels = encapsulate([encode(stored, transfer_syntax, bits) if frame is None else frame])
    dataset.add_new("PixelData", "OB" if stored.dtype.itemsize == 1 else "OW", pixels)
    dataset["PixelData"].is_undefined_length = transfer_syntax not in NATIVE
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    for keyword, value in attributes.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def look_up_table(entries: NDArray[Any], first: int, bits: int, *, words: bool = False) -> Dataset:
    """An item of a Modality or VOI LUT Sequence; its data as numbers or as little-endian words."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries), first, bits])
    data = entries.astype("<u2").tobytes() if words else [int(value) for value in entries]
    item.add_new("LUTData", "OW" if words else "US", data)
    return item


def to_bytes(dataset: Dataset) -> bytes:
    """A data set as the bytes of a DICOM file."""
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def make_dicom(stored: NDArray[Any], **options: Any) -> bytes:
    """The bytes of a DICOM file; takes what `make_dataset` takes."""
    return to_bytes(make_dataset(stored, **options))


def encode(stored: NDArray[Any], transfer_syntax: str, bits: int) -> bytes:
    """One encoded frame. Lossy syntaxes are encoded with loss."""
    if transfer_syntax == RLELossless:
        return _run_length(stored)
    if transfer_syntax in (JPEGLossless, JPEGLosslessSV1):
        predictor = 1 if transfer_syntax == JPEGLosslessSV1 else 4
        words = stored.view(np.uint16) & (2**bits - 1) if stored.dtype == np.int16 else stored
        return imagecodecs.jpeg8_encode(
            words, lossless=True, predictor=predictor, bitspersample=bits
        )
    if transfer_syntax in (JPEGBaseline8Bit, JPEGExtended12Bit):
        return imagecodecs.jpeg8_encode(stored, level=95, bitspersample=bits)
    if transfer_syntax in (JPEGLSLossless, JPEGLSNearLossless):
        return _jpeg_ls(stored, bits, 0 if transfer_syntax == JPEGLSLossless else 2)
    if transfer_syntax in (JPEG2000Lossless, JPEG2000):
        reversible = transfer_syntax == JPEG2000Lossless
        return imagecodecs.jpeg2k_encode(
            stored,
            0 if reversible else 60,
            codecformat="j2k",
            reversible=reversible,
            bitspersample=bits,
        )
    if transfer_syntax in HTJ2K_SYNTAXES:
        if transfer_syntax == HTJ2K:
            return imagecodecs.htj2k_encode(stored, 0.0005, reversible=False)
        return imagecodecs.htj2k_encode(stored, reversible=True)
    raise ValueError(f"no encoder for {transfer_syntax}")


def _jpeg_ls(stored: NDArray[Any], bits: int, near: int) -> bytes:
    import jpeg_ls

    rows, columns = stored.shape
    encoded = jpeg_ls.encode_pixel_data(
        stored.tobytes(),
        near,
        rows=rows,
        columns=columns,
        samples_per_pixel=1,
        bits_stored=bits,
        bits_allocated=stored.dtype.itemsize * 8,
        photometric_interpretation="MONOCHROME2",
        pixel_representation=0,
    )
    return bytes(encoded) + b"\0" * (len(encoded) % 2)


def _run_length(stored: NDArray[Any]) -> bytes:
    dataset = make_dataset(stored)
    dataset.compress(RLELossless, generate_instance_uid=False)
    return next(generate_frames(dataset.PixelData, number_of_frames=1))
