"""Makes hipnet_edge/decoder_samples: one small radiograph, stored as each compression allows.

Run once by hand with `python tests/make_decoder_samples.py`; `hipnet-edge doctor` decodes the files
and compares them with the values they were made from.
"""

from __future__ import annotations

from pathlib import Path

import imagecodecs
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from hipnet_edge.doctor import SAMPLES, sample_pixels


def encoded(name: str) -> tuple[str, int, bytes]:
    """Transfer syntax, bits stored and code stream of one sample."""
    twelve = sample_pixels(12)
    encoders = {
        "jpeg-baseline": (JPEGBaseline8Bit, 8, lambda a: imagecodecs.jpeg8_encode(a, level=95)),
        "jpeg-extended": (
            JPEGExtended12Bit,
            12,
            lambda a: imagecodecs.jpeg8_encode(a, level=95, bitspersample=12),
        ),
        "jpeg-lossless": (
            JPEGLosslessSV1,
            12,
            lambda a: imagecodecs.jpeg8_encode(a, lossless=True, predictor=1, bitspersample=12),
        ),
        "jpeg-ls": (JPEGLSLossless, 12, imagecodecs.jpegls_encode),
        "jpeg-2000": (
            JPEG2000Lossless,
            12,
            lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="j2k", reversible=True),
        ),
        "htj2k": (HTJ2KLossless, 12, lambda a: imagecodecs.htj2k_encode(a, reversible=True)),
    }
    syntax, bits, encode = encoders[name]
    return syntax, bits, encode(twelve if bits == 12 else sample_pixels(8))


def dataset(name: str) -> Dataset:
    """One sample as a DICOM object; its UIDs follow from its name."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    ds.SOPInstanceUID = generate_uid(entropy_srcs=["hipnet_edge decoder sample", name])
    ds.Modality, ds.PresentationIntentType = "DX", "FOR PRESENTATION"
    ds.ViewPosition, ds.BodyPartExamined, ds.ImageLaterality = "AP", "HIP", "L"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.PixelRepresentation = 0
    if name == "rle":
        syntax, bits, stream = RLELossless, 12, b""
    else:
        syntax, bits, stream = encoded(name)
    pixels = sample_pixels(bits)
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * pixels.itemsize, bits, bits - 1
    if name == "rle":
        ds.PixelData = pixels.tobytes()
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        ds.compress(syntax, generate_instance_uid=False)
    else:
        ds.PixelData = encapsulate([stream])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = syntax
    return ds


if __name__ == "__main__":
    folder = Path(__file__).parent.parent / "hipnet_edge" / "decoder_samples"
    for sample in SAMPLES:
        dataset(sample.name).save_as(folder / f"{sample.name}.dcm", enforce_file_format=True)
