"""The alternatives for reading: measured with one outcome, and none left out in silence."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from dicom_files import can_encode
from pydicom.uid import HTJ2KLossless

from benchmarks import reading_choices
from benchmarks.performance_page import choices
from export.provenance import made_here

pytestmark = [
    pytest.mark.skipif(not can_encode(HTJ2KLossless), reason="imagecodecs here has no HTJ2K"),
    # imagecodecs prints the errors that it loses.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def report():
    return {**reading_choices.measure((320, 256), 1, (96, 80), 12), **made_here("imagecodecs")}


def test_every_alternative_is_measured_or_named_as_missing(report):
    """All that decode the whole were compared bit for bit before."""
    rows = report["rows"]
    assert len(rows) + len(report["missing"]) == 29
    assert all(row["wall_ms"] > 0.0 and row["processor_ms"] >= 0.0 for row in rows)
    used = {row["what"] for row in rows if row["used"]}
    assert used == {row["what"] for row in rows}


def test_a_decoder_that_gives_other_pixels_stops_it():
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    wrong = reading_choices.Alternative("a", "b", lambda: pixels + 1, whole=True)
    with pytest.raises(ValueError, match="a: b decodes to other pixels"):
        reading_choices.those_here([wrong], pixels)


def test_what_is_not_installed_is_named():
    def call():
        raise ImportError("No module named 'fast'")

    here, missing = reading_choices.those_here(
        [reading_choices.Alternative("a", "b", call)], np.zeros((1, 1))
    )
    assert (here, missing) == ([], {"a: b": "No module named 'fast'"})


def test_the_ends_of_damaged_streams_add_up(report):
    damage = report["damage"]
    assert set(damage["readers"]) == {"OpenJPEG", "OpenJPH, unchecked", "the package"}
    assert all(sum(ends.values()) == 12 for ends in damage["readers"].values())
    assert damage["readers"]["OpenJPEG"]["other_pixels"] > 0


def test_the_page_shows_every_row(report):
    shown = choices(report)
    assert all(row["alternative"] in shown for row in report["rows"])
    assert f"imagecodecs {imagecodecs.__version__}" in shown
