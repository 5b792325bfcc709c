"""The blind reading: pictures that show the sign and hide the label, and an honest score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.blind_reading import PICTURE, crop, prepare, score, wilson
from hipnet_edge.simulation import simulate_study
from hipnet_edge.vocabulary import CAUSES, Cause


def key_of(*causes):
    pictures = {f"p{i}": {"cause": cause, "seed": i} for i, cause in enumerate(causes)}
    return {"hipnet_edge": "0.1.0", "prepared_with_seed": 1, "pictures": pictures}


def test_the_score_counts_what_was_called_what():
    key = key_of("pji", "pji", "pji", "dislocation", "polyethylene_wear")
    called = ["pji", "aseptic_loosening", "pji", "dislocation", "pji"]
    result = score(key, {f"p{i}": answer for i, answer in enumerate(called)}, "a test")
    table = result["confusion_rows_truth_columns_called"]
    assert table["pji"]["pji"] == 2
    assert table["pji"]["aseptic_loosening"] == 1
    assert table["polyethylene_wear"] == {**dict.fromkeys((c.value for c in CAUSES), 0), "pji": 1}
    assert sum(sum(row.values()) for row in table.values()) == 5
    assert result["accuracy"]["correct"] == 3
    assert result["accuracy"]["value"] == 0.6
    assert result["chance_level"] == 0.6  # always saying PJI
    assert result["recall"]["pji"]["of"] == 3
    assert "aseptic_loosening" not in result["recall"]
    assert result["pictures"]["p4"]["called"] == "pji"


def test_the_interval_is_wilsons():
    assert wilson(30, 40) == pytest.approx((0.5981, 0.8581), abs=2e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=2e-4)


@pytest.mark.parametrize(
    "answers", [{"p0": "pji"}, {"p0": "pji", "p1": "pji", "p2": "pji"}, {"p0": "pji", "p1": "?"}]
)
def test_missing_surplus_and_unknown_answers_are_refused(answers):
    with pytest.raises(ValueError, match=r"differ|not a valid"):
        score(key_of("pji", "pji"), answers)


def test_the_key_never_lies_beside_the_pictures(tmp_path):
    for key in (tmp_path, tmp_path / "key"):
        with pytest.raises(SystemExit, match="beside"):
            prepare(5, 1, tmp_path, key)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("cause", "seed"), [(Cause.PERIPROSTHETIC_FRACTURE, 0), (Cause.PJI, 8)])
def test_a_picture_shows_the_diseased_region(cause, seed):
    study = simulate_study(cause, seed, pixel_spacing_mm=0.8)
    for view in (study.ap, study.lateral):
        marked = replace(view, stored=(view.mask * 16383).astype(np.uint16))
        found = crop(marked, study.laterality) > 127
        assert found.shape == PICTURE
        rows, columns = np.nonzero(found)
        assert rows.size > 0
        extent = [np.ptp(axis) + 1 for axis in np.nonzero(view.mask)]
        ratio = (np.ptp(rows) + 1) / extent[0], (np.ptp(columns) + 1) / extent[1]
        assert ratio[0] == pytest.approx(ratio[1], rel=0.1)  # cut off on no side
        assert ratio[0] > 2.0  # finer than 0.4 mm a pixel
