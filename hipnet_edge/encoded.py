"""A DICOM radiograph of which the header is read and checked, its pixels still encoded.

Reading stops here once before decoding, the dear part, begins: `Radiograph.from_dicom` goes on at
once, a predictor times the two apart.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from hipnet_edge.dicom_reader import DicomObject, DicomSource, check_kind, read_dicom
from hipnet_edge.errors import Reason
from hipnet_edge.input_limits import refusing
from hipnet_edge.pixel_data import PixelLayout, read_layout
from hipnet_edge.stated import Stated
from hipnet_edge.views import Anatomy
from hipnet_edge.vocabulary import Laterality, View


@dataclass(frozen=True)
class EncodedRadiograph:
    """What `Radiograph.from_encoded` makes a radiograph of.

    Attributes:
        dicom: header and encoded pixels; holds patient data.
        layout: how the header says that the pixels are stored.
        stated: what the operator states of the image.
    """

    dicom: DicomObject = field(repr=False)
    layout: PixelLayout
    stated: Stated

    @classmethod
    def from_dicom(
        cls,
        source: DicomSource,
        *,
        view: View | str | None = None,
        laterality: Laterality | str | None = None,
        anatomy: Anatomy | str | None = None,
        allow_modalities: Collection[str] = (),
    ) -> EncodedRadiograph:
        """Read the header of a DICOM radiograph; arguments as of `Radiograph.from_dicom`.

        Raises:
            InputRefused: it is no radiograph, or none that can be read.
        """
        stated = Stated.of(view, laterality, anatomy)
        dicom = read_dicom(source)
        with refusing(Reason.NOT_DICOM, "The header is damaged and cannot be read."):
            check_kind(dicom, allow_modalities)
            return cls(dicom, read_layout(dicom.header), stated)
