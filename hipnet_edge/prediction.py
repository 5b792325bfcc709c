"""What the package answers: a frozen `Prediction` with everything a screen or a PACS needs.

No name, number or birth date of a patient is in it; the two radiographs are named by their UIDs
and by a digest of their pixels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.errors import UsageError
from hipnet_edge.vocabulary import CAUSES, VIEWS, Cause, Flag, Laterality, View

if TYPE_CHECKING:
    from hipnet_edge.acquisition import Exposure
    from hipnet_edge.collimation import Box
    from hipnet_edge.dicom_reader import DicomSource
    from hipnet_edge.geometry import Geometry
    from hipnet_edge.radiograph import PixelSpacing
    from hipnet_edge.study import Study
    from hipnet_edge.views import Anatomy


@dataclass(frozen=True)
class InputRecord:
    """Which radiograph was read as a view, what was believed of it and on what evidence."""

    view: View
    view_source: str
    laterality: Laterality
    """The hip that was read: left or right, never both."""
    laterality_source: str
    anatomy: Anatomy | None
    """What header or operator say it shows; None where only the pixels say it is a hip."""
    anatomy_source: str
    sop_instance_uid: str | None
    study_instance_uid: str | None
    pixel_sha256: str | None
    """Over the stored values; names the picture where no UID does. None for JPEG 2000 and HTJ2K."""
    encoded_sha256: str | None
    """Over the stream that a JPEG 2000 or HTJ2K radiograph was decoded from; None for others."""
    every_pixel: bool
    """Whether every pixel was decoded: see `exact` of `Predictor`."""
    pixel_spacing: PixelSpacing | None
    exposure: Exposure | None
    """What the detector says of its exposure; None where the header says nothing."""
    voi: str
    """Which VOI transformation of the header was applied."""
    geometry: Geometry
    """What was cropped, mirrored and resized; carries maps back to the radiograph's pixels."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the radiograph."""
        return self.geometry.image_shape

    @property
    def box(self) -> Box:
        """What the network saw, in the radiograph's pixels; may reach outside the frame."""
        return self.geometry.box

    @property
    def mirrored(self) -> bool:
        """Whether the network saw it mirrored, as it does every right hip."""
        return self.geometry.mirrored


