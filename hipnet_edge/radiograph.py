"""One radiograph: its stored values, what they mean as grey levels, and which image it is."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.acquisition import (
    Exposure,
    PixelSpacing,
    Spacing,
    acquired_at,
    exposure_of,
    header_flags,
    spacing_of,
    stated_spacing,
)
from hipnet_edge.dicom_reader import DicomSource, text
from hipnet_edge.encoded import EncodedRadiograph
from hipnet_edge.errors import InputRefused, Reason
from hipnet_edge.grey_levels import (
    RANGE_OF_PIXELS,
    GreyTable,
    hides_pixels,
    table_for_range,
    table_from_header,
    valid_pixels,
)
from hipnet_edge.image_files import decode_image
from hipnet_edge.input_limits import ByteSource, check_image_size, refusing
from hipnet_edge.pixel_data import (
    Stored,
    decode_pixels,
    encoded_sha256,
    is_lossy,
    reduced_pixels,
)
from hipnet_edge.pixels import COARSE, ReducedPixels, WholePixels
from hipnet_edge.stated import Stated
from hipnet_edge.views import Anatomy, Finding, patient_left_of
from hipnet_edge.vocabulary import Flag, Laterality, View

__all__ = ["Anatomy", "Finding", "GreyTable", "PixelSpacing", "Radiograph"]

_MAX_ASPECT_RATIO = 3.0
_SATURATED_FRACTION = 0.5


@dataclass(frozen=True, eq=False, repr=False)
class Radiograph:
    """One view of a hip, read and checked; immutable.

    Attributes:
        pixels: the stored values, all of them or as far as they are asked for.
        valid: bool [rows, columns], read-only: False where there is pixel padding or a display
            shutter; None when every pixel is valid.
        grey_table: the grey level of every stored value.
        view: which projection it is, and what says so.
        laterality: which hip it shows, and what says so.
        anatomy: whether it shows a hip, and what says so.
        patient_left: the image side that shows the patient's left: "right" as is customary, or
            "left". Means nothing for a lateral view.
        pixel_spacing: None when nothing states one.
        sop_instance_uid: of the DICOM object; None for image files and arrays.
        study_instance_uid: likewise.
        encoded_sha256: SHA-256 of the JPEG 2000 or HTJ2K stream that it was decoded from; None for
            everything else.
        acquired_at: when it was taken, in the local time of the device.
        flags: what a result's reader should know of it.
        overrides: what the operator stated, such as {"view": "ap"}.
        exposure: what the detector says of it; None where the header says nothing.
    """

    pixels: WholePixels | ReducedPixels
    valid: NDArray[np.bool_] | None
    grey_table: GreyTable
    view: Finding[View]
    laterality: Finding[Laterality]
    anatomy: Finding[Anatomy]
    patient_left: str
    pixel_spacing: PixelSpacing | None
    sop_instance_uid: str | None
    study_instance_uid: str | None
    encoded_sha256: str | None
    acquired_at: datetime | None
    flags: tuple[Flag, ...]
    overrides: Mapping[str, str]
    exposure: Exposure | None = None
    _patient_id: str = field(default="")
    _digests: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_dicom(
        cls,
        source: DicomSource,
        *,
        view: View | str | None = None,
        laterality: Laterality | str | None = None,
        anatomy: Anatomy | str | None = None,
        allow_modalities: Collection[str] = (),
        exact: bool = True,
        decode_threads: int = 1,
    ) -> Radiograph:
        """Read a DICOM radiograph.

        Args:
            source: a path, the file's bytes, an open binary file or a pydicom `Dataset`.
            view: the operator's statement of the view; overrules the header and is recorded.
            laterality: likewise the side.
            anatomy: likewise the body part, "hip".
            allow_modalities: modalities to accept besides CR, DX and RG, such as "OT".
            exact: decode every pixel; False allows decoding shortcuts.
            decode_threads: how many threads decode this one image, where its encoding lets
                several (JPEG 2000 and HTJ2K).

        Raises:
            InputRefused: with the reason code.
        """
        encoded = EncodedRadiograph.from_dicom(
            source,
            view=view,
            laterality=laterality,
            anatomy=anatomy,
            allow_modalities=allow_modalities,
        )
        return cls.from_encoded(encoded, exact=exact, decode_threads=decode_threads)

    @classmethod
    def from_encoded(
        cls, encoded: EncodedRadiograph, *, exact: bool = True, decode_threads: int = 1
    ) -> Radiograph:
        """Decode a DICOM radiograph whose header was read before; arguments as of `from_dicom`.

        Raises:
            InputRefused: with the reason code.
        """
        dicom, layout, stated = encoded.dicom, encoded.layout, encoded.stated
        header = dicom.header
        with refusing(Reason.NOT_DICOM, "The header is damaged and cannot be read."):
            findings = stated.findings(header)
            pixels: WholePixels | ReducedPixels | None = None
            if not exact and not hides_pixels(header):
                pixels = reduced_pixels(dicom, layout, threads=decode_threads)
            valid = None
            if pixels is None:
                pixels = WholePixels(decode_pixels(dicom, layout, threads=decode_threads))
                valid = valid_pixels(header, pixels.stored)
            pixel_range = _pixel_range(pixels, valid)
            table = table_from_header(
                header, layout, pixel_range, little_endian=dicom.little_endian
            )
            if isinstance(pixels, ReducedPixels) and table.voi == RANGE_OF_PIXELS:
                # Grey levels must not depend on how much was decoded.
                return cls.from_encoded(encoded, decode_threads=decode_threads)
            _check_contrast(table, pixel_range)
            spacing = spacing_of(header)
            return cls(
                pixels,
                valid,
                table,
                *findings,
                patient_left=patient_left_of(header),
                pixel_spacing=spacing,
                sop_instance_uid=text(header, "SOPInstanceUID") or None,
                study_instance_uid=text(header, "StudyInstanceUID") or None,
                encoded_sha256=encoded_sha256(dicom),
                acquired_at=acquired_at(header),
                flags=(
                    *header_flags(header, lossy=is_lossy(dicom)),
                    *_flags(pixels, valid, table, spacing, stated),
                ),
                overrides=stated.overrides(),
                exposure=exposure_of(header),
                _patient_id=text(header, "PatientID"),
            )

    @classmethod
    def from_image(
        cls,
        source: ByteSource,
        *,
        view: View | str | None = None,
        laterality: Laterality | str | None = None,
        anatomy: Anatomy | str | None = None,
        pixel_spacing_mm: Spacing | None = None,
        inverted: bool = False,
    ) -> Radiograph:
        """Read a PNG, JPEG or TIFF radiograph of 8 or 16 bits.

        Args:
            source: a path, the file's bytes or an open binary file.
            view: which view it is, as the operator states.
            laterality: which side.
            anatomy: "hip", when the operator states that.
            pixel_spacing_mm: one distance, or that of rows and that of columns.
            inverted: bone is dark in the image.

        Raises:
            InputRefused: with the reason code.
        """
        stored, white_is_zero = decode_image(source)
        stated = Stated.of(view, laterality, anatomy)
        return cls._from_values(stored, stated, pixel_spacing_mm, inverted != white_is_zero)

    @classmethod
    def from_array(
        cls,
        array: NDArray[Any],
        *,
        view: View | str | None = None,
        laterality: Laterality | str | None = None,
        anatomy: Anatomy | str | None = None,
        pixel_spacing_mm: Spacing | None = None,
        inverted: bool = False,
    ) -> Radiograph:
        """Take a radiograph from an array, which is copied.

        Args:
            array: uint8, uint16 or int16 [rows, columns].
            view: which view it is, as the operator states.
            laterality: which side.
            anatomy: "hip", when the operator states that.
            pixel_spacing_mm: one distance, or that of rows and that of columns.
            inverted: bone is dark in the image.

        Raises:
            InputRefused: with the reason code.
        """
        with refusing(Reason.NOT_AN_IMAGE, "The array is not an image."):
            values = np.asarray(array)
        native = values.dtype.newbyteorder("=")
        if values.ndim != 2 or native not in (np.uint8, np.uint16, np.int16):
            raise InputRefused(
                Reason.NOT_AN_IMAGE, "An array must be two-dimensional uint8, uint16 or int16."
            )
        check_image_size(*values.shape)
        stored = np.array(values, dtype=native, order="C", copy=True)
        stated = Stated.of(view, laterality, anatomy)
        return cls._from_values(stored, stated, pixel_spacing_mm, inverted)

    @classmethod
    def _from_values(
        cls, stored: Stored, stated: Stated, spacing_mm: Spacing | None, inverted: bool
    ) -> Radiograph:
        stored.flags.writeable = False
        pixels = WholePixels(stored)
        pixel_range = _pixel_range(pixels, None)
        table = table_for_range(pixel_range, stored.dtype, inverted=inverted)
        _check_contrast(table, pixel_range)
        spacing = None if spacing_mm is None else stated_spacing(spacing_mm)
        return cls(
            pixels,
            None,
            table,
            *stated.findings(None),
            patient_left="right",
            pixel_spacing=spacing,
            sop_instance_uid=None,
            study_instance_uid=None,
            encoded_sha256=None,
            acquired_at=None,
            flags=_flags(pixels, None, table, spacing, stated),
            overrides=stated.overrides(),
        )

    @property
    def stored(self) -> Stored:
        """uint8, uint16 or int16 [rows, columns], read-only: the stored values."""
        return self.pixels.stored

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.pixels.shape

    @property
    def voi(self) -> str:
        """Which value of interest the grey levels rest on, such as "Window[0] LINEAR"."""
        return self.grey_table.voi

    @property
    def pixel_sha256(self) -> str | None:
        """SHA-256 over type, shape and stored values; computed when it is first asked for.

        It takes longer than all other reading of an uncompressed file. As it leaves the
        interpreter free, a program can ask for it on one thread while others go on. None where not
        every pixel is decoded.
        """
        if isinstance(self.pixels, ReducedPixels):
            return None
        if "sha256" not in self._digests:
            self._digests["sha256"] = _digest(self.stored)
        return self._digests["sha256"]

    @property
    def every_pixel(self) -> bool:
        """Whether all pixels were decoded, and not only what the network needs."""
        return not isinstance(self.pixels, ReducedPixels) or self.pixels.decoded_whole

    @property
    def named_by(self) -> Mapping[str, str | None]:
        """The hash by which a result names this image: the stream's where there is one."""
        encoded = self.encoded_sha256
        return {
            "pixel_sha256": None if encoded else self.pixel_sha256,
            "encoded_sha256": encoded,
        }

    def decoded_whole(self) -> Radiograph:
        """The same radiograph with every pixel decoded."""
        return replace(self, pixels=WholePixels(self.stored))

    def grey_levels(
        self, rows: slice = slice(None), columns: slice = slice(None)
    ) -> NDArray[np.float32]:
        """Grey levels of the radiograph or of a part of it.

        Returns:
            float32 [rows, columns] in [0, 1]; bright is dense; 0 where a pixel is not valid.
        """
        levels = self.grey_table.apply(self.stored[rows, columns])
        if self.valid is not None:
            levels *= self.valid[rows, columns]
        return levels

    def __repr__(self) -> str:
        rows, columns = self.shape
        return (
            f"Radiograph({rows} x {columns}, view={_word(self.view)}, "
            f"laterality={_word(self.laterality)}, anatomy={_word(self.anatomy)}, "
            f"voi={self.voi!r}, pixels={(self.pixel_sha256 or self.encoded_sha256 or '')[:12]})"
        )


