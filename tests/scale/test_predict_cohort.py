"""predict-cohort: a row for each study, the same bytes whoever worked and whatever happened."""

from __future__ import annotations

import csv
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from cohorts import MISSING, REFUSED, STUDIES, write_cohort
from small_bundle import write_bundle
from small_study import PATIENT, PATIENT_ID

from hipnet_edge import Predictor, cli
from hipnet_edge.errors import Reason, UsageError
from hipnet_edge.scale.answers import Model, worker_died
from hipnet_edge.scale.cohort import Where, predict_cohort
from hipnet_edge.scale.journal import Journal
from hipnet_edge.scale.results import COLUMNS, TIMINGS
from hipnet_edge.vocabulary import Cause

PREDICTED = STUDIES - 1
"""Studies of which both files are there."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("model") / "bundle")


@pytest.fixture(scope="module")
def model(bundle):
    return Model.choose(bundle, "onnxruntime", "fp32", exact=False)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory, table, model):
    """The results of one worker."""
    out = tmp_path_factory.mktemp("alone") / "results.csv"
    predict_cohort(table, out, model, Where(workers=1))
    return out


def rows(out: Path) -> list[dict[str, str]]:
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def resume(alone: Path, folder: Path) -> Path:
    """A place for results beside which the journal of the finished run lies."""
    out = folder / "results.csv"
    journal = alone.with_name("results.csv.journal")
    out.with_name(journal.name).write_bytes(journal.read_bytes())
    return out


def test_each_study_has_its_row_in_the_tables_order(alone, table, bundle):
    found = rows(alone)
    assert tuple(found[0]) == COLUMNS
    assert [row["line"] for row in found] == [str(2 + i) for i in range(STUDIES)]
    assert [row["ap"] for row in found] == [f"{i}-ap.dcm" for i in range(STUDIES)]
    statuses = ["answered"] * STUDIES
    statuses[REFUSED], statuses[MISSING] = "refused", "missing"
    assert [row["status"] for row in found] == statuses
    assert (found[REFUSED]["code"], found[MISSING]["code"]) == (
        "different_studies",
        "unreadable_file",
    )
    assert found[REFUSED]["message"]
    assert found[MISSING]["message"]
    with Predictor(bundle, backend="onnxruntime", precision="fp32", threads=1) as predictor:
        prediction = predictor.predict(table.parent / "0-ap.dcm", table.parent / "0-lateral.dcm")
    assert float(found[0]["p_pji"]) == prediction.probabilities[Cause.PJI]
    assert found[0]["leading_cause"] == prediction.leading_cause.value
    assert found[0]["bundle"] == prediction.provenance.bundle_digest


def test_no_patient_is_named_in_results_or_journal(alone):
    for file in alone.parent.iterdir():
        text = file.read_text()
        assert not any(name in text for name in (PATIENT, PATIENT_ID, "patient 0"))


def test_a_worker_killed_half_way_changes_no_byte(tmp_path, alone, table, model):
    out, killed = tmp_path / "results.csv", []

    def kill(done: int, of: int) -> None:
        if done == of // 2:
            victim = multiprocessing.active_children()[0]
            victim.kill()
            killed.append(victim.pid)

    summary = predict_cohort(table, out, model, Where(workers=2), progress=kill)
    assert len(killed) == 1
    assert summary.statuses == {"answered": STUDIES - 2, "refused": 1, "missing": 1}
    assert out.read_bytes() == alone.read_bytes()


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path, alone, table, model, bundle):
    out = tmp_path / "results.csv"
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from hipnet_edge.scale.answers import Model\n"
        "from hipnet_edge.scale.cohort import Where, predict_cohort\n"
        "def stop(done, of):\n"
        "    if done == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "if __name__ == '__main__':\n"
        "    table, out, bundle = map(Path, sys.argv[1:])\n"
        "    model = Model.choose(bundle, 'onnxruntime', 'fp32', False)\n"
        "    predict_cohort(table, out, model, Where(workers=1), progress=stop)\n"
    )
    arguments = map(str, (table, out, bundle))
    ran = subprocess.run([sys.executable, "-c", script, *arguments], check=False)
    assert ran.returncode == -9
    assert not out.exists()
    with out.with_name("results.csv.journal").open("ab") as journal:
        journal.write(b'{"key": "cut sho')
    summary = predict_cohort(table, out, model, Where(workers=1))
    assert summary.known == 4
    assert out.read_bytes() == alone.read_bytes()


def test_what_is_new_is_predicted_and_what_is_known_is_not(tmp_path, alone, table, model):
    out = resume(alone, tmp_path)
    assert predict_cohort(table, out, model, Where()).known == PREDICTED
    assert out.read_bytes() == alone.read_bytes()
    added = table.parent / f"{MISSING}-lateral.dcm"
    added.write_bytes((table.parent / "0-lateral.dcm").read_bytes())
    try:
        summary = predict_cohort(table, out, model, Where(workers=1))
    finally:
        added.unlink()
    assert (summary.known, summary.statuses["missing"]) == (PREDICTED, 0)
    assert rows(out)[MISSING]["code"] == "different_studies"


def test_a_study_over_which_workers_died_is_a_row_and_is_tried_again(tmp_path, alone, table, model):
    out = resume(alone, tmp_path)
    journal_file = out.with_name("results.csv.journal")
    key = json.loads(journal_file.read_text().splitlines()[1])["key"]
    with Journal(journal_file, model.to_dict()) as journal:
        journal.add(key, worker_died(3))
        assert journal[key]["code"] == Reason.WORKER_DIED.value
    assert predict_cohort(table, out, model, Where(workers=1)).known == PREDICTED - 1
    assert out.read_bytes() == alone.read_bytes()


def test_answers_of_another_model_or_run_are_not_mixed(tmp_path, alone, table, bundle, model):
    out = resume(alone, tmp_path)
    exact = Model.choose(bundle, "onnxruntime", "fp32", exact=True)
    with pytest.raises(UsageError, match="another bundle, engine, precision or version"):
        predict_cohort(table, out, exact, Where(workers=1))
    with (
        Journal(out.with_name("results.csv.journal"), model.to_dict()),
        pytest.raises(UsageError, match="Another run"),
    ):
        predict_cohort(table, out, model, Where(workers=1))


def test_a_worker_with_another_version_or_bundle_does_not_answer(tmp_path, bundle, model):
    other = Model(model.bundle, "0" * 64, "auto", "auto", exact=False)
    with pytest.raises(UsageError, match="another bundle"):
        other.open()
    with pytest.raises(UsageError, match=r"not 0\.0\.0"):
        Model(model.bundle, model.digest, "auto", "auto", exact=False, hipnet_edge="0.0.0").open()


def test_parquet_holds_what_csv_holds(tmp_path, alone, table, model):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    for name in ("results.parquet", "again.parquet"):
        out = tmp_path / name
        journal = out.with_name(f"{name}.journal")
        journal.write_bytes(alone.with_name("results.csv.journal").read_bytes())
        predict_cohort(table, out, model, Where())
    assert out.read_bytes() == (tmp_path / "results.parquet").read_bytes()
    found = parquet.read_table(out).to_pylist()
    as_text = [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in found
    ]
    assert as_text == rows(alone)
    assert isinstance(found[0]["p_pji"], float)


def test_the_command(tmp_path, alone, table, bundle, capsys):
    out = resume(alone, tmp_path)
    options = ["--bundle", str(bundle), "--backend", "onnxruntime", "--precision", "fp32"]
    assert cli.run(["predict-cohort", str(table), "--out", str(out), *options, "--timings"]) == 0
    said = capsys.readouterr().out
    assert f"{STUDIES} studies: {STUDIES - 2} answered, 1 missing, 1 refused" in said
    assert f"{PREDICTED} of them were known" in said
    assert "1 different_studies" in said
    found = rows(out)
    assert tuple(found[0]) == (*COLUMNS, *TIMINGS)
    assert float(found[0]["total_ms"]) > 0
    assert cli.run(["predict-cohort", str(table), "--out", str(tmp_path / "a.txt"), *options]) == 2
    assert ".csv or .parquet" in capsys.readouterr().err
