"""A map lies on the radiograph where it belongs: one bright cell, found again on a marked film."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from pydicom import Dataset
from small_study import dicom_bytes, small_dicom
from test_page_api import client_of, decoded

from hipnet_edge import Prediction
from hipnet_edge.render import overlay
from hipnet_edge.vocabulary import CAUSES, VIEWS, Flag, View

ROWS, COLUMNS = 1700, 1300
CAUSE = CAUSES[2]


def marked(view: str, laterality: str, at: tuple[int, int]) -> Dataset:
    """A radiograph that is dark but for a bright square around one pixel (row, column)."""
    dataset = small_dicom(view, 5, laterality=laterality, rows=ROWS, columns=COLUMNS)
    pixels = np.full((ROWS, COLUMNS), 100, np.uint16)
    pixels[::7, ::5] = 300  # an image of one value only is refused
    row, column = at
    pixels[row - 12 : row + 13, column - 12 : column + 13] = 4000
    dataset.PixelData = pixels.tobytes()
    return dataset


def bright_cell(prediction: Prediction, view: View, at: tuple[int, int]) -> Prediction:
    """The prediction with one bright cell in one map: the one that holds a radiograph's pixel."""
    record = prediction.inputs[view]
    _, h, w = prediction.maps[view].shape
    row = int((at[0] + 0.5 - record.box.top) / record.box.height * h)
    column = int((at[1] + 0.5 - record.box.left) / record.box.width * w)
    assert 0 <= row < h
    assert 0 <= column < w
    maps = {each: np.zeros_like(prediction.maps[each]) for each in VIEWS}
    maps[view][CAUSES.index(CAUSE), row, w - 1 - column if record.mirrored else column] = 1.0
    return replace(prediction, maps=maps)


@pytest.mark.parametrize(
    ("ap_side", "side", "view", "at"),
    [
        ("L", "L", View.AP, (400, 300)),
        ("R", "R", View.AP, (1200, 350)),
        ("R", "R", View.LATERAL, (500, 900)),
        ("B", "L", View.AP, (900, 1000)),
        ("B", "R", View.AP, (900, 300)),
    ],
)
def test_a_bright_cell_lands_on_the_mark(make_cart, predictor, ap_side, side, view, at):
    middle = (800, 600)
    ap = marked("ap", ap_side, at if view is View.AP else middle)
    lateral = marked("lateral", side, at if view is View.LATERAL else middle)
    files = dicom_bytes(ap), dicom_bytes(lateral)
    cart = make_cart()
    number = cart.predicted(
        predictor, *files, change=lambda prediction: bright_cell(prediction, view, at)
    )
    prediction = predictor.predict(*files)
    record = prediction.inputs[view]
    assert record.mirrored == (side == "R")
    assert (Flag.CLIPPED_TO_SIDE in prediction.flags) == (ap_side == "B")

    client = client_of(cart)
    film = decoded(client.get(f"/api/studies/{number}/views/{view.value}.png").content)
    heat = decoded(client.get(f"/api/studies/{number}/maps/{view.value}/{CAUSE.value}.png").content)
    assert film.shape == heat.shape[:2] == (1000, round(1000 / ROWS * COLUMNS))
    on_film, on_map = centre(film > 200), centre(heat[..., 3] > 128)
    expected = (np.array(at) + 0.5) * 1000 / ROWS - 0.5
    assert on_film == pytest.approx(expected, abs=0.6)
    cell = np.array([record.box.height / 64, record.box.width / 40]) * 1000 / ROWS
    assert np.all(np.abs(on_map - on_film) <= cell / 2 + 1), (on_map, on_film, cell)
    # The same map is dark on the other radiograph, and so is every other map on this one.
    other = next(each for each in VIEWS if each is not view)
    for path in (f"{other.value}/{CAUSE.value}", f"{view.value}/{CAUSES[0].value}"):
        png = client.get(f"/api/studies/{number}/maps/{path}.png").content
        assert decoded(png)[..., 3].max() == 0


def centre(mask: np.ndarray) -> np.ndarray:
    """The middle (row, column) of what is set."""
    return np.argwhere(mask).mean(axis=0)


def test_laid_over_the_film_it_is_the_overlay_of_the_printed_page(make_cart, predictor):
    cart = make_cart()
    files = tuple(dicom_bytes(small_dicom(view, 6)) for view in ("ap", "lateral"))
    random = np.random.default_rng(1)

    def rough(prediction: Prediction) -> Prediction:
        maps = {view: random.random(x.shape, np.float32) for view, x in prediction.maps.items()}
        return replace(prediction, maps=maps)

    number = cart.predicted(predictor, *files, change=rough)
    client = client_of(cart)
    film = decoded(client.get(f"/api/studies/{number}/views/ap.png").content)
    heat = decoded(client.get(f"/api/studies/{number}/maps/ap/pji.png").content)
    alpha = 0.7 * heat[..., 3:].astype(np.float64) / 255.0  # as a browser does at 70 %
    laid = film[..., np.newaxis] * (1 - alpha) + cv2.cvtColor(heat, cv2.COLOR_BGRA2RGB) * alpha
    stored = json.loads(cart.store.read(cart.queue.case(number).prediction))
    whole = Prediction.from_dict(stored).map_for("ap", "pji", full_resolution=True)
    expected = overlay(film.astype(np.float32) / 255.0, whole, opacity=0.7)
    assert np.abs(laid - expected).max() <= 1.5
    assert np.ptp(heat[..., 3]) > 200
