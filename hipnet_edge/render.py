"""Pictures of a prediction: a map drawn over its radiograph, and the one page that shows it all.

Everything a page says stands in the `Prediction`; the study lends only the radiographs under the
maps. Pictures are uint8 [rows, columns, 3], RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from hipnet_edge import drawing
from hipnet_edge.collimation import Box
from hipnet_edge.drawing import BOLD, Pen, Picture
from hipnet_edge.errors import Fault, UsageError
from hipnet_edge.vocabulary import CAUSES, VIEWS, Cause, Flag, View
from hipnet_edge.wording import FLAG_WORDS, RESEARCH_USE, in_words

if TYPE_CHECKING:
    from hipnet_edge.prediction import InputRecord, Prediction
    from hipnet_edge.radiograph import Radiograph
    from hipnet_edge.study import Study

OPACITY = 0.7
"""How opaque the map is where the probability is 1 (what lies under it must still be seen); in
between it grows in proportion."""

# The page in pixels: two views side by side, everything in words and bars right of them, below
# them the scale of the maps and a row of small ones.
PAGE_WIDTH, PAGE_HEIGHT = 1800, 1428
_MARGIN, _GAP = 48, 24
_VIEW_SIZE = (560, 740)
_VIEWS_TOP = 186
VIEW_PANELS = {
    view: (_MARGIN + index * (_VIEW_SIZE[0] + _GAP), _VIEWS_TOP, *_VIEW_SIZE)
    for index, view in enumerate(VIEWS)
}
"""Left, top, width, height of the panel of each view."""
_SIDE_LEFT = _MARGIN + 2 * _VIEW_SIZE[0] + 2 * _GAP + 16
SIDE_WIDTH = PAGE_WIDTH - _MARGIN - _SIDE_LEFT
_SCALE_TOP = _VIEWS_TOP + _VIEW_SIZE[1] + 30
SMALL_MAPS_TOP = _SCALE_TOP + 92
_SMALL_SPACE = 7
_SMALL_SIZE = (157, 252)
LINE = 28


def overlay(
    grey: NDArray[np.float32], probability_map: NDArray[np.float32], *, opacity: float = OPACITY
) -> Picture:
    """A disease-probability map drawn over its radiograph.

    Args:
        grey: grey levels, float [rows, columns] in 0 to 1, bright is dense.
        probability_map: the map, float [rows, columns] in 0 to 1, in the same pixels.
        opacity: opacity where the probability is 1; where it is 0 the radiograph shows bare.

    Returns:
        The picture, uint8 [rows, columns, 3], RGB.

    Raises:
        UsageError: the two arrays are not of one two-dimensional shape.
    """
    if grey.ndim != 2 or grey.shape != probability_map.shape:
        raise UsageError(
            f"A map is drawn over a radiograph of the same size, not {probability_map.shape} "
            f"over {grey.shape}."
        )
    probability = np.clip(probability_map, 0.0, 1.0)
    colours = drawing.probability_colours()[np.rint(probability * 255.0).astype(np.uint8)]
    alpha = (opacity * probability)[..., np.newaxis]
    base = np.clip(grey, 0.0, 1.0)[..., np.newaxis] * 255.0
    return cast(Picture, np.rint(base * (1.0 - alpha) + colours * alpha).astype(np.uint8))


def _same_image(record: InputRecord, radiograph: Radiograph) -> bool:
    """Whether a result is about this radiograph."""
    name = {"pixel_sha256": record.pixel_sha256, "encoded_sha256": record.encoded_sha256}
    return name == radiograph.named_by


def render_page(prediction: Prediction, study: Study) -> Picture:
    """The page of one result: both views, every map, every number, every flag.

    Args:
        prediction: the result.
        study: the study it was made from.

    Returns:
        The page, uint8 [1428, 1800, 3], RGB.

    Raises:
        UsageError: the prediction was made from other radiographs.
    """
    for view, radiograph in study.views.items():
        if not _same_image(prediction.inputs[view], radiograph):
            raise UsageError(f"The prediction was made from another {view.label} radiograph.")
    page, pen = drawing.new_page(PAGE_HEIGHT, PAGE_WIDTH), Pen()
    shown = {view: _Shown(prediction, study.views[view], view) for view in VIEWS}
    _header(page, pen, prediction)
    for view in VIEWS:
        _view_panel(page, pen, view, shown[view].large(prediction.leading_cause))
    _probability_scale(page, pen)
    _side(page, pen, prediction)
    for index, cause in enumerate(CAUSES):
        _small_maps(page, pen, index, cause.label, [shown[view].small(cause) for view in VIEWS])
    _footer(page, pen, prediction)
    return page


def write_page(path: Path | str, prediction: Prediction, study: Study) -> None:
    """Write the page of one result as a PNG file.

    Raises:
        UsageError: the file cannot be written, or the prediction is of other radiographs.
    """
    page = render_page(prediction, study)
    encoded, png = cv2.imencode(".png", cv2.cvtColor(page, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise Fault("OpenCV could not write the page as PNG.")
    try:
        Path(path).write_bytes(png.tobytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from error


class _Shown:
    """One radiograph at the sizes it has on the page, with any of its maps over it."""

    def __init__(self, prediction: Prediction, radiograph: Radiograph, view: View) -> None:
        self._maps = {cause: prediction.map_for(view, cause) for cause in CAUSES}
        self._geometry = prediction.inputs[view].geometry
        self._frame = Box(0, 0, *self._geometry.image_shape)
        self._seen = self._geometry.box.clip(self._frame)
        whole = radiograph.grey_levels()
        self._large = drawing.fit(whole, *_VIEW_SIZE)
        self._small = drawing.fit(whole[self._seen.slices], *_SMALL_SIZE)

    def large(self, cause: Cause) -> Picture:
        """The whole radiograph; a thin outline shows what the network saw of it."""
        picture = self._overlay(self._large, cause, self._frame)
        scale = picture.shape[1] / self._frame.width
        corners = [round(scale * edge) for edge in (self._seen.left, self._seen.top)]
        size = [round(scale * side) for side in (self._seen.width, self._seen.height)]
        drawing.frame(picture, (corners[0], corners[1]), (size[0], size[1]))
        return picture

    def small(self, cause: Cause) -> Picture:
        """What the network saw of the radiograph, the right way round."""
        return self._overlay(self._small, cause, self._seen)

    def _overlay(self, grey: NDArray[np.float32], cause: Cause, region: Box) -> Picture:
        """A map over the region of the radiograph that a picture shows."""
        rows, columns = grey.shape
        return overlay(
            grey, self._geometry.map_averaged(self._maps[cause], region, (rows, columns))
        )


def _header(page: Picture, pen: Pen, prediction: Prediction) -> None:
    """Leading cause with its probability, the side, and the line that marks every page."""
    leading = prediction.leading_cause
    side = prediction.inputs[View.AP].laterality.value.capitalize()
    pen.write(page, f"{side} hip, AP and lateral", (_MARGIN, 64), 22, colour=drawing.MUTED)
    title = f"{leading.label}  {in_words(prediction.probabilities[leading])}"
    pen.write(page, title, (_MARGIN, 116), 44, weight=BOLD)
    right = PAGE_WIDTH - _MARGIN
    pen.write(
        page, RESEARCH_USE, (right, 64), 22, colour=drawing.ACCENT, weight=BOLD, align_right=True
    )


def _view_panel(page: Picture, pen: Pen, view: View, picture: Picture) -> None:
    """One view, large, with the map of the leading cause."""
    left, top, width, height = VIEW_PANELS[view]
    label = f"{view.label}, outlined: the part that was read"
    pen.write(page, label, (left, top - 14), 20, colour=drawing.MUTED)
    drawing.paste(page, picture, (left, top), (width, height))


def _probability_scale(page: Picture, pen: Pen) -> None:
    """The colours of the maps from 0 to 1, blended over grey as they are over a radiograph."""
    caption = "Probability of the leading cause at each place"
    pen.write(page, caption, (_MARGIN, _SCALE_TOP + 16), 18, colour=drawing.MUTED)
    left = _MARGIN + pen.width(caption, 18) + _GAP
    width, height = _MARGIN + 2 * _VIEW_SIZE[0] + _GAP - left, 18
    ramp = np.tile(np.linspace(0.0, 1.0, width, dtype=np.float32), (height, 1))
    drawing.paste(page, overlay(np.full_like(ramp, 0.3), ramp), (left, _SCALE_TOP), (width, height))
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        text = f"{tick:g}"
        x = left + round(tick * (width - pen.width(text, 16)))
        pen.write(page, text, (x, _SCALE_TOP + height + 20), 16, colour=drawing.MUTED)


def _side(page: Picture, pen: Pen, prediction: Prediction) -> None:
    """Everything that is a number or a sentence, beside the views."""
    y = _heading(page, pen, "Probability of each cause", _VIEWS_TOP - 12)
    for cause in CAUSES:
        leading = cause is prediction.leading_cause
        colour = drawing.ACCENT if leading else drawing.NEUTRAL
        y = _bar_row(page, pen, y, cause.label, prediction.probabilities[cause], colour)
    if plausible := prediction.plausible_causes:
        words = "Plausible: " + ", ".join(cause.label for cause in plausible)
        for line in pen.wrap(words, 17, SIDE_WIDTH):
            pen.write(page, line, (_SIDE_LEFT, y + 12), 17, colour=drawing.MUTED)
            y += 22
    y = _heading(page, pen, "Risk and uncertainty", y + 34)
    y = _bar_row(page, pen, y, "PJI risk", prediction.pji_risk, drawing.NEUTRAL)
    y = _bar_row(
        page, pen, y, "Disagreement of the four networks", prediction.disagreement, drawing.NEUTRAL
    )
    if (sign := prediction.sign_of_failure) is not None:
        y = _bar_row(page, pen, y, "Any sign of failure", sign, drawing.NEUTRAL)
    y = _heading(page, pen, "What to know about this result", y + 34)
    room = (SMALL_MAPS_TOP - 2 * LINE - y) // LINE
    for line in _flag_lines(pen, prediction.flags, room):
        pen.write(page, line, (_SIDE_LEFT, y + 20), 19)
        y += LINE


def _flag_lines(pen: Pen, flags: Sequence[Flag], room: int) -> list[str]:
    """The flags in words, in at most `room` lines; what does not fit is counted."""
    lines: list[str] = [] if flags else ["No flags."]
    for index, flag in enumerate(flags):
        sentence = pen.wrap(FLAG_WORDS[flag], 19, SIDE_WIDTH)
        last = index == len(flags) - 1
        if len(lines) + len(sentence) + (0 if last else 1) > room:
            return [*lines, f"And {len(flags) - index} more flags: see the JSON."]
        lines += sentence
    return lines


def _heading(page: Picture, pen: Pen, text: str, baseline: int) -> int:
    """A small heading of the side column; returns where what follows begins."""
    pen.write(page, text, (_SIDE_LEFT, baseline), 20, colour=drawing.MUTED)
    return baseline + 14


def _bar_row(
    page: Picture, pen: Pen, y: int, label: str, value: float, colour: drawing.Colour
) -> int:
    """A name, its value and its bar; returns where the next row begins."""
    pen.write(page, label, (_SIDE_LEFT, y + 24), 20)
    pen.write(
        page, in_words(value), (_SIDE_LEFT + SIDE_WIDTH, y + 24), 20, weight=BOLD, align_right=True
    )
    drawing.bar(page, (_SIDE_LEFT, y + 34), (SIDE_WIDTH, 8), value, colour)
    return y + 58


def _small_maps(page: Picture, pen: Pen, index: int, label: str, pictures: list[Picture]) -> None:
    """Both views with the map of one cause, small."""
    width = _SMALL_SIZE[0]
    left = _MARGIN + index * (2 * width + _SMALL_SPACE + _GAP)
    pen.write(page, label, (left, SMALL_MAPS_TOP), 18, colour=drawing.MUTED)
    for place, picture in enumerate(pictures):
        at = (left + place * (width + _SMALL_SPACE), SMALL_MAPS_TOP + 16)
        drawing.paste(page, picture, at, _SMALL_SIZE)


def _footer(page: Picture, pen: Pen, prediction: Prediction) -> None:
    """What was read and what read it."""
    made_by = prediction.provenance
    sources = ", ".join(
        f"{view.label} {_short_uid(prediction.inputs[view].sop_instance_uid)}" for view in VIEWS
    )
    overlay = f"overlay {made_by.overlay_digest[:12]}, " if made_by.overlay_digest else ""
    text = (
        f"Sources: {sources}.  Bundle {made_by.bundle_digest[:12]}, {overlay}{made_by.variant}, "
        f"{made_by.backend} {made_by.backend_version} on {made_by.device}, "
        f"hipnet-edge {made_by.package_version}"
    )
    width = PAGE_WIDTH - 2 * _MARGIN
    at = (_MARGIN, PAGE_HEIGHT - 36)
    pen.write(page, pen.shorten(text, 17, width), at, 17, colour=drawing.MUTED)


def _short_uid(uid: str | None) -> str:
    """The end of a UID, where it differs from its neighbours'."""
    return "without UID" if uid is None else uid if len(uid) <= 14 else f"..{uid[-12:]}"
