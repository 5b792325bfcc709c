"""`hipnet-edge validate` on real files with the small bundle: what is written, said, refused."""

from __future__ import annotations

import csv
import json
import shutil

import cv2
import numpy as np
import pydicom
import pytest

pytest.importorskip("scipy", reason="SciPy (the evaluate extra) is not installed")
pytest.importorskip("matplotlib", reason="matplotlib (the evaluate extra) is not installed")

from small_bundle import write_bundle
from small_cohort import telling_bundle, write_films, write_table
from small_study import PATIENT, PATIENT_ID

from hipnet_edge import Predictor
from hipnet_edge.cli import run
from hipnet_edge.vocabulary import CAUSES

N = 30


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    return folder, write_films(folder, N)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, films):
    return telling_bundle(tmp_path_factory.mktemp("bundle"), films[0], N)


@pytest.fixture
def command(bundle, capfd):
    """Run `hipnet-edge validate` with the small bundle: exit code, stdout, stderr."""

    def validate(table, out, *more):
        options = ["--bundle", bundle, "--threads", 1, *more]
        code = run([str(part) for part in ("validate", table, "--out", out, *options)])
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return validate


def answered_by(bundle, folder, rows):
    """What the package itself answers, study by study."""
    with Predictor(bundle, threads=1) as predictor:
        return [predictor.predict(folder / row["ap"], folder / row["lateral"]) for row in rows]


def read_report(out):
    return json.loads((out / "report.json").read_text())


def read_results(out):
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_report_holds_the_figures_of_the_packages_own_answers(command, films, bundle, tmp_path):
    folder, rows = films
    predictions = answered_by(bundle, folder, rows)
    rows = [dict(row) for row in rows]
    # Six in seven are labelled as they are answered, so that there is something to find.
    for i, (row, prediction) in enumerate(zip(rows, predictions, strict=True)):
        row["cause"] = prediction.leading_cause.value if i % 7 else "aseptic loosening"
    (folder / "criteria.toml").write_text(
        '[at_least]\n"accuracy.value" = 0.5\nanswered.lower = 0.8\n'
        '[at_most]\n"accuracy.upper" = 0.5\n'
    )
    out = tmp_path / "report"
    criteria = folder / "criteria.toml"
    code, said, _ = command(write_table(folder / "a.csv", rows), out, "--criteria", criteria)
    report = read_report(out)
    right = [p.leading_cause.value == r["cause"] for p, r in zip(predictions, rows, strict=True)]
    named = [row["cause"].replace(" ", "_") for row in rows]
    right = [p.leading_cause.value == cause for p, cause in zip(predictions, named, strict=True)]
    assert report["figures"]["accuracy"]["value"] == round(np.mean(right), 4)
    assert report["figures"]["accuracy"]["studies"] == N
    assert np.sum(report["figures"]["confusion"]) == N
    assert code == 5
    assert report["verdict"] == "NOT ACCEPTED: 1 of 3 criteria is not met."
    assert said.splitlines()[0] == report["verdict"]
    assert [one["met"] for one in report["criteria"]] == [True, True, False]
    assert report["tested"]["bundle"]["name"] == "small"
    assert report["tested"]["engine"]["name"]
    results = read_results(out)
    assert [int(one["line"]) for one in results] == list(range(2, N + 2))
    for one, prediction in zip(results, predictions, strict=True):
        for cause in CAUSES:
            assert float(one[f"p_{cause.value}"]) == prediction.probabilities[cause]
    page = (out / "report.html").read_text()
    body = page[page.index("<body>") :]
    assert body.index(report["verdict"]) < body.index("<h1>")
    assert "<script" not in page
    assert 'src="http' not in page
    assert "url(" not in page.replace("url(#", "")
    everything = page + json.dumps(report) + (out / "results.csv").read_text()
    for secret in (PATIENT, PATIENT_ID, "P17", "ap17"):
        assert secret not in everything


