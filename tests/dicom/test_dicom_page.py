"""The page says what the code does and what was measured."""

from __future__ import annotations

import re
from pathlib import Path

from pydicom.sr.coding import Code
from small_study import dicom_bytes

from benchmarks import dicom_results
from benchmarks.page_tables import between, read_result
from hipnet_edge.dicom import KINDS, codes

PAGE = (Path(__file__).parents[2] / "docs" / "dicom.md").read_text()


def test_every_private_code_is_on_the_page():
    written = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", PAGE, re.MULTILINE))
    concepts = [value for value in vars(codes).values() if isinstance(value, Code)]
    private = [
        code for code in (*concepts, *codes.CAUSES.values()) if code.scheme_designator == "99HIPNET"
    ]
    assert {code.value: code.meaning for code in private} == written


def test_every_file_is_on_the_page():
    for kind in KINDS:
        assert f"`{kind}.dcm`" in PAGE


def test_the_tables_are_what_was_measured():
    measured = read_result("dicom_results")
    for name, content in dicom_results.tables(measured).items():
        assert between(PAGE, name).strip() == content
    assert " and ".join("{} x {}".format(*size) for size in measured["sizes"].values()) in PAGE
    everything = next(o for o in measured["objects"] if o["object"] == dicom_results.ALL)
    assert everything["ms"] <= 250


def test_every_object_and_encoding_is_measured(made):
    files = dicom_bytes(made.ap), dicom_bytes(made.lateral)
    measured = dicom_results.measure(made.prediction, files, 1)
    assert [entry["object"] for entry in measured["objects"]][: len(KINDS)] == list(KINDS)
    assert [entry["bytes"] for entry in measured["objects"]][: len(KINDS)] == [
        len(content) for content in made.files.values()
    ]
    assert all(entry["ms"] > 0 for entry in measured["objects"])
    assert len(measured["encodings_of_five_maps"]) == 5
