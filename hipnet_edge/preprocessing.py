"""From radiographs to the network's input and back: the one transform for training and runtime.

Stored values become grey levels; collimation is found on a thumbnail and left out; the prosthesis
is found there too, and a box around it and the bone that matters is cut at full resolution,
resized by area averaging, mirrored to a left hip's orientation and normalised. `Geometry` is the
exact way there and back. No rule needs pixel spacing, so PNG and DICOM of one scene agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from hipnet_edge.collimation import Box
from hipnet_edge.errors import BundleUnusable, InputRefused, Reason
from hipnet_edge.geometry import Geometry, laid
from hipnet_edge.implant import Implant
from hipnet_edge.pixels import ReducedPixels
from hipnet_edge.survey import Survey, steady_survey
from hipnet_edge.views import Anatomy
from hipnet_edge.vocabulary import VIEWS, Flag, Laterality, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hipnet_edge.radiograph import Radiograph
    from hipnet_edge.study import Study

T = TypeVar("T")

MARGINS = (0.14, 0.15, 0.28, 0.15)
"""Bone around the prosthesis at top, left, bottom, right, as part of its height and width.

More below the tip of the stem: fractures and the pedestal of a loose stem are found there.
"""
PAST_MIDLINE = 0.05
"""How far the half of one side reaches past the middle, as part of the field's width."""
CLIP = (-0.25, 1.25)
"""Stretched grey levels are held within these bounds before the mean is taken away."""


