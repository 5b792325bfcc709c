"""Daily counts add up and survive; drift is said in words, rarely where there is none."""

from __future__ import annotations

import json
import threading
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from made_answers import answers, calibrated_bundle
from small_study import BIRTH_DATE, PATIENT, PATIENT_ID, dicom_bytes, small_dicom

from benchmarks.drift_alarms import SHIFTS, alarms, drawn
from hipnet_edge import Prediction, Predictor, Radiograph, UsageError
from hipnet_edge.cli import run
from hipnet_edge.evaluation.daily import DailyStatistics, Statistics, read_days, scores
from hipnet_edge.evaluation.drift import Concern, compare, stability_index

DAY = date(2026, 3, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return calibrated_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def prediction(folder) -> Prediction:
    ap, lateral = small_dicom("ap", 1), small_dicom("lateral", 1)
    ap.ExposureIndex, ap.TargetExposureIndex, ap.DeviationIndex = "420", "400", "0.2"
    with Predictor(folder, threads=1) as predictor:
        return predictor.predict(dicom_bytes(ap), dicom_bytes(lateral))


@pytest.fixture(scope="module")
def predictions(prediction) -> list[Prediction]:
    return [one.prediction for one in answers(prediction, 60, 1.0, 1)]


def test_exposure_is_read_from_the_header_and_refuses_nothing(prediction):
    ap, lateral = prediction.inputs["ap"], prediction.inputs["lateral"]
    assert (ap.exposure.index, ap.exposure.target, ap.exposure.deviation) == (420.0, 400.0, 0.2)
    assert lateral.exposure is None
    assert Prediction.from_dict(prediction.to_dict()).inputs["ap"].exposure == ap.exposure
    assert scores(prediction)["ap_exposure_index"] == 420.0
    odd = small_dicom("ap", 1)
    odd.ExposureIndex, odd.DeviationIndex = "0", "-3.1"
    assert Radiograph.from_dicom(dicom_bytes(odd)).exposure.index is None
    assert Radiograph.from_dicom(dicom_bytes(odd)).exposure.deviation == -3.1
    sound = dicom_bytes(small_dicom("ap", 1))
    twisted = dicom_bytes(odd).replace(b"-3.1", b"nan ")
    assert twisted != dicom_bytes(odd)
    assert Radiograph.from_dicom(twisted).exposure is None
    assert Radiograph.from_dicom(sound).exposure is None


def test_days_add_up_and_hold_no_patient_data(predictions, tmp_path):
    file = tmp_path / "daily.jsonl"
    days = DailyStatistics(file, predictions[0].provenance)
    for number, one in enumerate(predictions):
        days.add(one, DAY + timedelta(days=number // 20))
    days.refused("not_a_hip", DAY)
    days.save()
    text = file.read_text()
    assert len(text.splitlines()) == 3
    assert len(text) < 3 * 3000
    record = predictions[0].inputs["ap"]
    for secret in (PATIENT, PATIENT_ID, BIRTH_DATE, record.pixel_sha256, "1.2."):
        assert secret not in text
    whole = Statistics.over(predictions)
    whole.refused["not_a_hip"] += 1
    found = Statistics(whole.model)
    for one in read_days(file).values():
        found.merge(one)
    assert found.to_dict() == whole.to_dict()
    assert whole.studies == 60
    values = [one.pji_risk for one in predictions]
    assert whole.quantile("p_pji", 0.5) == pytest.approx(np.median(values), abs=0.06)
    assert whole.quantile("lateral_exposure_index", 0.5) is None


def test_what_is_written_survives_and_can_be_rebuilt(predictions, tmp_path):
    file, now = tmp_path / "daily.jsonl", [0.0]
    days = DailyStatistics(file, predictions[0].provenance, clock=lambda: now[0])
    days.add(predictions[0], DAY)
    assert not file.exists()  # the next writing is due in a minute
    now[0] = 61.0
    days.add(predictions[1], DAY)
    days.add(predictions[2], DAY + timedelta(days=1))  # a new day is written at once
    (second,) = (one for (day, _), one in read_days(file).items() if day != DAY.isoformat())
    assert second.studies == 1
    days.refused("wrong_view", DAY)
    days.save()
    # Another process goes on where this one was killed.
    again = DailyStatistics(file, predictions[0].provenance)
    again.add(predictions[3], DAY)
    again.save()
    counted = {day: one.studies for (day, _), one in read_days(file).items()}
    assert counted == {"2026-03-02": 3, "2026-03-03": 1}
    again.rebuild({DAY: predictions[:10]})
    first, *_ = read_days(file).values()
    assert first.studies == 10
    assert dict(first.refused) == {"wrong_view": 1}
    file.write_text(file.read_text() + "{torn")
    with pytest.raises(UsageError, match="line 3"):
        read_days(file)


def test_many_threads_lose_no_count(predictions, tmp_path):
    days = DailyStatistics(tmp_path / "daily.jsonl", predictions[0].provenance)
    threads = [
        threading.Thread(target=lambda: [days.add(one, DAY) for one in predictions])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    days.save()
    (one,) = read_days(tmp_path / "daily.jsonl").values()
    assert one.studies == 240


def test_false_alarms_are_rare_and_stated_shifts_are_seen():
    quiet = alarms(SHIFTS["none"], 60, 200, seed=5)
    assert quiet["worry_or_watch"]["part"] <= 0.05
    assert alarms(SHIFTS["dose halved"], 30, 20)["worry"]["part"] == 1.0
    assert alarms(SHIFTS["a fifth of the studies refused"], 150, 20)["worry"]["part"] >= 0.9


def test_it_says_what_it_found():
    random = np.random.default_rng(0)
    base = drawn(random, 500, SHIFTS["none"])
    calm = compare(base, drawn(random, 200, SHIFTS["none"]))
    assert calm.concern is Concern.NONE
    assert "No sign of drift in 200 studies" in calm.words
    halved = compare(base, drawn(random, 200, SHIFTS["dose halved"]))
    assert halved.concern is Concern.WORRY
    assert "ap exposure index" in halved.words
    assert {c.what for c in halved.changes if c.concern is Concern.WORRY} == {
        f"{view}_{index}_index" for view in ("ap", "lateral") for index in ("exposure", "deviation")
    }
    few = compare(base, drawn(random, 12, SHIFTS["dose halved"]))
    assert few.concern is Concern.TOO_FEW
    assert "12 recent studies" in few.words
    assert compare(drawn(random, 99, SHIFTS["none"]), base).concern is Concern.TOO_FEW
    # No chance, but small: many studies show a change of a hundredth of the infections' logit.
    many = [drawn(random, 200_000, SHIFTS["none"]) for _ in range(2)]
    many[1].flags["clipped_to_side"] += 2000
    assert compare(*many).concern is Concern.WATCH


def test_the_stability_index_is_that_of_its_definition():
    old, new = np.array([0, 500, 500, 0, 1000]), np.array([0, 300, 100, 0, 600])
    p, q = (np.array([500.5, 500.5, 1000.5]) / 2001.5, np.array([300.5, 100.5, 600.5]) / 1001.5)
    assert stability_index(old, new) == pytest.approx(float(((q - p) * np.log(q / p)).sum()))
    assert stability_index(old, old) == 0.0


def test_the_command_makes_a_baseline_and_compares(prediction, predictions, tmp_path, capsys):
    results, file, baseline = tmp_path / "results", tmp_path / "daily.jsonl", tmp_path / "b.json"
    results.mkdir()
    accepted = [one.prediction for one in answers(prediction, 120, 1.0, 2)]
    for number, one in enumerate(accepted):
        value = one.to_dict() | {"plausible_causes": [], "disagreement": one.disagreement}
        (results / f"{number}.json").write_text(json.dumps(value))
    (results / "refused.json").write_text('{"error": {"code": "wrong_view", "message": "x"}}')
    assert run(["drift", "--recent", str(results), "--make-baseline", str(baseline)]) == 0
    assert json.loads(baseline.read_text())["refused"] == {"wrong_view": 1}
    days = DailyStatistics(file, prediction.provenance)
    sure = [one.prediction for one in answers(prediction, 60, 4.0, 3)]
    for number, one in enumerate([*predictions, *sure]):
        days.add(one, DAY + timedelta(days=number // 60))
    days.save()
    capsys.readouterr()
    ask = ["drift", "--baseline", str(baseline), "--recent", str(file)]
    assert run([*ask, "--days", "1"]) == 5
    assert "Worry: " in capsys.readouterr().out
    file.write_text(file.read_text().splitlines()[0] + "\n")
    assert run([*ask, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["concern"] == "none"
    other = file.read_text().replace('"fp32"', '"int8"')
    file.write_text(other)
    assert run(ask) == 0
    assert "Not comparable" in capsys.readouterr().out
    assert run(["drift", "--recent", str(file)]) == 2
    assert run([*ask[:3], "--recent", str(tmp_path / "missing")]) == 2