def _pixel_range(
    pixels: WholePixels | ReducedPixels, valid: NDArray[np.bool_] | None
) -> tuple[int, int]:
    """The smallest and the largest stored value of the valid pixels, found in one pass."""
    import cv2

    mask = None if valid is None else valid.view(np.uint8)
    seen = pixels.coarse if isinstance(pixels, ReducedPixels) else pixels.stored
    low, high, _, _ = cv2.minMaxLoc(seen, mask)
    return int(low), int(high)


def _check_contrast(table: GreyTable, pixel_range: tuple[int, int]) -> None:
    low, high = (value - table.first for value in pixel_range)
    if not np.ptp(table.levels[low : high + 1]):
        raise InputRefused(Reason.EMPTY_IMAGE, "Every pixel of the image has the same grey level.")


def _digest(stored: Stored) -> str:
    digest = hashlib.sha256(f"{stored.dtype.name} {stored.shape}".encode())
    digest.update(stored.astype(stored.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()


def _flags(
    pixels: WholePixels | ReducedPixels,
    valid: NDArray[np.bool_] | None,
    table: GreyTable,
    spacing: PixelSpacing | None,
    stated: Stated,
) -> tuple[Flag, ...]:
    """What the pixels and the call say that a reader should know."""
    flags = []
    levels = table.apply(pixels.coarse)
    if valid is not None:
        levels = levels[valid[COARSE]]
    ends = (np.count_nonzero(levels == 0.0), np.count_nonzero(levels == 1.0))
    if max(ends) > _SATURATED_FRACTION * levels.size:
        flags.append(Flag.SATURATED)
    if max(pixels.shape) > _MAX_ASPECT_RATIO * min(pixels.shape):
        flags.append(Flag.ODD_ASPECT_RATIO)
    if spacing is None:
        flags.append(Flag.NO_PIXEL_SPACING)
    if stated.overrides():
        flags.append(Flag.OPERATOR_OVERRIDE)
    return tuple(flags)


def _word(finding: Finding[Any]) -> str:
    return "unknown" if finding.value is None else str(finding.value.value)