def test_a_stopped_validation_goes_on_where_it_was(command, films, bundle, tmp_path):
    folder, rows = films
    table, out = write_table(folder / "b.csv", rows[:8]), tmp_path / "report"
    assert command(table, out)[0] == 0
    whole, log = read_results(out), out / "answers.csv"
    lines = log.read_text().splitlines(keepends=True)
    marked = [line.replace("answered,", "answered,seen") for line in lines[1:5]]
    log.write_text("".join([lines[0], *marked, lines[5][:40]]))  # cut short in the fifth answer
    (out / "report.json").write_text("old")
    assert command(table, out)[0] == 0
    again = log.read_text().splitlines(keepends=True)
    assert again[:5] == [lines[0], *marked]  # not asked again
    assert [line.rpartition(",")[0] for line in again[5:]] == [
        line.rpartition(",")[0] for line in lines[5:]
    ]  # all but the time it took
    seen = read_results(out)
    assert [one["code"] for one in seen] == ["seen"] * 4 + [""] * 4
    assert [one["p_pji"] for one in seen] == [one["p_pji"] for one in whole]
    code, _, err = command(table, out, "--bundle", write_bundle(tmp_path / "other"))
    assert code == 2
    assert "another bundle, engine, precision" in err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    code, _, err = command(table, tmp_path / "full")
    assert code == 2
    assert "not empty" in err


def test_missing_refused_and_repeated_studies_are_counted_and_named(command, films, tmp_path):
    folder, rows = films
    rows = [dict(row) for row in rows[:12]]
    rows[1]["lateral"] = "nowhere.dcm"
    rows[2]["ap"], rows[2]["lateral"] = rows[2]["lateral"], rows[2]["ap"]
    (folder / "broken.dcm").write_bytes(b"no film")
    rows[3]["ap"] = "broken.dcm"
    for place, source in ((4, 0), (5, 6)):  # copies of others' films, one with another label
        for view in ("ap", "lateral"):
            copy = f"copy-{place}-{view}.dcm"
            shutil.copy(folder / rows[source][view], folder / copy)
            rows[place][view] = copy
    rows[4]["cause"] = rows[0]["cause"]
    out = tmp_path / "report"
    code, said, _ = command(write_table(folder / "c.csv", rows), out)
    assert code == 0
    report = read_report(out)
    left = {one["line"]: (one["status"], one["code"]) for one in report["left_out"]}
    assert left == {
        3: ("missing", "unreadable_file"),
        4: ("refused", "wrong_view"),
        5: ("refused", "not_dicom"),
        6: ("excluded", "same_radiographs_twice"),
        7: ("excluded", "same_radiographs_other_cause"),
        8: ("excluded", "same_radiographs_other_cause"),
    }
    assert report["studies"]["counted"] == 6
    assert report["figures"]["accuracy"]["studies"] == 6
    assert report["figures"]["answered"]["studies"] == 9
    assert report["figures"]["answered"]["value"] == round(6 / 9, 4)
    assert report["figures"]["accuracy_if_left_out_are_wrong"]["studies"] == 9
    assert len(read_results(out)) == 12
    assert "same radiographs" in said
    assert "same_radiographs_other_cause" in (out / "report.html").read_text()


def test_a_mended_file_is_predicted_and_a_removed_one_is_missing(command, films, tmp_path):
    folder, rows = films
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    (own / "ap0.dcm").write_bytes(b"no film")
    table, out = write_table(own / "d.csv", rows[:4]), tmp_path / "report"
    command(table, out)
    assert [one["status"] for one in read_results(out)] == ["refused"] + ["answered"] * 3
    shutil.copy(folder / "ap0.dcm", own / "ap0.dcm")
    (own / "ap1.dcm").unlink()
    command(table, out)
    assert [one["status"] for one in read_results(out)] == ["answered", "missing"] + [
        "answered"
    ] * 2


def labelled_by_answers(films, bundle, change=lambda cause: cause):
    folder, rows = films
    predictions = answered_by(bundle, folder, rows)
    return folder, [
        {**row, "cause": change(p.leading_cause.value)}
        for row, p in zip(rows, predictions, strict=True)
    ]


