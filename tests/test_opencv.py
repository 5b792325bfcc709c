"""OpenCV keeps to the caller's threads while a study is read, and not longer."""

from __future__ import annotations

import threading

import cv2
import pytest
from small_bundle import write_bundle
from small_study import pair

from hipnet_edge import Predictor
from hipnet_edge.opencv import in_calling_thread


@pytest.fixture
def three_threads():
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    yield
    cv2.setNumThreads(before)


def test_inside_it_has_one_thread_and_outside_what_it_had(three_threads):
    with in_calling_thread():
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == 3


def test_the_last_of_several_blocks_gives_back_what_was_there_before_the_first(three_threads):
    entered, leave = threading.Barrier(3), threading.Event()

    def hold():
        with in_calling_thread():
            entered.wait(10)
            leave.wait(10)

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
    entered.wait(10)
    with in_calling_thread():
        pass
    assert cv2.getNumThreads() == 1  # two are still inside
    leave.set()
    for thread in threads:
        thread.join(10)
    assert cv2.getNumThreads() == 3


def test_an_error_gives_it_back_too(three_threads):
    with pytest.raises(ValueError, match="inside"), in_calling_thread():
        raise ValueError("inside")
    assert cv2.getNumThreads() == 3


def test_a_prediction_leaves_the_setting_as_it_was(three_threads, tmp_path):
    with Predictor(write_bundle(tmp_path), threads=1) as predictor:
        predictor.predict(*pair(1))
    assert cv2.getNumThreads() == 3
