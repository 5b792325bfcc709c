"""Bytes to a DICOM header and the still encoded pixel data, within bounds.

pydicom parses the header; it is given only the attributes named in `HEADER_KEYWORDS` and a stream
that refuses values larger and elements more numerous than any radiograph's. Patient names and the
like are parsed only where results are filed beside a radiograph (`hipnet_edge.dicom.source`).
Pixel data stays where it lies in the file's bytes.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Union

from hipnet_edge.errors import InputRefused, Reason
from hipnet_edge.input_limits import ByteSource, check_image_size, read_bytes, refusing

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class _Inflater(Protocol):
    """A `zlib` decompressor; its class has no public name."""

    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


DicomSource = Union[ByteSource, "Dataset"]

MODALITIES = frozenset({"CR", "DX", "RG"})
"""Projection radiography; RG is digitised film. Others only when asked for."""

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

HEADER_KEYWORDS = (
    # Which object it is
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "PatientID", "Modality", "ImageType"),
    *("PresentationIntentType", "ConversionType", "NumberOfFrames"),
    *("AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime"),
    *("ExposureIndex", "TargetExposureIndex", "DeviationIndex"),
    # Which view, side and body part
    *("ViewCodeSequence", "ViewPosition", "AcquisitionDeviceProcessingDescription"),
    *("SeriesDescription", "ProtocolName", "StudyDescription", "ImageLaterality", "Laterality"),
    *("AnatomicRegionSequence", "BodyPartExamined", "PatientOrientation"),
    # How the pixels are stored
    *("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "LossyImageCompression"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    # How they are to be shown
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *("ShutterShape", "ShutterLeftVerticalEdge", "ShutterRightVerticalEdge"),
    *("ShutterUpperHorizontalEdge", "ShutterLowerHorizontalEdge", "CenterOfCircularShutter"),
    *("RadiusOfCircularShutter", "VerticesOfThePolygonalShutter"),
    # What else a reader should know
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"),
    *("BurnedInAnnotation", "ImageComments", "DerivationDescription"),
)
"""All that is read of a header to answer for it."""

_MAX_VALUE_BYTES = 1024**2
_MAX_HEADER_BYTES = 16 * 1024**2
_MAX_HEADER_READS = 100_000
_MAX_DEFLATED_HEADER_BYTES = 4 * 1024**2
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_META_START = 132


@dataclass(frozen=True)
class DicomObject:
    """A DICOM object as far as reading a radiograph needs it.

    Attributes:
        header: the attributes; never shown, it may hold patient data.
        transfer_syntax: UID of the encoding of the pixel data.
        pixels: the value of Pixel Data (7FE0,0010), still encoded; None when there is none.
        pixel_vr: its value representation, OB or OW.
        declared_length: the length the file states for it; None when it is encapsulated.
    """

    header: Dataset = field(repr=False)
    transfer_syntax: str
    pixels: memoryview | None = field(repr=False)
    pixel_vr: str
    declared_length: int | None

    @property
    def little_endian(self) -> bool:
        """The byte order of binary values."""
        return self.transfer_syntax != EXPLICIT_BIG


def read_dicom(source: DicomSource, keywords: Collection[str] = HEADER_KEYWORDS) -> DicomObject:
    """Read header and encoded pixel data of a DICOM object.

    Args:
        source: a path, the file's bytes, an open binary file or a pydicom `Dataset`.
        keywords: the attributes to read; of a `Dataset` all that it has are there.

    Raises:
        InputRefused: `UNREADABLE_FILE`, `TOO_LARGE` or `NOT_DICOM`.
    """
    from pydicom.dataset import Dataset

    with refusing(Reason.NOT_DICOM, "The file is not DICOM, or its header is damaged."):
        if isinstance(source, Dataset):
            return _from_dataset(source)
        return _from_bytes(read_bytes(source), keywords)


def _from_dataset(dataset: Dataset) -> DicomObject:
    meta = getattr(dataset, "file_meta", None)
    syntax = str(meta.get("TransferSyntaxUID", "") if meta is not None else "")
    if not syntax:
        syntax = EXPLICIT_BIG if dataset.original_encoding[1] is False else EXPLICIT_LITTLE
    if "PixelData" not in dataset:
        return DicomObject(dataset, syntax, None, "", None)
    element = dataset["PixelData"]
    pixels = memoryview(element.value or b"")
    native = syntax in (IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG)
    return DicomObject(dataset, syntax, pixels, str(element.VR), len(pixels) if native else None)


def _from_bytes(data: bytes, keywords: Collection[str]) -> DicomObject:
    from pydicom.filereader import read_dataset
    from pydicom.tag import BaseTag, Tag

    syntax, start = read_meta(data)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if syntax == DEFLATED else None
    if inflater:  # PS3.5 A.5; the header first, the pixels only once their size is known
        data, start = inflater.decompress(data[start:], _MAX_DEFLATED_HEADER_BYTES), 0
    stream = _HeaderStream(data)
    stream.seek(start)
    header = read_dataset(
        stream,
        is_implicit_VR=syntax == IMPLICIT_LITTLE,
        is_little_endian=syntax != EXPLICIT_BIG,
        stop_when=lambda tag, vr, length: tag in _PIXEL_TAGS,
        specific_tags=[BaseTag(Tag(keyword)) for keyword in keywords],
    )
    implicit, little = header.original_encoding
    position = stream.tell()
    if len(data) < position + 12:
        return DicomObject(header, syntax, None, "", None)
    order = "<" if little else ">"
    group, element = struct.unpack_from(order + "HH", data, position)
    if (group, element) != (0x7FE0, 0x0010):
        raise InputRefused(
            Reason.UNSUPPORTED_PIXELS, "The pixels are floating-point numbers, not a radiograph."
        )
    vr = "OW" if implicit else data[position + 4 : position + 6].decode("ascii")
    begin = position + (8 if implicit else 12)
    (length,) = struct.unpack_from(order + "I", data, begin - 4)
    undefined = length == 0xFFFFFFFF
    if inflater:
        data += _inflate_pixels(inflater, header, begin + length - len(data), length)
    pixels = memoryview(data)[begin : len(data) if undefined else begin + length]
    return DicomObject(header, syntax, pixels, vr, None if undefined else length)


def _inflate_pixels(inflater: _Inflater, header: Dataset, missing: int, length: int) -> bytes:
    """The rest of a deflated data set, never more than the image that its header declares."""
    rows, columns = integer(header, "Rows", 0), integer(header, "Columns", 0)
    check_image_size(rows, columns)
    if length > rows * columns * 2 + 1:
        raise InputRefused(Reason.CORRUPT_PIXELS, "The pixel data does not fit the image's size.")
    return inflater.decompress(inflater.unconsumed_tail, missing) if missing > 0 else b""


def read_meta(data: bytes) -> tuple[str, int]:
    """Transfer syntax and where the data set begins (PS3.10 7.1; always explicit little endian)."""
    if data[128:_META_START] != b"DICM":
        raise InputRefused(Reason.NOT_DICOM, "The file is not DICOM.")
    syntax, position = "", _META_START
    while position + 8 <= len(data):
        group, element, vr, length = struct.unpack_from("<HH2sH", data, position)
        if group != 0x0002:
            break
        position += 8
        if vr in (b"OB", b"OW", b"UN", b"UT", b"SQ"):
            (length,) = struct.unpack_from("<I", data, position)
            position += 4
        if element == 0x0010:
            syntax = data[position : position + min(length, 64)].decode("ascii").strip("\0 ")
        position += length
    if not syntax:
        raise InputRefused(Reason.NOT_DICOM, "The file does not say how it is encoded.")
    return syntax, position


class _HeaderStream(io.BytesIO):
    """The file as pydicom reads it: few, small reads, or none at all.

    Every element costs a read and every value its length, so a header of a million sequence items
    or a value of a gigabyte is refused before objects are made of it.
    """

    _reads = 0
    _bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > _MAX_VALUE_BYTES:
            raise InputRefused(Reason.TOO_LARGE, "The header holds a value too large to read.")
        self._reads += 1
        self._bytes += size
        if self._reads > _MAX_HEADER_READS or self._bytes > _MAX_HEADER_BYTES:
            raise InputRefused(Reason.TOO_LARGE, "The header is too large to read.")
        return super().read(size)


def check_kind(dicom: DicomObject, allow_modalities: Collection[str] = ()) -> None:
    """Refuse what is no single grey radiograph meant for reading.

    Raises:
        InputRefused: `WRONG_MODALITY`, `NOT_AN_IMAGE`, `NOT_FOR_PRESENTATION`, `MULTI_FRAME` or
            `UNSUPPORTED_PIXELS`.
    """
    header = dicom.header
    modality = text(header, "Modality").upper()
    if modality not in MODALITIES and modality not in {name.upper() for name in allow_modalities}:
        raise InputRefused(
            Reason.WRONG_MODALITY, "The object is no radiograph: its modality is not CR, DX or RG."
        )
    image_type = text(header, "ImageType").upper()
    if text(header, "ConversionType").upper() == "WSD" or "SCREEN SAVE" in image_type:
        raise InputRefused(Reason.WRONG_MODALITY, "The image is a screenshot, not a radiograph.")
    if dicom.pixels is None:
        raise InputRefused(Reason.NOT_AN_IMAGE, "The DICOM object holds no image.")
    intent = text(header, "PresentationIntentType").upper()
    # Digital X-Ray Image Storage - For Processing
    if intent == "FOR PROCESSING" or text(header, "SOPClassUID") == "1.2.840.10008.5.1.4.1.1.1.1.1":
        raise InputRefused(
            Reason.NOT_FOR_PRESENTATION,
            "The image holds unprocessed detector values (FOR PROCESSING); send the one for "
            "presentation.",
        )
    if integer(header, "NumberOfFrames", 1) > 1:
        raise InputRefused(Reason.MULTI_FRAME, "The object holds more than one frame.")
    photometric = text(header, "PhotometricInterpretation").upper()
    if integer(header, "SamplesPerPixel", 1) != 1 or photometric not in (
        "MONOCHROME1",
        "MONOCHROME2",
    ):
        raise InputRefused(
            Reason.UNSUPPORTED_PIXELS, "The image is stored in colour, as no radiograph is."
        )


def text(header: Dataset, keyword: str) -> str:
    """An attribute as stripped text; several values joined by a backslash; "" when empty."""
    value = header.get(keyword)
    if value is None:
        return ""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        value = [value]
    return "\\".join(str(part).strip("\0 ") for part in value)


def numbers(header: Dataset, keyword: str) -> tuple[float, ...]:
    """A numeric attribute's finite values; () when it is absent or empty."""
    value = header.get(keyword)
    if value is None or value == "":
        return ()
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        value = [value]
    found = tuple(float(part) for part in value if part not in (None, ""))
    if not all(map(math.isfinite, found)):
        raise InputRefused(Reason.NOT_DICOM, f"{keyword} in the header is no finite number.")
    return found


def integer(header: Dataset, keyword: str, default: int) -> int:
    """A whole-number attribute, or the default when it is absent or empty."""
    found = numbers(header, keyword)
    return int(found[0]) if found else default


def items(header: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; [] when it is absent."""
    return list(header.get(keyword) or ())
