"""Daily statistics: every case once, in the transaction that keeps its result or refusal."""

from __future__ import annotations

import json
import time

import pytest
from flowing import Setup, finished, running, study, wait_for
from keep_made import Kept, pair

from hipnet_edge import Predictor, Reason
from hipnet_edge.cart import daily
from hipnet_edge.cart.queue import Case, NewRefusal, Settlement, State
from hipnet_edge.cli import run
from hipnet_edge.errors import Fault
from hipnet_edge.evaluation.daily import DAILY_FILE, Model, Statistics, read_days

DAY = 86400.0


@pytest.fixture(scope="module")
def prediction(bundle):
    with Predictor(bundle, threads=1) as predictor:
        return predictor.predict(*study(1))


class Counting:
    """A queue whose cases are counted, on days that the test chooses."""

    def __init__(self, data, prediction) -> None:
        self.now = time.time() - 10 * DAY
        self.kept = Kept(data, lambda: self.now)
        self.queue, self.prediction = self.kept.queue, prediction
        self.queue.model = Model.of(prediction.provenance)

    def arrive(self, name: str, *views: str) -> None:
        for view in views:
            self.queue.admit(self.kept.image(f"{name}.{view}", view, name))

    def settle(self, settlement: Settlement | None = None) -> None:
        (waiting,) = self.queue.waiting_studies()
        assert self.queue.settle(waiting, settlement or pair(waiting))

    def claimed(self, name: str) -> Case:
        self.arrive(name, "ap", "lateral")
        self.settle()
        case = self.queue.claim(self.now)
        assert case is not None
        return case

    def answered(self, case: Case, destinations=()) -> None:
        wanted = dict.fromkeys(destinations, ("report",))
        answer = Statistics.over([self.prediction])
        self.queue.predicted(case.id, *self.kept.results(case.id), wanted, answer)

    def days(self) -> list[tuple[int, dict[str, int]]]:
        """Studies and refusals of each day on record."""
        daily.export(self.queue.database, self.kept.data)
        found = read_days(self.kept.data / DAILY_FILE)
        assert list(found) == sorted(found, key=str)
        return [(day.studies, dict(day.refused)) for day in found.values()]


@pytest.fixture
def counting(tmp_path, prediction):
    made = Counting(tmp_path, prediction)
    yield made
    made.queue.close()


def test_an_answer_counts_once_and_stays_counted_when_its_study_is_forgotten(counting):
    case = counting.claimed("one")
    with pytest.raises(Fault):  # the result is not kept: neither is the count
        counting.queue.predicted(case.id, "no/file", [], {}, Statistics.over([counting.prediction]))
    assert counting.days() == []
    counting.answered(case, ["pacs"])
    with pytest.raises(Fault):
        counting.answered(case)
    (delivery,) = counting.queue.due("pacs", counting.now, 9)
    counting.queue.delivery_postponed(delivery, "no_answer", None)
    counting.queue.retry(case.id)  # to send it again is no second answer
    counting.queue.sent(delivery)
    assert counting.days() == [(1, {})]
    (study_of_it,) = counting.queue.finished_studies()
    assert counting.queue.purge(study_of_it, "age")
    counting.now += DAY
    for name in ("two", "three"):
        counting.answered(counting.claimed(name))
    assert counting.days() == [(1, {}), (2, {})]


def test_a_refusal_counts_until_a_late_image_takes_it_back(counting):
    case = counting.claimed("odd")
    counting.queue.refuse(case.id, Reason.EMPTY_IMAGE.value, "Empty.")
    alone = NewRefusal("lone.ap", None, "left", Reason.MISSING_VIEW.value, "One view.")
    counting.arrive("lone", "ap")
    counting.settle(Settlement(refused=(alone,)))
    both = {Reason.EMPTY_IMAGE.value: 1, Reason.MISSING_VIEW.value: 1}
    assert counting.days() == [(0, both)]
    counting.now += DAY
    counting.arrive("lone", "lateral")
    counting.settle()
    case = counting.queue.claim(counting.now)
    counting.answered(case)
    assert counting.days() == [(0, {Reason.EMPTY_IMAGE.value: 1}), (1, {})]


def test_records_of_another_schema_are_left_alone(counting):
    with counting.queue.database.transaction() as connection:
        today = daily._day(counting.now)
        connection.execute("INSERT INTO daily VALUES (?, 0, 'other', 'unreadable')", (today,))
    counting.answered(counting.claimed("one"))
    assert counting.days() == [(1, {})]


def test_drift_reads_the_data_folder_of_a_cart(tmp_path, bundle, capsys):
    pytest.importorskip("scipy", reason="drift needs the extra evaluate")
    setup = Setup(tmp_path, bundle)
    for lives in range(2):  # what was counted before a restart is still counted
        with running(setup, setup.configuration(page=False)) as cart:
            for file in (*study(2 * lives + 1), *study(2 * lives + 2)):
                assert cart.admission.admit(file, source="upload").accepted
            wait_for(lambda: finished(cart.queue))
            assert cart.queue.counts()[State.DELIVERED] == 2 * lives + 2
    baseline = tmp_path / "baseline.json"
    assert run(["drift", "--recent", str(setup.data), "--make-baseline", str(baseline)]) == 0
    assert json.loads(baseline.read_text())["studies"] == 4
    recent = ("--recent", str(setup.data), "--json")
    assert run(["drift", "--baseline", str(baseline), *recent]) == 0
    assert json.loads(capsys.readouterr().out.split("\n", 1)[1])["concern"] == "too_few"
