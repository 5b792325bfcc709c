from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export import cohort as cohorts
from hipnet_edge import Radiograph, Study
from hipnet_edge.preprocessing import InputSpec, preprocess_study
from hipnet_edge.simulation import simulate_study, write_study
from hipnet_edge.vocabulary import CAUSES, VIEWS

SPACING = 0.8  # coarse: a quick picture is enough here


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cohort") / "made"
    cohorts.build(directory, n=2, seed=7, pixel_spacing_mm=SPACING, workers=1)
    return directory


def test_training_sees_what_the_runtime_sees(directory: Path, tmp_path: Path) -> None:
    cohort = cohorts.Cohort.load(directory)
    simulated = simulate_study(CAUSES[1], 7 * 100_000 + 1, pixel_spacing_mm=SPACING)
    paths = write_study(simulated, tmp_path)
    ap, lateral = (Radiograph.from_dicom(paths[view.value]) for view in VIEWS)
    study = Study(ap, lateral, laterality=simulated.laterality)
    prepared = preprocess_study(study, InputSpec())
    assert np.array_equal(cohort.radiographs[1], prepared.radiographs)
    assert cohort.causes.tolist() == [0, 1]
    assert cohort.sign_mm[1] == pytest.approx(simulated.sign_mm)


def test_truth_lies_where_the_mask_does(directory: Path) -> None:
    cohort = cohorts.Cohort.load(directory)
    simulated = simulate_study(CAUSES[1], 7 * 100_000 + 1, pixel_spacing_mm=SPACING)
    assert cohort.occupancy.shape == (2, 2, 64, 40)
    for view, occupancy in zip(VIEWS, cohort.occupancy[1], strict=True):
        # Network pixels are square: areas in mm2 agree up to what the crop leaves out.
        assert occupancy.max() <= 1
        assert simulated.views[view].mask.any() == (occupancy > 0).any()


def test_a_stopped_run_continues(directory: Path) -> None:
    whole = np.load(directory / "radiographs.npy")
    done = np.load(directory / "done.npy", mmap_mode="r+")
    radiographs = np.load(directory / "radiographs.npy", mmap_mode="r+")
    done[1], radiographs[1] = False, 0
    done.flush(), radiographs.flush()
    with pytest.raises(ValueError, match="1 studies are missing"):
        cohorts.Cohort.load(directory)
    again = cohorts.build(directory, n=2, seed=7, pixel_spacing_mm=SPACING, workers=1)
    assert np.array_equal(again.radiographs, whole)


def test_two_cohorts_never_mix(directory: Path) -> None:
    with pytest.raises(ValueError, match=r"different: seed\)"):
        cohorts.build(directory, n=2, seed=8, pixel_spacing_mm=SPACING, workers=1)


def test_area_fraction() -> None:
    mask = np.zeros((16, 24), bool)
    mask[:8, 8:12] = True
    assert cohorts.area_fraction(mask).tolist() == [[0, 0.5, 0], [0, 0, 0]]