def test_exchanged_labels_get_no_figures(command, films, bundle, tmp_path):
    folder, right = labelled_by_answers(films, bundle)
    present = sorted({row["cause"] for row in right})
    assert len(present) > 1  # the small bundle does not always say the same
    turned = dict(zip(present, present[1:] + present[:1], strict=True))
    wrong = [{**row, "cause": turned[row["cause"]]} for row in right]
    (folder / "easy.toml").write_text('[at_least]\n"accuracy.value" = 0.0\n')
    table, out = write_table(folder / "e.csv", wrong), tmp_path / "report"
    code, said, _ = command(table, out, "--criteria", folder / "easy.toml")
    report = read_report(out)
    assert report["accepted"] is None
    assert set(report["figures"]) == {"answered", "confusion"}
    assert said.startswith("NO VERDICT: the labels look exchanged")
    assert f"would be in {N}" in report["notices"][0]
    assert code == 5
    command(table, out, "--criteria", folder / "easy.toml", "--trust-labels")
    assert read_report(out)["figures"]["accuracy"]["value"] == 0.0


def test_wrong_views_and_a_single_patient_are_said(command, films, tmp_path):
    folder, rows = films
    exchanged = [{**row, "ap": row["lateral"], "lateral": row["ap"]} for row in rows[:6]]
    code, said, _ = command(write_table(folder / "f.csv", exchanged), tmp_path / "views")
    assert code == 0
    assert "columns ap and lateral exchanged" in said
    assert set(read_report(tmp_path / "views")["figures"]) == {"answered"}
    alone = [{**row, "patient_id": "one"} for row in rows]
    _, said, _ = command(write_table(folder / "g.csv", alone), tmp_path / "alone")
    assert "All studies are of one patient" in said
    figures = read_report(tmp_path / "alone")["figures"]
    assert figures["brier"]["ci95"] is None
    assert figures["macro_auc"]["ci95"] is None
    low, high = figures["accuracy"]["ci95"]
    assert high - low > 0.5


def test_maps_are_held_against_masks(command, films, tmp_path):
    folder, rows = films
    rows = [dict(row) for row in rows[:10]]
    for i, row in enumerate(rows):
        for view in ("ap", "lateral"):
            mask = np.zeros((240, 200), np.uint8)
            mask[60:120, 60:100] = 255
            row[f"{view}_mask"] = f"{view}{i}_mask.png"
            cv2.imwrite(str(folder / row[f"{view}_mask"]), mask)
    cv2.imwrite(str(folder / "small.png"), np.zeros((9, 9), np.uint8))
    rows[0]["ap_mask"] = "small.png"
    rows[1]["cause"] = "none"
    out = tmp_path / "report"
    _, said, _ = command(write_table(folder / "h.csv", rows), out)
    assert "1 studies name a mask that cannot be read" in said
    assert "1 studies name no cause" in said
    maps = read_report(out)["figures"]["maps"]
    kept = sorted((out / "maps").iterdir())
    kept[0].write_bytes(b"")
    kept[1].unlink()
    command(folder / "h.csv", out)  # what is damaged or gone is made again
    assert read_report(out)["figures"]["maps"] == maps
    assert maps["all"]["views"] == 17  # nine failed ones, less one mask
    assert 0.0 <= maps["all"]["dice"]["value"] <= 1.0
    ceiling = maps["all"]["pixel_average_precision_ceiling"]["value"]
    assert maps["all"]["pixel_average_precision"]["value"] < ceiling <= 1.0


