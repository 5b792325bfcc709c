"""The pictures of the page: radiographs, maps to lay over them, and the page of one result.

A radiograph and its maps are scaled to the same size, so that the browser lays one upon the other
without knowing any geometry. A map is a picture with transparency: colour and opacity of each pixel
are those of `render.overlay` at full opacity, and the browser's slider does the rest.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from hipnet_edge.drawing import Picture, probability_colours
from hipnet_edge.errors import Fault
from hipnet_edge.opencv import in_calling_thread
from hipnet_edge.radiograph import Radiograph
from hipnet_edge.render import render_page
from hipnet_edge.study import Study
from hipnet_edge.vocabulary import VIEWS, Cause, View

if TYPE_CHECKING:
    from hipnet_edge.prediction import Prediction

LARGEST_SIDE = 1000
"""Of a picture on the page, in pixels: more than a cart's screen has for it."""

_AT_ONCE = 2
_KEPT_BYTES = 32 * 1024**2
_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 3]


class Pictures:
    """Makes PNGs, few at once so that the radiographs that arrive are not kept waiting.

    The latest are kept: everything they are made of is named by its content and never changes.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._at_work = threading.BoundedSemaphore(_AT_ONCE)

    def get(self, name: Hashable, draw: Callable[[], NDArray[np.uint8]]) -> bytes:
        """A picture as PNG, drawn unless it is still there.

        Args:
            name: of everything that it is made of.
            draw: gives it as uint8 [rows, columns] grey, or with 3 or 4 channels in RGB(A) order.
        """
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        with self._at_work, in_calling_thread():
            png = as_png(draw())
        with self._lock:
            self._kept[name] = png
            while len(self._kept) > 1 and sum(map(len, self._kept.values())) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return png


def shown_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns that a radiograph has on the page; small ones stay as they are."""
    scale = min(1.0, LARGEST_SIDE / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def draw_film(radiograph: Radiograph) -> NDArray[np.uint8]:
    """A radiograph as grey picture, uint8 [rows, columns]."""
    return np.asarray(np.rint(_scaled(radiograph.grey_levels()) * 255.0), np.uint8)


def draw_map(prediction: Prediction, view: View, cause: Cause) -> NDArray[np.uint8]:
    """A map as coloured picture with transparency, uint8 [rows, columns, 4], RGBA.

    Raises:
        UsageError: the prediction was stored without maps.
    """
    whole = prediction.map_for(view, cause, full_resolution=True)
    levels = np.rint(np.clip(_scaled(whole), 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.concatenate([probability_colours()[levels], levels[..., np.newaxis]], axis=2)


def draw_result(prediction: Prediction, films: dict[View, Radiograph]) -> Picture:
    """The page of one result, as `hipnet-edge predict --out` writes it."""
    return render_page(prediction, Study(*(films[view] for view in VIEWS)))


def draw_scale() -> NDArray[np.uint8]:
    """The colours of the maps from 0 to 1, uint8 [1, 256, 3]."""
    return probability_colours()[np.newaxis]


def as_png(picture: NDArray[np.uint8]) -> bytes:
    """A picture as PNG; colours in RGB(A) order."""
    codes = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    if picture.ndim == 3:
        picture = np.asarray(cv2.cvtColor(picture, codes[picture.shape[2]]), np.uint8)
    encoded, png = cv2.imencode(".png", picture, _FAST)
    if not encoded:
        raise Fault("OpenCV could not write a picture as PNG.")
    return bytes(png.tobytes())


def _scaled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = shown_shape((values.shape[0], values.shape[1]))
    resized = cv2.resize(values, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.float32)