@dataclass(frozen=True)
class Provenance:
    """What made a result: enough to make the same one again."""

    package_version: str
    bundle_name: str
    bundle_version: str
    bundle_digest: str
    overlay_digest: str | None
    """Of the site's own calibration, where one was used in place of the bundle's."""
    variant: str
    backend: str
    backend_version: str
    device: str
    settings: Mapping[str, object]
    """What the backend was started with."""
    overrides: Mapping[str, str]
    """What the operator stated against or beside the headers."""
    intended_use: str

    def __post_init__(self) -> None:
        for name in ("settings", "overrides"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


@dataclass(frozen=True, repr=False, eq=False)
class Prediction:
    """The answer for one study.

    Two predictions are equal when they agree in everything but `timings_ms`.
    """

    probabilities: Mapping[Cause, float]
    """By cause, in the order of `CAUSES`; they sum to 1."""
    member_probabilities: Mapping[str, Mapping[Cause, float]]
    """The same from each backbone alone, by its name."""
    maps: Mapping[View, NDArray[np.float32]]
    """Disease-probability maps, float32 [5, h, w], read-only, in the network's own frame (a right
    hip lies mirrored there); empty if the prediction was stored without them."""
    plausible_causes: tuple[Cause, ...]
    """The causes that stay plausible, in the order of `CAUSES`, the leading one always among them:
    on studies like those of the calibration the true cause is among them as often as the bundle's
    coverage says. Empty if the bundle lacks calibration."""
    novelty: float | None
    """How far the study is from those the model was fitted to: about 1 for one of those, more for
    a stranger. None if the bundle lacks calibration."""
    sign_of_failure: float | None
    """The calibrated probability that the films show any sign of failure; None if the bundle
    lacks calibration. Every other probability assumes that the prosthesis has failed."""
    flags: tuple[Flag, ...]
    """What a reader should know about the inputs, in the order of `Flag`."""
    inputs: Mapping[View, InputRecord]
    timings_ms: Mapping[str, float]
    """Milliseconds by stage: `read` (bytes and header) and `decode` unless a study was given, then
    `preprocess`, `inference`, and `total`."""
    provenance: Provenance

    def __post_init__(self) -> None:
        maps = {view: np.array(stack, np.float32) for view, stack in self.maps.items()}
        for stack in maps.values():
            stack.setflags(write=False)
        members = {
            name: MappingProxyType(dict(member))
            for name, member in self.member_probabilities.items()
        }
        object.__setattr__(self, "maps", MappingProxyType(maps))
        object.__setattr__(self, "member_probabilities", MappingProxyType(members))
        for name in ("probabilities", "inputs", "timings_ms"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def leading_cause(self) -> Cause:
        """The most probable cause; of equally probable ones the first in the order of `CAUSES`."""
        return max(CAUSES, key=self.probabilities.__getitem__)

    @property
    def pji_risk(self) -> float:
        """The probability of periprosthetic joint infection, 0 to 1."""
        return self.probabilities[Cause.PJI]

    @property
    def disagreement(self) -> float:
        """How far the four backbones are apart, 0 (they say the same) to 1.

        The mean over the backbones of the total-variation distance between a backbone's
        probabilities and the ensemble's: the share of probability that it would place elsewhere.
        """
        distances = [
            0.5 * sum(abs(member[cause] - self.probabilities[cause]) for cause in CAUSES)
            for member in self.member_probabilities.values()
        ]
        return sum(distances) / len(distances)

    def map_for(
        self, view: View | str, cause: Cause | str, *, full_resolution: bool = False
    ) -> NDArray[np.float32]:
        """One disease-probability map.

        Args:
            view: the radiograph.
            cause: the cause.
            full_resolution: in the radiograph's own pixels, mirrored back where it was mirrored
                and 0 where the network did not look, instead of the network's frame.

        Returns:
            float32 [h, w], read-only, or [rows, columns] of the radiograph; 0 to 1.

        Raises:
            UsageError: there is no such view or cause, or the prediction was stored without maps.
        """
        try:
            view, cause = View(view), Cause(cause)
        except ValueError as error:
            raise UsageError(f"There is no map for {view} and {cause}.") from error
        if view not in self.maps:
            raise UsageError("This prediction was stored without its maps.")
        probability: NDArray[np.float32] = self.maps[view][CAUSES.index(cause)]
        if not full_resolution:
            return probability
        return self.inputs[view].geometry.map_to_image(probability)

    def to_dict(self, *, maps: bool = True) -> dict[str, object]:
        """The prediction as a JSON object (`prediction.schema.json`); `from_dict` undoes it.

        Args:
            maps: with the maps; without them it is a few kilobytes.
        """
        from hipnet_edge.prediction_json import to_dict

        return to_dict(self, maps=maps)

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> Prediction:
        """A prediction from what `to_dict` gave.

        Raises:
            UsageError: the value does not follow the schema; the field is named.
        """
        from hipnet_edge.prediction_json import from_dict

        return from_dict(value)

    def save_dicom(
        self,
        folder: str | os.PathLike[str],
        ap: DicomSource,
        lateral: DicomSource,
        *,
        study: Study | None = None,
        station_name: str | None = None,
    ) -> list[Path]:
        """Write the result as DICOM objects: report, maps of each view, picture (extra `dicom`).

        A prediction holds neither whose radiographs it was made from nor their pixels, so they
        are given once more.

        Args:
            folder: for `report.dcm`, `segmentation_ap.dcm`, `segmentation_lateral.dcm` and
                `capture.dcm`; made if missing. They hold what the headers say of the patient.
            ap: the AP radiograph that it was made from, as a DICOM object.
            lateral: likewise the lateral.
            study: the two with every pixel decoded, if at hand.
            station_name: names the device in the objects.

        Returns:
            The files.

        Raises:
            InputRefused: a radiograph cannot be read or lacks a UID.
            UsageError: the prediction was made from others or stored without maps, or the folder
                cannot be written.
            MissingExtra: highdicom is not installed.
        """
        from hipnet_edge.dicom.results import result_objects, write_objects

        objects = result_objects(self, ap, lateral, study=study, station_name=station_name)
        return write_objects(objects, Path(folder))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prediction):
            return NotImplemented
        apart = ("maps", "timings_ms")
        return (
            all(
                getattr(self, field.name) == getattr(other, field.name)
                for field in fields(self)
                if field.name not in apart
            )
            and self.maps.keys() == other.maps.keys()
            and all(np.array_equal(self.maps[view], other.maps[view]) for view in self.maps)
        )

    def __repr__(self) -> str:
        flags = [flag.value for flag in self.flags]
        leading = self.leading_cause
        return (
            f"Prediction({leading.value} {self.probabilities[leading]:.3f}, "
            f"pji_risk={self.pji_risk:.3f}, disagreement={self.disagreement:.3f}, flags={flags})"
        )

    def __reduce__(self) -> tuple[object, ...]:
        # Read-only mappings cannot be pickled; the JSON form holds everything there is.
        return Prediction.from_dict, (self.to_dict(),)


def distribution(values: NDArray[np.floating]) -> dict[Cause, float]:
    """Probabilities by cause from the [5] of the network.

    They are divided by their sum, which rounding leaves up to 1e-6 away from 1.
    """
    exact = values.astype(np.float64)
    return dict(zip(CAUSES, (exact / exact.sum()).tolist(), strict=True))


def view_maps(maps: NDArray[np.float32]) -> dict[View, NDArray[np.float32]]:
    """The maps [2, 5, h, w] of the network by view."""
    return dict(zip(VIEWS, maps, strict=True))
