"""A simulated study as DX objects and files: valid, synthetic, and read back grey for grey."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pydicom
import pytest

from hipnet_edge import Radiograph
from hipnet_edge.simulation import simulate_study, write_study
from hipnet_edge.simulation.dimensions import Site
from hipnet_edge.simulation.study import erased
from hipnet_edge.vocabulary import VIEWS, Cause, Flag, Laterality

SPACING = 0.8
# Seeds that between them have both sides, a bilateral pelvis, and both kinds of lateral.
SEEDS = (0, 3, 5, 8)


@cache
def study(seed, cause=Cause.PJI):
    return simulate_study(cause, seed, pixel_spacing_mm=SPACING)


def twins(view):
    """The same view stored as MONOCHROME2 and as MONOCHROME1."""
    return [replace(view, monochrome1=inverted).to_dataset() for inverted in (False, True)]


def test_the_seeds_of_these_tests_cover_what_they_should():
    studies = [study(seed) for seed in SEEDS]
    assert {s.laterality for s in studies} == {Laterality.LEFT, Laterality.RIGHT}
    assert {s.ap.projection for s in studies} == {"ap", "ap pelvis"}
    assert {s.lateral.projection for s in studies} == {"cross-table", "frog-leg"}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy of dicom3tools")
@pytest.mark.parametrize("seed", SEEDS)
def test_dciodvfy_finds_no_error(seed, tmp_path):
    for view in study(seed).views.values():
        for dataset in twins(view):
            path = tmp_path / "view.dcm"
            dataset.save_as(path, enforce_file_format=True)
            said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
            lines = (said.stdout + said.stderr).splitlines()
            assert any("DXImageForPresentation" in line for line in lines)
            assert [line for line in lines if line.startswith("Error")] == []
            assert said.returncode == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_read_back_with_the_same_grey_levels_view_and_side(seed):
    for name, view in study(seed).views.items():
        for dataset in twins(view):
            radiograph = Radiograph.from_dicom(dataset)
            expected = view.stored.astype(np.float64) / 16383.0
            np.testing.assert_allclose(radiograph.grey_levels(), expected, atol=1e-6)
            assert radiograph.view.value is name
            assert radiograph.laterality.value is view.laterality
            assert radiograph.pixel_spacing.source == "ImagerPixelSpacing"
            assert radiograph.pixel_spacing.row_mm == pytest.approx(SPACING)
            assert Flag.SIMULATED_INPUT in radiograph.flags


def test_the_inverse_twin_stores_inverted_values_and_looks_the_same():
    view = study(3).ap
    plain, inverse = twins(view)
    assert plain.PhotometricInterpretation == "MONOCHROME2"
    assert inverse.PhotometricInterpretation == "MONOCHROME1"
    assert np.array_equal(plain.pixel_array, view.stored)
    assert np.array_equal(inverse.pixel_array, 16383 - view.stored)
    levels = [Radiograph.from_dicom(dataset).grey_levels() for dataset in (plain, inverse)]
    assert np.array_equal(*levels)


def test_nobody_can_take_it_for_a_patient():
    for view in study(3).views.values():
        dataset = view.to_dataset()
        assert str(dataset.PatientName) == "Simulated^Study D-3"
        assert dataset.PatientID == "SIM-D-3"
        assert "SIMULATED" in dataset.ImageComments
        assert "simulated" in dataset.SeriesDescription
        assert dataset.PatientIdentityRemoved == "YES"
        assert dataset.BurnedInAnnotation == "NO"


def test_the_pair_shares_a_study_and_nothing_else():
    ap, lateral = (view.to_dataset() for view in study(3).views.values())
    other = study(3, Cause.POLYETHYLENE_WEAR).ap.to_dataset()
    assert ap.StudyInstanceUID == lateral.StudyInstanceUID != other.StudyInstanceUID
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({getattr(d, keyword) for d in (ap, lateral, other)}) == 3
    assert ap.SOPInstanceUID == study(3).ap.to_dataset().SOPInstanceUID
    assert ap.SOPInstanceUID == ap.file_meta.MediaStorageSOPInstanceUID


def test_a_written_study_holds_both_views_their_masks_and_the_truth(tmp_path):
    written = study(4, Cause.DISLOCATION)
    paths = write_study(written, tmp_path / "new" / "study")
    assert sorted(p.name for p in (tmp_path / "new" / "study").iterdir()) == [
        "ap.dcm",
        "ap_mask.png",
        "lateral.dcm",
        "lateral_mask.png",
        "truth.json",
    ]
    for name, view in (("ap", written.ap), ("lateral", written.lateral)):
        dataset = pydicom.dcmread(paths[name])
        stored = dataset.pixel_array
        if view.monochrome1:
            stored = 16383 - stored
        assert np.array_equal(stored, view.stored)
        mask = cv2.imread(str(paths[f"{name}_mask"]), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, view.mask.astype(np.uint8) * 255)
    truth = json.loads(paths["truth"].read_text())
    assert truth["simulated"] is True
    assert (truth["cause"], truth["seed"]) == ("dislocation", 4)
    assert truth["laterality"] == written.laterality.value
    assert truth["sign_mm"] == pytest.approx(written.sign_mm, abs=1e-3)
    assert truth["severity"] == pytest.approx(written.severity, abs=1e-3) != 0.0
    assert (truth["site"], truth["also"]) == ("development", None)
    assert (truth["stem"], truth["cup"]) == (written.stem, written.cup)
    assert truth["crp_mg_l"] == pytest.approx(written.crp_mg_l, abs=0.06)


def test_the_orientation_of_every_view_is_stated():
    """A frog-leg is taken with the pelvis as in an AP; across the table the beam is horizontal."""
    seen = set()
    for seed in SEEDS:
        for name in VIEWS:
            view = study(seed).views[name]
            across = {Laterality.LEFT: "P", Laterality.RIGHT: "A"}.get(view.laterality)
            expected = across if view.projection == "cross-table" else "L"
            dataset = view.to_dataset()
            assert list(dataset.PatientOrientation) == [expected, "F"]
            assert dataset.ImageLaterality == view.laterality.dicom
            seen.add((view.projection, expected))
    assert {("ap", "L"), ("ap pelvis", "L"), ("frog-leg", "L")} < seen


def test_the_header_is_the_same_whatever_the_cause():
    """But for identifiers, which are digests, nothing in a header tells one cause from another."""
    for name in VIEWS:
        headers = []
        for cause in (None, *Cause):
            dataset = study(5, cause).views[name].to_dataset()
            del dataset.PixelData
            for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
                delattr(dataset, keyword)
            headers.append(dataset.to_json())
        assert len(set(headers)) == 1


def test_two_sites_and_a_twin_are_other_studies():
    one = study(5)
    other = simulate_study(Cause.PJI, 5, site=Site.SHIFTED, pixel_spacing_mm=SPACING)
    both = simulate_study(Cause.PJI, 5, also=Cause.DISLOCATION, pixel_spacing_mm=SPACING)
    sound = study(5, None)
    datasets = [s.ap.to_dataset() for s in (one, other, both, sound, erased(one, sound))]
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == 5
    assert datasets[0].PatientID == "SIM-D-5"
    assert datasets[1].PatientID == "SIM-S-5"
