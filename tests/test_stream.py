"""Studies in a row: in order, ahead of their turn, within bounds, each with its own answer."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from small_bundle import small_decision, small_manifest, small_model, write_bundle
from small_study import pair

from hipnet_edge import EngineUnusable, InputRefused, Predictor, Reason, UsageError, View
from hipnet_edge.backends import cores

SMALL = {"rows": 120, "columns": 100}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def predictor(folder):
    with Predictor(folder) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def studies() -> list[tuple[bytes, bytes]]:
    return [pair(seed, laterality="LR"[seed % 2], **SMALL) for seed in range(12)]


@pytest.fixture(scope="module")
def alone(predictor, studies):
    return [predictor.predict(*study) for study in studies]


@pytest.mark.parametrize("look_ahead", [None, 0, 1, 5])
def test_a_stream_answers_as_predict_does_in_order(predictor, studies, alone, look_ahead):
    answers = predictor.predict_stream(iter(studies), look_ahead=look_ahead)
    assert next(answers) == alone[0]
    assert list(answers) == alone[1:]
    for timed in (answer.timings_ms for answer in predictor.predict_batch(studies)):
        assert list(timed) == ["read", "decode", "preprocess", "inference", "total"]
        assert sum(timed.values()) <= 2 * timed["total"]


@pytest.mark.parametrize("look_ahead", [0, 2])
def test_a_refusal_stands_in_its_place_and_keeps_no_pixels(predictor, studies, alone, look_ahead):
    ap, lateral = studies[1]
    rows = [studies[0], (lateral, ap), (ap, b"junk"), (Path("/nowhere"), lateral), studies[2]]
    answers = list(predictor.predict_stream(rows, look_ahead=look_ahead))
    assert [answers[0], answers[4]] == [alone[0], alone[2]]
    refused = answers[1:4]
    assert all(isinstance(answer, InputRefused) for answer in refused)
    codes = [Reason.WRONG_VIEW, Reason.NOT_DICOM, Reason.UNREADABLE_FILE]
    assert [answer.code for answer in refused] == codes
    # Frames of a traceback hold what was read: a list of a thousand refusals must stay small.
    assert not [
        line
        for answer in refused
        for line in traceback.format_exception(answer)
        if line.lstrip().startswith("File ")
    ]


def test_an_endless_row_of_studies_is_read_no_further_than_asked(predictor, studies):
    taken = []

    def endless():
        for index in itertools.count():
            taken.append(index)
            yield studies[index % len(studies)]

    answers = predictor.predict_stream(endless(), look_ahead=2)
    assert taken == []
    for index in range(10):
        answer = next(answers)
        assert answer.inputs[View.AP].sop_instance_uid == f"1.2.3.{index}.1"
        assert len(taken) <= index + 3
    answers.close()
    seen = len(taken)
    time.sleep(0.05)
    assert len(taken) == seen


def test_an_iterator_that_fails_is_heard_after_the_studies_before_it(predictor, studies, alone):
    def failing():
        yield from studies[:2]
        raise ConnectionError("the archive went away")

    answers = predictor.predict_stream(failing())
    assert [next(answers), next(answers)] == alone[:2]
    with pytest.raises(ConnectionError, match="went away"):
        next(answers)
    assert list(answers) == []


def test_an_engine_that_fails_ends_the_stream(tmp_path, studies):
    def bundle(name: str, change: Callable[[onnx.ModelProto], None] | None = None) -> Path:
        model = small_model(novelty=True, change=change)
        manifest = small_manifest(model) | {"decision": small_decision()}
        return write_bundle(tmp_path / name, model, manifest)

    with Predictor(bundle("sound")) as predictor:
        novelty = [answer.novelty for answer in predictor.predict_batch(studies)]
    last, worst = sorted(novelty)[-2:]
    assert novelty.index(worst) > 2

    def fail_on_the_worst(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "strange"
        limit = np.array([(last + worst) / 2], np.float32)
        model.graph.initializer.append(numpy_helper.from_array(limit, "limit"))
        model.graph.node.append(helper.make_node("Sub", ["limit", "strange"], ["left"]))
        model.graph.node.append(helper.make_node("Sqrt", ["left"], ["novelty"]))

    with Predictor(bundle("failing", fail_on_the_worst)) as predictor:
        answers = predictor.predict_stream(studies)
        for index in range(novelty.index(worst)):
            assert next(answers).inputs[View.AP].sop_instance_uid == f"1.2.3.{index}.1"
        with pytest.raises(EngineUnusable) as caught:
            next(answers)
        assert caught.value.code is Reason.NON_FINITE_OUTPUT
        assert list(answers) == []


def test_one_thread_is_the_callers(folder, studies, alone):
    before = threading.active_count()
    with Predictor(folder, threads=1) as predictor:
        for index, answer in enumerate(predictor.predict_stream(studies)):
            assert answer.inputs == alone[index].inputs
            assert threading.active_count() == before


def test_closing_ends_streams_and_threads(folder, studies):
    before = threading.active_count()
    predictor = Predictor(folder)
    answers = predictor.predict_stream(itertools.cycle(studies))
    next(answers)
    predictor.close()
    with pytest.raises(UsageError) as caught:
        list(answers)
    assert caught.value.code is Reason.CLOSED
    assert threading.active_count() == before


def test_streams_and_callers_share_a_predictor_and_keep_their_answers(predictor, studies, alone):
    gate = threading.Barrier(12)

    def stream(offset: int) -> bool:
        gate.wait()
        rows = [(offset + step) % len(studies) for step in range(10)]
        answers = predictor.predict_stream(studies[row] for row in rows)
        return list(answers) == [alone[row] for row in rows]

    def call(offset: int) -> bool:
        gate.wait()
        rows = [(5 * offset + step) % len(studies) for step in range(6)]
        return [predictor.predict(*studies[row]) for row in rows] == [alone[row] for row in rows]

    with ThreadPoolExecutor(12) as pool:
        streams = [pool.submit(stream, offset) for offset in range(6)]
        callers = [pool.submit(call, offset) for offset in range(6)]
        assert all(future.result() for future in (*streams, *callers))
    named = [thread for thread in threading.enumerate() if thread.name.startswith("hipnet-edge")]
    assert len(named) <= cores.available_cores()


def resident_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.alone
def test_memory_stays_flat_over_a_long_stream(predictor, studies):
    answers = predictor.predict_stream(itertools.cycle(studies))
    for _ in range(40):
        next(answers)
    gc.collect()
    before = resident_kib()
    for _ in range(300):
        next(answers)
    gc.collect()
    assert resident_kib() - before < 4 * 1024
