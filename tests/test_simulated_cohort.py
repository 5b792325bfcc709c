"""Cohorts of simulated studies: who is in them, and the files of `hipnet-edge simulate --n`."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter

import cv2
import numpy as np
import pydicom
import pytest

from hipnet_edge import Radiograph, Study, cli
from hipnet_edge.errors import UsageError
from hipnet_edge.preprocessing import InputSpec, preprocess_study
from hipnet_edge.simulation.cohort import COLUMNS, PREVALENCE, SOUND, causes_from, plan
from hipnet_edge.simulation.dimensions import Site
from hipnet_edge.vocabulary import CAUSES, VIEWS, Cause

COARSE = ("--seed", "5", "--pixel-spacing-mm", "0.8")
ISSUED = [
    *("ap", "lateral", "cause", "patient_id", "site", "severity", "sign_mm", "crp", "esr"),
    *("side", "ap_mask", "lateral_mask"),
]


def simulate(out, *options: str) -> int:
    return cli.run(["simulate", "--out", str(out), *COARSE, *options])


def table(folder) -> list[dict[str, str]]:
    with (folder / "cohort.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def digests(folder) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """A loosening and a sound hip of the shifted site, with the loosening's twin."""
    folder = tmp_path_factory.mktemp("cohort") / "dicom"
    options = ("--n", "2", "--causes", "aseptic_loosening,none", "--site", "shifted", "--twin")
    assert simulate(folder, *options, "--workers", "1") == 0
    return folder


@pytest.mark.parametrize("site", Site)
def test_a_site_sees_each_cause_as_often_as_the_table_says(site):
    planned = plan(site, 6000, 3)
    counts = Counter(study.cause for study in planned)
    assert counts.pop(None) / 6000 == pytest.approx(SOUND.at(site), abs=0.02)
    for cause, chance in PREVALENCE.items():
        assert counts[cause] / counts.total() == pytest.approx(chance.at(site), abs=0.025)
    assert sum(chance.at(site) for chance in PREVALENCE.values()) == pytest.approx(1)


def test_a_longer_cohort_begins_with_the_shorter_one_and_another_seed_shares_nobody():
    short, long = (
        plan(Site.SHIFTED, 20, 4, two_causes=0.5),
        plan(Site.SHIFTED, 30, 4, two_causes=0.5),
    )
    assert long[:20] == short
    other = plan(Site.SHIFTED, 30, 5)
    assert not {study.seed for study in long} & {study.seed for study in other}
    assert not {study.patient_id for study in long} & {study.patient_id for study in other}


def test_causes_are_taken_in_turn_and_some_have_a_second_one():
    turns = causes_from("pji, none,dislocation")
    assert turns == (Cause.PJI, None, Cause.DISLOCATION)
    planned = plan(Site.DEVELOPMENT, 3000, 1, causes=turns, two_causes=0.3)
    assert [study.cause for study in planned[:4]] == [*turns, Cause.PJI]
    seconds = Counter(study.also for study in planned if study.cause is Cause.PJI)
    assert seconds[None] / 1000 == pytest.approx(0.7, abs=0.05)
    assert set(seconds) == {None, *CAUSES} - {Cause.PJI}
    assert all(study.also is None for study in planned if study.cause is None)
    half_sound = plan(Site.DEVELOPMENT, 2000, 1, causes=CAUSES, sound=0.5)
    assert sum(s.cause is None for s in half_sound) / 2000 == pytest.approx(0.5, abs=0.05)


def test_unknown_causes_and_impossible_sizes_are_bad_usage(tmp_path, capsys):
    with pytest.raises(UsageError, match="not gout"):
        causes_from("pji,gout")
    with pytest.raises(UsageError):
        plan(Site.DEVELOPMENT, 100_001, 1)
    assert simulate(tmp_path / "a", "--n", "1", "--causes", "gout") == 2
    assert "not gout" in capsys.readouterr().err
    assert simulate(tmp_path / "b") == 2
    assert simulate(tmp_path / "b", "--n", "1", "--cause", "pji") == 2
    assert simulate(tmp_path / "b", "--cause", "pji", "--twin") == 2
    assert not list(tmp_path.iterdir())


