"""docs/accuracy.md says what was measured, of the bundle that ships, and whether that is enough."""

from __future__ import annotations

import json

import pytest

from benchmarks import export_page
from benchmarks.accuracy_page import PAGE, at_least, at_most, interval, tables
from benchmarks.page_tables import RESULTS, between, table, write_tables
from hipnet_edge.bundle import Bundle


def test_the_tables_are_those_of_the_results():
    text = PAGE.read_text()
    for name, content in tables().items():
        assert between(text, name).strip() == content, name


@pytest.mark.parametrize("report", ["accuracy", "out_of_distribution", "twins", "errors"])
def test_what_was_measured_is_the_network_that_ships(report):
    manifest = Bundle.reference().manifest
    network = manifest.files[manifest.variants["fp32"].file].sha256
    measured = json.loads((RESULTS / f"{report}.json").read_text())["bundle"]["network_sha256"]
    assert measured == network


def test_a_figure_shows_its_interval_and_what_is_out_of_reach_a_dash():
    assert interval({"value": 0.91234, "ci95": [0.9, 0.92]}) == "0.912 (0.900 to 0.920)"
    assert interval({"value": 2.04, "ci95": [1.9, None]}, 1) == "2.0 (1.9 to -)"


def test_an_aim_is_judged_by_the_figure():
    assert at_least(0.9)[1]({"value": 0.9})
    assert not at_least(0.9)[1]({"value": 0.8999})
    assert at_most(0.05)[1]({"value": 0.05})
    assert not at_most(0.05)[1]({"value": 0.0501})


def test_tables_are_written_between_their_markers_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- end of x -->\nb\n")
    write_tables(page, {"x": table(("n",), [("1",)])})
    assert page.read_text() == "a\n<!-- x -->\n| n |\n| --- |\n| 1 |\n<!-- end of x -->\nb\n"
    with pytest.raises(ValueError, match="no place"):
        write_tables(page, {"y": ""})


def test_the_tables_of_the_export_page_are_those_of_the_results():
    text = export_page.PAGE.read_text()
    for name, content in export_page.tables().items():
        assert between(text, name).strip() == content, name
