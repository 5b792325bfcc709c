from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from export import cohort as cohorts
from export.cohort_studies import FileSource, SimulatedSource, area_fraction
from hipnet_edge import Radiograph, Study
from hipnet_edge.preprocessing import InputSpec, preprocess_study
from hipnet_edge.simulation.cohort import CohortSettings, plan, write_cohort
from hipnet_edge.simulation.dimensions import Site
from hipnet_edge.vocabulary import CAUSES, VIEWS

SPACING = 0.8  # coarse: a quick picture is enough here
TURNS = (CAUSES[1], None, CAUSES[2])
OPTIONS = ["--site", "shifted", "--n", "3", "--seed", "7", "--pixel-spacing-mm", str(SPACING)]


def source(seed: int = 7) -> SimulatedSource:
    return SimulatedSource(plan(Site.SHIFTED, 3, seed, causes=TURNS), SPACING)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cohort") / "made"
    cohorts.build(directory, source(), {"seed": 7}, films=("", cohorts.WHOLE))
    return directory


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same studies as files."""
    folder = tmp_path_factory.mktemp("files")
    write_cohort(folder, CohortSettings(Site.SHIFTED, 3, 7, TURNS, pixel_spacing_mm=SPACING))
    return folder


def test_training_sees_what_the_runtime_sees(directory: Path, files: Path) -> None:
    cohort = cohorts.Cohort.load(directory)
    for i, patient in enumerate(cohort.table["patient_id"]):
        ap, lateral = (Radiograph.from_dicom(files / patient / f"{v.value}.dcm") for v in VIEWS)
        study = Study(ap, lateral, laterality=str(cohort.table["side"][i]))
        prepared = preprocess_study(study, InputSpec())
        assert np.array_equal(cohort.radiographs[i], prepared.radiographs.astype(np.float16))
        assert cohort.table["flags"][i] == ";".join(flag.value for flag in prepared.flags)
    assert cohort.causes.tolist() == [1, -1, 2]


def test_truth_lies_where_the_mask_does(directory: Path) -> None:
    cohort = cohorts.Cohort.load(directory)
    assert cohort.occupancy.shape == (3, 2, 64, 40)
    assert not cohort.occupancy[1].any()
    for i in (0, 2):
        masks = source().read(i)[1]
        for view, occupancy in zip(VIEWS, cohort.occupancy[i], strict=True):
            assert occupancy.max() <= 1
            assert masks[view].any() == (occupancy > 0).any()


def test_a_table_of_files_gives_the_same_numbers(
    directory: Path, files: Path, tmp_path: Path
) -> None:
    read = cohorts.build(tmp_path / "read", FileSource.open(files / "cohort.csv"), {})
    made = cohorts.Cohort.load(directory)
    assert np.array_equal(read.radiographs, made.radiographs)
    assert np.array_equal(read.occupancy, made.occupancy)
    assert np.array_equal(read.causes, made.causes)
    for name in ("patient_id", "sign_mm", "crp", "stem", "ap_mm_per_pixel", "flags"):
        assert np.array_equal(read.table[name], made.table[name]), name


def test_a_bare_table_has_unknown_truth_and_refused_studies_are_counted(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = FileSource.open(files / "cohort.csv").rows
    bare = [{name: row[name] for name in ("ap", "lateral", "cause")} for row in rows]
    bare[2]["lateral"] = bare[2]["ap"]
    with (files / "bare.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(bare[0]))
        table.writeheader()
        table.writerows(bare)
    options = ["--table", str(files / "bare.csv"), "--out", str(tmp_path / "bare")]
    assert CliRunner().invoke(cohorts.main, options).exit_code == 0
    cohort = cohorts.Cohort.load(tmp_path / "bare")
    assert "1 studies refused (same_image_twice: 1)" in capsys.readouterr().err
    assert cohort.index["refused"] == {"same_image_twice": 1}
    assert cohort.causes.tolist() == [1, -1]
    assert np.isnan(cohort.occupancy[0]).all()
    assert not cohort.occupancy[1].any()
    assert cohort.radiographs.shape == (2, 2, 512, 320)
    assert np.array_equal(np.asarray(cohort.radiographs)[1, 0], cohort.radiographs[1, 0])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("ap,cause\n", "no column lateral"), ("ap,lateral,cause\na,b,gout\n", "line 2: .*'gout'")],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "wrong.csv").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        FileSource.open(tmp_path / "wrong.csv")


def test_the_whole_film_shows_more_of_the_same_hip(directory: Path) -> None:
    box = cohorts.Cohort.load(directory)
    film = cohorts.Cohort.load(directory, whole=True)
    for view in VIEWS:
        name = f"{view.value}_mm_per_pixel"
        assert (film.table[name] >= box.table[name]).all()  # a long stem fills the film
        assert (film.table[name] > 1.2 * box.table[name]).any()
    # The same diseased area in mm2, up to what the box leaves out and the thin edge of a mask.
    areas = [
        c.occupancy[:, 0].astype(float).sum((1, 2)) * c.table["ap_mm_per_pixel"] ** 2
        for c in (box, film)
    ]
    assert areas[1][[0, 2]] == pytest.approx(areas[0][[0, 2]], rel=0.05)


def test_a_part_of_a_cohort_keeps_its_rows_together(directory: Path) -> None:
    cohort = cohorts.Cohort.load(directory)
    part = cohort.subset(np.array([2, 0])).subset(np.array([False, True]))
    assert part.causes.tolist() == [1]
    assert part.table["patient_id"].tolist() == ["SIM-S-000007-0000"]
    assert np.array_equal(part.radiographs[0], cohort.radiographs[0])
    assert np.array_equal(part.radiographs[:, 1], cohort.radiographs[:1, 1])


def test_a_stopped_run_continues(directory: Path) -> None:
    whole = np.array(np.load(directory / "radiographs.npy"))
    rows = directory / "rows.jsonl"
    before = rows.read_text()
    # As if the machine had stopped in the middle of the last line.
    os.truncate(rows, len(before) - 10)
    radiographs = np.load(directory / "radiographs.npy", mmap_mode="r+")
    radiographs[2] = 0
    radiographs.flush()
    with pytest.raises(ValueError, match="1 studies are missing"):
        cohorts.Cohort.load(directory)
    again = cohorts.build(directory, source(), {"seed": 7}, workers=2, films=("", cohorts.WHOLE))
    assert np.array_equal(again.radiographs, whole)
    assert rows.read_text() == before


def test_two_cohorts_never_mix(directory: Path) -> None:
    with pytest.raises(ValueError, match=r"different: seed\)"):
        cohorts.build(directory, source(8), {"seed": 8}, films=("", cohorts.WHOLE))


def test_a_cohort_is_either_simulated_or_read(tmp_path: Path) -> None:
    both = CliRunner().invoke(
        cohorts.main, [*OPTIONS, "--table", __file__, "--out", str(tmp_path / "both")]
    )
    neither = CliRunner().invoke(cohorts.main, ["--n", "3", "--out", str(tmp_path / "neither")])
    assert both.exit_code == neither.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_area_fraction() -> None:
    mask = np.zeros((16, 24), bool)
    mask[:8, 8:12] = True
    assert area_fraction(mask).tolist() == [[0, 0.5, 0], [0, 0, 0]]
