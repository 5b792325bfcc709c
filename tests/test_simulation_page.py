"""docs/simulation.md says what the code does: its tables, its columns, its picture."""

from __future__ import annotations

import re
from pathlib import Path

import cv2

from benchmarks.page_tables import between
from benchmarks.simulation_pictures import SHOWN, TILE, tables, tile
from hipnet_edge.simulation import simulate_study
from hipnet_edge.simulation.cohort import COLUMNS
from hipnet_edge.simulation.dimensions import Site
from hipnet_edge.vocabulary import CAUSES

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "simulation.md").read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_code():
    for name, table in tables().items():
        assert between(PAGE, name).strip() == table, name


def test_every_column_of_a_cohort_is_explained():
    rows = re.findall(r"^\| (`.+?) \| .+ \|$", PAGE.split("## A cohort on disk")[1], re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(COLUMNS) <= explained


def test_the_contact_sheet_shows_every_cause_and_both_sites():
    assert [cause for cause, _, _ in SHOWN] == list(CAUSES)
    assert {site for _, site, _ in SHOWN} == set(Site)
    sheet = cv2.imread(str(DOCS / "pictures" / "simulation.png"))
    assert sheet.shape[1] == 4 * TILE[1]
    assert sum(path.stat().st_size for path in (DOCS / "pictures").glob("simulation*")) < 900_000


def test_a_tile_outlines_the_truth():
    cause, site, seed = SHOWN[0]
    view = simulate_study(cause, seed, site=site, pixel_spacing_mm=1.0).ap
    plain, outlined = tile(view, False), tile(view, True)
    changed = (plain != outlined).any(axis=-1)
    assert 0 < changed.sum() < 0.05 * changed.size