@dataclass(frozen=True)
class InputSpec:
    """What the network expects of a view; stands in the bundle's manifest.

    Attributes:
        rows: height of the input in pixels.
        columns: width of the input in pixels.
        low_percentile: percentile of the crop's grey levels that becomes 0.
        high_percentile: percentile that becomes 1.
        mean: taken from the stretched grey level.
        std: divides what remains.
    """

    rows: int = 512
    columns: int = 320
    low_percentile: float = 1.0
    high_percentile: float = 99.0
    mean: float = 0.5
    std: float = 0.25

    def __post_init__(self) -> None:
        sizes_fit = all(
            isinstance(size, int) and 32 <= size <= 4096 and size % 32 == 0
            for size in (self.rows, self.columns)
        )
        if not (
            sizes_fit
            and 0.0 <= self.low_percentile < self.high_percentile <= 100.0
            and math.isfinite(self.mean)
            and math.isfinite(self.std)
            and self.std > 0.0
        ):
            raise BundleUnusable(
                "The bundle's input description is not usable: sizes must be multiples of 32, "
                "percentiles ordered within 0 to 100, and the standard deviation positive."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputSpec:
        """The description as the manifest holds it.

        Raises:
            BundleUnusable: a field is missing, unknown, or has a value that makes no sense.
        """
        names = {field.name for field in fields(cls)}
        if set(values) != names or not all(
            isinstance(value, (int, float)) and not isinstance(value, bool)
            for value in values.values()
        ):
            raise BundleUnusable(
                f"The bundle's input description must hold exactly: {', '.join(sorted(names))}."
            )
        return cls(**values)

    def to_dict(self) -> dict[str, int | float]:
        """The description for the manifest."""
        return asdict(self)


@dataclass(frozen=True)
class NetworkInput:
    """One view as the network sees it.

    Attributes:
        pixels: [rows, columns] float32, read-only, normalised; a left hip's orientation.
        geometry: where its pixels lie in the radiograph.
        flags: what preprocessing found.
        implant: the prosthesis in pixels of the radiograph, None where none was found.
    """

    pixels: NDArray[np.float32]
    geometry: Geometry
    flags: tuple[Flag, ...]
    implant: Implant | None


@dataclass(frozen=True)
class StudyInput:
    """A study as the network sees it.

    Attributes:
        radiographs: [2, rows, columns] float32, read-only; AP, then lateral.
        views: each view's input.
        laterality: the hip that is read, left or right.
        laterality_source: what named it.
        flags: those of both radiographs and of their preprocessing, each once.
    """

    radiographs: NDArray[np.float32]
    views: Mapping[View, NetworkInput]
    laterality: Laterality
    laterality_source: str
    flags: tuple[Flag, ...]


class Mapper(Protocol):
    """Runs a function for each view, in order: `map`, or one that works on them side by side."""

    def __call__(self, function: Callable[[View], T], views: Iterable[View], /) -> Iterable[T]:
        """The function's results, in the order of the views."""


def preprocess_study(study: Study, spec: InputSpec, *, mapper: Mapper = map) -> StudyInput:
    """Turn a study into the network's input.

    Args:
        study: the two radiographs.
        spec: what the network expects.
        mapper: runs a function for both views; `concurrent.futures.Executor.map` is one.

    Raises:
        InputRefused: NOT_A_HIP, or UNKNOWN_LATERALITY where nothing names the side, or both hips
            have prostheses and none was named.
    """
    looked_over = mapper(lambda view: steady_survey(study.views[view]), VIEWS)
    seen = dict(zip(VIEWS, looked_over, strict=True))
    surveys = {view: survey for view, (_, survey) in seen.items()}
    for view in VIEWS:
        _check_hip(study.views[view], view, surveys[view])
    laterality, source = _side(study, surveys)

    def prepared(view: View) -> NetworkInput:
        radiograph, survey = seen[view]
        return _network_input(radiograph, view, laterality, spec, survey)

    views = dict(zip(VIEWS, mapper(prepared, VIEWS), strict=True))
    radiographs = np.stack([views[view].pixels for view in VIEWS])
    radiographs.flags.writeable = False
    found = {flag for view in VIEWS for flag in (*study.views[view].flags, *views[view].flags)}
    return StudyInput(
        radiographs, views, laterality, source, tuple(flag for flag in Flag if flag in found)
    )


def preprocess(
    radiograph: Radiograph, view: View, laterality: Laterality, spec: InputSpec
) -> NetworkInput:
    """Turn one radiograph into the network's input for a view of the left or the right hip.

    Raises:
        InputRefused: NOT_A_HIP.
    """
    radiograph, survey = steady_survey(radiograph)
    _check_hip(radiograph, view, survey)
    return _network_input(radiograph, view, laterality, spec, survey)


def _check_hip(radiograph: Radiograph, view: View, survey: Survey) -> None:
    """Refuse what is no hip. Where the header is silent, only a prosthesis in the pixels counts."""
    anatomy = radiograph.anatomy.value
    if anatomy is Anatomy.HIP or (anatomy is None and survey.implants):
        return
    if anatomy is None:
        message = (
            f"The {view.label} radiograph's header does not say that it is a hip, and no hip "
            "prosthesis was found in it; state that it is a hip if it is one."
        )
    else:
        message = f"The {view.label} radiograph's header names another part of the body."
    raise InputRefused(Reason.NOT_A_HIP, message)


def _side(study: Study, surveys: Mapping[View, Survey]) -> tuple[Laterality, str]:
    """The hip to read: the study's, or in a picture of both hips the only one with an implant."""
    stated = study.laterality.value
    if stated in (Laterality.LEFT, Laterality.RIGHT):
        return stated, study.laterality.source
    for view in VIEWS:
        radiograph, survey = study.views[view], surveys[view]
        if radiograph.laterality.value is not Laterality.BOTH or not survey.implants:
            continue
        if survey.implants_in_both_halves:
            raise InputRefused(
                Reason.UNKNOWN_LATERALITY,
                f"The {view.label} radiograph shows prostheses in both hips and nothing says "
                "which one to read; name the side.",
            )
        at_left = survey.implants[0].centre_x < survey.middle
        is_left_hip = at_left == (radiograph.patient_left == "left")
        side = Laterality.LEFT if is_left_hip else Laterality.RIGHT
        return side, "pixels: only side with an implant"
    raise InputRefused(
        Reason.UNKNOWN_LATERALITY,
        "Nothing says whether this is a left or a right hip; name the side.",
    )


def _network_input(
    radiograph: Radiograph, view: View, laterality: Laterality, spec: InputSpec, survey: Survey
) -> NetworkInput:
    if laterality is Laterality.BOTH:
        raise InputRefused(
            Reason.UNKNOWN_LATERALITY, "One hip is read at a time; name the left or the right."
        )
    flags = [Flag.COLLIMATION_CROPPED] if survey.collimated else []
    field, implants = survey.field, survey.implants
    flipped = view is View.AP and radiograph.patient_left == "left"
    lateral_at_left = (laterality is Laterality.RIGHT) != flipped
    if radiograph.laterality.value is Laterality.BOTH or survey.implants_in_both_halves:
        flags.append(Flag.CLIPPED_TO_SIDE)
        field = _half(field, at_left=lateral_at_left)
        implants = tuple(i for i in implants if (i.centre_x < survey.middle) == lateral_at_left)
    implant = max(implants, key=lambda implant: implant.area, default=None)
    if implant is None:
        flags.append(Flag.NO_IMPLANT)
    needed = _with_margins(implant.box) if implant is not None else field
    box = fit_box(needed, field, (spec.rows, spec.columns))
    geometry = Geometry(radiograph.shape, box, lateral_at_left, (spec.rows, spec.columns))
    pixels = network_pixels(radiograph, field, geometry, spec)
    return NetworkInput(pixels, geometry, tuple(f for f in Flag if f in flags), implant)


def _half(field: Box, *, at_left: bool) -> Box:
    """The half of the field at the image's left or right, and a bit past the middle."""
    reach = round(field.width * (0.5 + PAST_MIDLINE))
    if at_left:
        return Box(field.top, field.left, field.bottom, field.left + reach)
    return Box(field.top, field.right - reach, field.bottom, field.right)


def _with_margins(metal: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    top, left, bottom, right = metal
    height, width = bottom - top, right - left
    return (
        top - MARGINS[0] * height,
        left - MARGINS[1] * width,
        bottom + MARGINS[2] * height,
        right + MARGINS[3] * width,
    )


def fit_box(
    needed: Box | tuple[float, float, float, float], field: Box, shape: tuple[int, int]
) -> Box:
    """The box of the network's aspect ratio around what is needed, inside the field if it fits.

    Its sides are whole multiples of the aspect ratio in lowest terms (8 x 5 pixels for 512 x 320),
    so that one network pixel is exactly square in the radiograph.
    """
    if isinstance(needed, Box):
        needed = (needed.top, needed.left, needed.bottom, needed.right)
    top, left, bottom, right = needed
    divisor = math.gcd(*shape)
    unit_rows, unit_columns = shape[0] // divisor, shape[1] // divisor
    units = max(1, math.ceil(max((bottom - top) / unit_rows, (right - left) / unit_columns)))
    height, width = units * unit_rows, units * unit_columns
    start_row = _place((top + bottom) / 2, height, field.top, field.bottom)
    start_column = _place((left + right) / 2, width, field.left, field.right)
    return Box(start_row, start_column, start_row + height, start_column + width)


def _place(middle: float, length: int, first: int, last: int) -> int:
    """Where a stretch of `length` around `middle` starts, moved inside first to last if it fits."""
    start = round(middle - length / 2)
    if length > last - first:
        return start
    return min(max(start, first), last - length)


def network_pixels(
    radiograph: Radiograph, field: Box, geometry: Geometry, spec: InputSpec
) -> NDArray[np.float32]:
    """Cut the box at full resolution, resize, mirror, stretch and normalise.

    What lies outside the field, in padding or under the shutter takes no part in averages and
    percentiles and becomes as dark as the low percentile.
    """
    resized, covered = _resized(radiograph, geometry.box.clip(field), geometry)
    shown = resized[covered]
    if shown.size == 0:
        raise InputRefused(Reason.EMPTY_IMAGE, "The radiograph holds nothing but padding.")
    low, high = np.percentile(shown, (spec.low_percentile, spec.high_percentile))
    stretched = (resized - np.float32(low)) * np.float32(1.0 / max(high - low, 1e-6))
    np.clip(stretched, *CLIP, out=stretched)
    stretched[~covered] = 0.0
    pixels: NDArray[np.float32] = (stretched - np.float32(spec.mean)) * np.float32(1 / spec.std)
    pixels.flags.writeable = False
    return pixels


def _resized(
    radiograph: Radiograph, seen: Box, geometry: Geometry
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Grey levels of the part of the box that is seen, on the network's pixels; which it covers."""
    if isinstance(radiograph.pixels, ReducedPixels):
        resized = radiograph.pixels.averaged(seen, *geometry.edges(), radiograph.grey_table.apply)
        covered = geometry.covered(seen) > 0.5
        return geometry.oriented(resized), covered

    def cut(strip: Box) -> NDArray[np.float32]:
        shown = strip.clip(seen)
        return laid(radiograph.grey_levels(*shown.slices), shown, strip)

    resized = geometry.resized_from(cut)
    valid = radiograph.valid[seen.slices] if radiograph.valid is not None else None
    if seen == geometry.box and (valid is None or valid.all()):
        return resized, np.ones(resized.shape, np.bool_)
    part = geometry.covered(seen, valid)
    return resized / np.maximum(part, np.float32(0.5)), part > 0.5