def test_two_validations_are_compared_study_by_study(command, films, bundle, tmp_path, capfd):
    folder, rows = labelled_by_answers(films, bundle)
    other = write_bundle(tmp_path / "other")
    table = write_table(folder / "i.csv", rows)
    for name, model, some in (("a", bundle, 30), ("b", bundle, 25), ("c", other, 30)):
        write_table(folder / "i.csv", rows[:some])
        command(table, tmp_path / name, "--bundle", model)

    def compared(second):
        arguments = (
            "validate",
            "--compare",
            tmp_path / "a",
            tmp_path / second,
            "--out",
            tmp_path / "x",
        )
        assert run([str(part) for part in arguments]) == 0
        return json.loads(capfd.readouterr().out)

    same = compared("b")
    assert same["studies"]["compared"] == same["studies"]["same_leading_cause"] == 25
    assert same["studies"]["only_in_first"] == 5
    assert same["second_less_first"]["accuracy"]["value"] == 0.0
    assert same["p"]["accuracy"] == 1.0
    assert compared("c")["studies"]["compared"] == 30
    assert "Two validations of one cohort" in (tmp_path / "x" / "comparison.html").read_text()
    assert run(["validate", "--compare", str(tmp_path), str(tmp_path), "--out", "x"]) == 2
    assert "no finished validation" in capfd.readouterr().err


def test_plans_and_bad_criteria_are_answered_in_a_sentence(command, films, tmp_path, capfd):
    folder, rows = films
    options = ["--expected", "0.95", "--lower-bound", "0.9"]
    assert run(["plan-validation", *options, "--prevalence", "0.2"]) == 0
    assert "patients with one study each" in capfd.readouterr().out
    assert run(["plan-validation", *options]) == 2
    assert "which part of the patients" in capfd.readouterr().err
    table = write_table(folder / "j.csv", rows[:3])
    for text, complaint in (
        ('[at_least]\n"macro_acu.lower" = 0.9', "no figure of a report"),
        ('[at_least]\n"macro_auc.lower" = "high"', "no number"),
        ("[at_last]\nx = 1", "at_least and at_most"),
        ("nonsense", "not TOML"),
    ):
        (folder / "bad.toml").write_text(text)
        code, _, err = command(table, tmp_path / "r", "--criteria", folder / "bad.toml")
        assert code == 2
        assert complaint in err
    assert not (tmp_path / "r").exists()


def test_burned_in_text_is_never_shown(command, films, bundle, tmp_path):
    folder, rows = labelled_by_answers(films, bundle, lambda _: "dislocation")
    rows = [dict(row) for row in rows if row["cause"] == "dislocation"][:4]
    for view in ("ap", "lateral"):
        film = pydicom.dcmread(folder / rows[0][view])
        film.BurnedInAnnotation = "YES"
        film.save_as(folder / f"burned-{view}.dcm", enforce_file_format=True)
        rows[0][view] = f"burned-{view}.dcm"
    out = tmp_path / "report"
    command(write_table(folder / "k.csv", rows), out, "--trust-labels")
    page = (out / "report.html").read_text()
    wrong = read_report(out)["figures"]["accuracy"]
    mistakes = round((1 - wrong["value"]) * wrong["studies"])
    assert "Not shown: text is burned into the radiographs." in page
    assert page.count("data:image/jpeg;base64,") == 2 * (mistakes - 1)


def test_results_are_a_parquet_table_too(command, films, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    folder, rows = films
    command(write_table(folder / "l.csv", rows[:3]), tmp_path / "report")
    table = parquet.read_table(tmp_path / "report" / "results.parquet")
    assert table.column_names == list(read_results(tmp_path / "report")[0])
    assert table.column("line").to_pylist() == [2, 3, 4]


def test_without_the_extra_it_is_named(films, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("hipnet_edge.evaluation.commands.find_spec", lambda _: None)
    assert run(["validate", "any.csv", "--out", str(tmp_path / "x")]) == 4
    assert "hipnet-edge[evaluate]" in capfd.readouterr().err


def test_a_study_that_the_engine_fails_on_is_counted_and_the_others_go_on(command, films, tmp_path):
    folder, rows = films
    failing = telling_bundle(tmp_path, folder, 8, fails=True)
    command(write_table(folder / "m.csv", rows[:8]), tmp_path / "r", "--bundle", failing)
    said = [(one["status"], one["code"]) for one in read_results(tmp_path / "r")]
    assert set(said) == {("answered", ""), ("failed", "non_finite_output")}
    failed = sum(status == "failed" for status, _ in said)
    assert read_report(tmp_path / "r")["studies"]["left_out"]["failed"] == failed
