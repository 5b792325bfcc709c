"""The page of large cohorts shows the committed measurement, and every column of the results."""

from __future__ import annotations

import re

from benchmarks.page_tables import between, read_result
from benchmarks.scale_page import PAGE, REPORT, tables
from hipnet_edge.scale.results import COLUMNS, TIMINGS


def test_the_page_shows_the_committed_figures():
    page = PAGE.read_text()
    for name, content in tables(read_result(REPORT)).items():
        assert between(page, name).strip() == content, name


def test_the_committed_run_lost_nothing():
    report = read_result(REPORT)
    assert set(report["killed"]) == {"processes", "ray"}
    for found in report["killed"].values():
        assert found["killed"] == 1
        assert found["rows"] == found["answered"] == report["studies"]
        assert found["same_bytes"] is True


def test_every_column_is_documented():
    page = PAGE.read_text()
    results = page.partition("## The results")[2].partition("\n## ")[0]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \| ", results, re.MULTILINE)))
    assert tuple(named) == COLUMNS
    assert all(f"`{name}`" in results for name in TIMINGS)