def test_the_table_names_the_files_and_what_is_true(twins):
    rows = table(twins)
    assert list(rows[0]) == list(COLUMNS)
    assert list(COLUMNS)[: len(ISSUED)] == ISSUED
    sick, twin, sound = rows
    assert [row["cause"] for row in rows] == ["aseptic_loosening", "", ""]
    assert [row["twin_of"] for row in rows] == ["", sick["patient_id"], ""]
    assert sick["patient_id"] == "SIM-S-000005-0000"
    assert float(sick["sign_mm"]) > 0
    assert 0 < float(sick["severity"]) <= 1
    assert float(sound["sign_mm"]) == float(sound["severity"]) == 0
    for row in rows:
        assert row["site"] == "shifted"
        assert min(float(row["crp"]), float(row["esr"])) > 0
        for view in VIEWS:
            mask = cv2.imread(str(twins / row[f"{view.value}_mask"]), cv2.IMREAD_UNCHANGED)
            dataset = pydicom.dcmread(twins / row[view.value])
            assert mask.shape == (dataset.Rows, dataset.Columns)
            assert mask.any() == (row["cause"] != "")
            assert dataset.PatientID == row["patient_id"]
    assert twin["stem"] == sick["stem"]


def test_every_row_is_a_study_the_runtime_reads(twins):
    objects = set()
    for row in table(twins):
        ap, lateral = (Radiograph.from_dicom(twins / row[view.value]) for view in VIEWS)
        study = Study(ap, lateral, laterality=row["side"])
        assert preprocess_study(study, InputSpec()).laterality.value == row["side"]
        assert ap.study_instance_uid == lateral.study_instance_uid
        objects |= {ap.sop_instance_uid, lateral.sop_instance_uid, ap.study_instance_uid}
    assert len(objects) == 3 * len(table(twins))


def test_a_twin_differs_only_near_the_disease(twins):
    sick, twin, _ = table(twins)
    for view in VIEWS:
        a, b = (pydicom.dcmread(twins / row[view.value]).pixel_array for row in (sick, twin))
        mask = cv2.imread(str(twins / sick[f"{view.value}_mask"]), cv2.IMREAD_GRAYSCALE)
        far = cv2.distanceTransform((mask == 0).astype(np.uint8), cv2.DIST_L2, 5) * 0.8 > 9
        assert np.array_equal(a[far], b[far])
        assert not np.array_equal(a, b)


def test_the_same_files_whatever_the_number_of_processes_and_after_a_stop(twins, tmp_path):
    options = ("--n", "2", "--causes", "aseptic_loosening,none", "--site", "shifted", "--twin")
    folder = tmp_path / "again"
    assert simulate(folder, *options, "--workers", "2") == 0
    wanted = digests(twins)
    assert digests(folder) == wanted
    # As if stopped: a study without its truth, and no table.
    sick = table(folder)[0]["patient_id"]
    (folder / sick / "truth.json").unlink()
    (folder / sick / "ap.dcm").write_bytes(b"half")
    (folder / "cohort.csv").unlink()
    assert simulate(folder, *options, "--workers", "1") == 0
    assert digests(folder) == wanted


def test_a_folder_that_holds_something_else_is_left_alone(twins, tmp_path, capsys):
    before = digests(twins)
    assert simulate(twins, "--n", "3") == 2
    assert "another cohort" in capsys.readouterr().err
    assert digests(twins) == before
    (tmp_path / "mine.txt").write_text("mine")
    assert simulate(tmp_path, "--n", "1") == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_png_shows_what_the_dicom_object_shows(twins, tmp_path):
    options = ("--n", "2", "--causes", "aseptic_loosening,none", "--site", "shifted")
    assert simulate(tmp_path / "png", *options, "--format", "png", "--workers", "1") == 0
    row, dicom = table(tmp_path / "png")[0], table(twins)[0]
    assert {k: row[k] for k in ISSUED[2:]} == {k: dicom[k] for k in ISSUED[2:]}
    prepared = []
    for folder, names, read in (
        (tmp_path / "png", row, Radiograph.from_image),
        (twins, dicom, Radiograph.from_dicom),
    ):
        ap, lateral = (read(folder / names[view.value]) for view in VIEWS)
        prepared.append(preprocess_study(Study(ap, lateral, laterality=row["side"]), InputSpec()))
    # 16 bits and another stretch of the same greys; boxes may differ by a pixel of the thumbnail.
    for png, dcm in zip(prepared[0].radiographs, prepared[1].radiographs, strict=True):
        assert np.corrcoef(png.ravel(), dcm.ravel())[0, 1] > 0.99
