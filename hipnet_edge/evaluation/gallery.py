"""The most confidently wrong studies, with the map that misled drawn over both views.

Only what the network saw of a radiograph is shown, and nothing of a study whose header says that
text is burned into the pixels: a report is passed around.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from hipnet_edge.collimation import Box
from hipnet_edge.errors import HipNetError
from hipnet_edge.evaluation.run import radiograph
from hipnet_edge.evaluation.table import CohortRow
from hipnet_edge.intake import read_study
from hipnet_edge.render import overlay
from hipnet_edge.vocabulary import CAUSES, VIEWS, Cause, Flag, View

if TYPE_CHECKING:
    from hipnet_edge.drawing import Picture
    from hipnet_edge.evaluation.outcome import Outcome
    from hipnet_edge.prediction import Prediction
    from hipnet_edge.predictor import Predictor
    from hipnet_edge.study import Study

SHOWN = 6
HEIGHT = 320
"""Of a picture, in its own pixels."""
_QUALITY = 82


@dataclass(frozen=True)
class Mistake:
    """A study whose leading cause is not the true one.

    Attributes:
        line: of the table.
        true: what it is.
        called: what was said, and with which probability.
        probability: of what was said.
        true_probability: of what it is.
        pictures: JPEG, AP and lateral with the map of `called`; empty where none may be shown.
        note: why there are none.
    """

    line: int
    true: Cause
    called: Cause
    probability: float
    true_probability: float
    pictures: tuple[bytes, ...]
    note: str = ""


def worst_mistakes(cohort: Outcome, predictor: Predictor) -> list[Mistake]:
    """The wrong answers with the highest probability; each is predicted once more for its maps."""
    sample = cohort.sample
    wrong = np.flatnonzero((sample.causes >= 0) & ~sample.correct)
    sure = sample.probabilities[wrong].max(axis=1)
    mistakes = []
    for place in wrong[np.argsort(-sure, kind="stable")][:SHOWN]:
        row, p = cohort.rows[place], sample.probabilities[place]
        called = CAUSES[int(p.argmax())]
        pictures, note = _pictures(row, called, cohort.answers[row.line]["flags"], predictor)
        true = CAUSES[row.cause]
        mistakes.append(
            Mistake(row.line, true, called, float(p.max()), float(p[row.cause]), pictures, note)
        )
    return mistakes


def _pictures(
    row: CohortRow, called: Cause, flags: str, predictor: Predictor
) -> tuple[tuple[bytes, ...], str]:
    if Flag.BURNED_IN_ANNOTATION.value in flags.split(";"):
        return (), "Not shown: text is burned into the radiographs."
    try:
        ap, lateral = (radiograph(row, view) for view in VIEWS)
        study, _ = read_study(ap, lateral, row.side, exact=True, decode_threads=1, mapper=map)
        prediction = predictor.predict(study)
    except HipNetError:
        return (), "Not shown: the radiographs can no longer be read."
    return tuple(_jpeg(_seen(study, prediction, view, called)) for view in VIEWS), ""


def _seen(study: Study, prediction: Prediction, view: View, cause: Cause) -> Picture:
    """What the network saw of a view, with the map over it."""
    record = prediction.inputs[view]
    seen = record.box.clip(Box(0, 0, *record.shape))
    size = (max(1, round(HEIGHT * seen.width / seen.height)), HEIGHT)

    def small(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        cut = np.ascontiguousarray(pixels[seen.slices], np.float32)
        return np.asarray(cv2.resize(cut, size, interpolation=cv2.INTER_AREA), np.float32)

    heat = prediction.map_for(view, cause, full_resolution=True)
    return overlay(small(study.views[view].grey_levels()), small(heat))


def _jpeg(picture: Picture) -> bytes:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return encoded.tobytes()
