"""The gate's verdict on the shortcut in reading, and the benchmark that makes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from dicom_files import can_encode
from pydicom.uid import HTJ2KLossless

from benchmarks import shortcuts
from hipnet_edge import Bundle, openjpeg
from hipnet_edge.collimation import Box
from hipnet_edge.geometry import Geometry
from hipnet_edge.pixels import LEAST_OVERSAMPLING, SHORTCUT

REPORT = Path(__file__).parents[2] / "benchmarks" / "results" / "shortcuts.json"


def test_maps_of_a_box_that_moved_are_laid_where_the_exact_box_has_them():
    exact = Geometry((2000, 1600), Box(100, 200, 1124, 840), False, (512, 320))
    moved = Geometry((2000, 1600), Box(164, 240, 1188, 880), False, (512, 320))
    y, x = np.mgrid[:64, :40].astype(np.float32)
    maps = np.stack([y, x, y, x, y])
    laid = shortcuts._laid(maps, exact, moved)
    # 64 rows and 40 columns of the film are 4 and 2.5 cells.
    assert np.allclose(laid[0, 8:], y[8:] - 4, atol=0.04)
    assert np.allclose(laid[1, :, 5:], x[:, 5:] - 2.5, atol=0.04)
    assert shortcuts._laid(maps, exact, exact) is maps


@pytest.mark.slow
@pytest.mark.skipif(not can_encode(HTJ2KLossless), reason="imagecodecs here has no HTJ2K encoder")
@pytest.mark.skipif(not openjpeg.available(), reason="no OpenJPEG library is found")
def test_a_small_run_judges_and_records(tmp_path, monkeypatch):
    monkeypatch.setattr(shortcuts, "SPACINGS_MM", (0.2,))
    bundle = shutil.copytree(Bundle.reference_path(), tmp_path / "bundle")
    words = ["--bundle", str(bundle), "--n", "10", "--work", str(tmp_path / "work")]
    out = tmp_path / "report.json"
    result = CliRunner().invoke(shortcuts.main, [*words, "--out", str(out), "--record"])
    report = json.loads(out.read_text())
    assert result.exit_code == (0 if report["passed"] else 1), result.output
    assert report["same_in_jpeg_2000"] == {"studies": 1, "same": 1}
    assert report["views"]["can_be_read_by_the_shortcut"] > 0
    assert 0 < report["input_change"]["p50"] < 0.05
    gate = Bundle.load(bundle).manifest.gate
    assert gate.allows(SHORTCUT) == report["passed"]


def test_the_reference_bundle_was_judged_on_two_thousand_studies():
    report, gate = json.loads(REPORT.read_text()), Bundle.reference().manifest.gate
    assert report["shortcut"] == SHORTCUT
    assert report["passed"] == gate.allows(SHORTCUT)
    assert report["studies"] >= 1990
    assert report["least_oversampling"] == LEAST_OVERSAMPLING
    assert report["same_in_jpeg_2000"]["same"] == report["same_in_jpeg_2000"]["studies"] >= 40
    asked = {"onnxruntime fp32", "onnxruntime cpu-int8", "openvino cpu-int8", "openvino cpu-bf16"}
    assert asked == set(report["judged"])
