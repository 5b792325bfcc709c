"""Pictures: what is drawn is what the numbers say, in the right place, and marked."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from small_bundle import write_bundle

from hipnet_edge import (
    CAUSES,
    Cause,
    Flag,
    Laterality,
    Predictor,
    Study,
    UsageError,
    View,
    drawing,
    render,
)
from hipnet_edge.cli import run
from hipnet_edge.simulation import simulate_study, write_study
from hipnet_edge.wording import in_words


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study and its prediction by the small bundle."""
    folder = tmp_path_factory.mktemp("study")
    for seed in range(20):  # a right hip: it is mirrored for the network
        study = simulate_study(Cause.DISLOCATION, seed, pixel_spacing_mm=0.5)
        if study.laterality is Laterality.RIGHT:
            break
    write_study(study, folder)
    study = Study.from_directory(folder)
    with Predictor(write_bundle(folder / "bundle")) as predictor:
        return predictor.predict(study), study


@pytest.fixture(params=[True, False], ids=["TrueType", "stroke font"])
def any_opencv(request, monkeypatch):
    """Both ways to write: OpenCV 5's own face, and what there is before it."""
    if request.param and not hasattr(cv2, "FontFace"):
        pytest.skip("OpenCV before 5 has no TrueType face")
    if not request.param:
        monkeypatch.delattr(cv2, "FontFace", raising=False)


def test_no_probability_leaves_the_radiograph_bare_and_grey():
    grey = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    picture = render.overlay(grey, np.zeros_like(grey))
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, np.repeat(np.rint(grey * 255)[..., None], 3, axis=2))


def test_opacity_and_colour_follow_the_probability():
    probability = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, -1)
    on_black = render.overlay(np.zeros_like(probability), probability, opacity=1.0)
    on_white = render.overlay(np.ones_like(probability), probability, opacity=1.0)
    assert np.array_equal(on_black[0, -1], drawing.probability_colours()[255])
    assert np.array_equal(on_black[0, -1], on_white[0, -1])
    shines_through = on_white.astype(int).sum(axis=2) - on_black.astype(int).sum(axis=2)
    assert (np.diff(shines_through[0]) <= 0).all()


def test_the_colours_rise_evenly_in_lightness():
    colours = drawing.probability_colours().reshape(1, -1, 3).astype(np.float32) / 255
    lightness = cv2.cvtColor(colours, cv2.COLOR_RGB2LAB)[0, :, 0]
    steps = np.diff(lightness[::16])
    assert (steps > 0).all()
    assert steps.max() < 2.5 * steps.min()


def test_a_map_of_another_size_is_refused():
    with pytest.raises(UsageError, match="same size"):
        render.overlay(np.zeros((4, 4), np.float32), np.zeros((4, 5), np.float32))


def test_the_page_shows_each_radiograph_and_every_number(made, any_opencv):
    prediction, study = made
    page = render.render_page(prediction, study)
    assert page.shape == (render.PAGE_HEIGHT, render.PAGE_WIDTH, 3)
    # The longest bar on the page is as long as the leading probability says.
    accent = (page == drawing.ACCENT).all(axis=2)
    inked = [np.flatnonzero(row) for row in accent if row.sum() > 20]
    bars = [len(columns) for columns in inked if np.ptp(columns) + 1 == len(columns)]
    leading = prediction.probabilities[prediction.leading_cause]
    assert max(bars) == round(leading * render.SIDE_WIDTH)


def test_the_mark_stands_on_every_page(made, any_opencv):
    prediction, study = made
    page = render.render_page(prediction, study)
    pen, mark = drawing.Pen(), drawing.new_page(60, render.PAGE_WIDTH)
    pen.write(mark, "Simulated / research use. Not for clinical use.", (0, 40), 22,
              colour=drawing.ACCENT, weight=drawing.BOLD)  # fmt: skip
    inked = np.argwhere((mark != drawing.BACKGROUND).any(axis=2))
    (top, left), (bottom, right) = inked.min(axis=0), inked.max(axis=0) + 1
    mark = mark[top:bottom, left:right]
    _, _, (x, y), _ = cv2.minMaxLoc(cv2.matchTemplate(page, mark, cv2.TM_SQDIFF))
    assert np.array_equal(page[y : y + mark.shape[0], x : x + mark.shape[1]], mark)


def test_the_map_lies_where_the_network_saw_the_disease(made):
    prediction, study = made
    assert prediction.inputs[View.AP].mirrored  # a right hip: a mirror forgotten would show
    maps = {view: np.zeros_like(stack) for view, stack in prediction.maps.items()}
    maps[View.AP][CAUSES.index(prediction.leading_cause), 40, 10] = 1.0
    page = render.render_page(replace(prediction, maps=maps), study).astype(int)
    left, top, width, height = render.VIEW_PANELS[View.AP]
    panel = page[top : top + height, left : left + width]
    coloured = np.argwhere(np.ptp(panel, axis=2) > 40)
    geometry = prediction.inputs[View.AP].geometry
    stride = geometry.network_shape[0] / maps[View.AP].shape[1]
    x, y = geometry.to_image([[10.5 * stride - 0.5, 40.5 * stride - 0.5]])[0]
    rows, columns = geometry.image_shape
    scale = min(width / columns, height / rows)
    above, beside = (height - rows * scale) / 2, (width - columns * scale) / 2
    assert coloured.mean(axis=0) == pytest.approx([y * scale + above, x * scale + beside], abs=3)
    left, top, width, height = render.VIEW_PANELS[View.LATERAL]
    assert np.ptp(page[top : top + height, left : left + width], axis=2).max() < 40


def test_more_flags_than_fit_are_counted_not_lost(made):
    prediction, study = made
    all_but_one = render.render_page(replace(prediction, flags=tuple(Flag)[:-1]), study)
    every = render.render_page(replace(prediction, flags=tuple(Flag)), study)
    assert not np.array_equal(all_but_one, every)
    # Nothing has run into the row of small maps.
    few = render.render_page(replace(prediction, flags=()), study)
    below = render.SMALL_MAPS_TOP - render.LINE
    assert np.array_equal(few[below:], every[below:])


def test_the_png_on_disk_is_the_page(made, tmp_path):
    prediction, study = made
    render.write_page(tmp_path / "page.png", prediction, study)
    read = cv2.cvtColor(cv2.imread(str(tmp_path / "page.png")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(read, render.render_page(prediction, study))
    with pytest.raises(UsageError, match="cannot be written"):
        render.write_page(tmp_path / "no" / "page.png", prediction, study)


def test_another_studys_radiographs_are_refused(made, tmp_path):
    prediction, _ = made
    arguments = ("--cause", "pji", "--seed", "5", "--out", tmp_path, "--pixel-spacing", "0.8")
    assert run(["simulate", *(str(part) for part in arguments)]) == 0
    with pytest.raises(UsageError, match="another AP"):
        render.render_page(prediction, Study.from_directory(tmp_path))


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        *((0.0, "0.00"), (1e-5, "< 0.01"), (0.004, "< 0.01"), (0.006, "0.01"), (0.799, "0.80")),
        *((0.994, "0.99"), (0.9951, "> 0.99"), (0.99999, "> 0.99"), (1.0, "1.00")),
    ],
)
def test_nothing_reads_as_certain_that_is_not(probability, words):
    assert in_words(probability) == words
