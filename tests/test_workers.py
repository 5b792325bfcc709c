"""The threads of a predictor: order, errors, bounds, and an end to all of them."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from hipnet_edge import Reason, UsageError
from hipnet_edge.workers import Workers


@pytest.fixture
def workers():
    workers = Workers(2)
    yield workers
    workers.close()


def test_two_items_are_worked_on_at_once_and_come_in_order(workers):
    meet = threading.Barrier(2, timeout=10)  # breaks unless both are under way together

    def work(item: str) -> tuple[str, bool]:
        meet.wait()
        return item, threading.current_thread() is threading.main_thread()

    assert workers.side_by_side(work, ["ap", "lateral"]) == [("ap", True), ("lateral", False)]


def test_the_first_items_error_is_raised_and_nothing_is_left_at_work(workers):
    ended = threading.Event()

    def work(item: str) -> None:
        if item == "lateral":
            time.sleep(0.05)
            ended.set()
        raise ValueError(item)

    with pytest.raises(ValueError, match="ap"):
        workers.side_by_side(work, ["ap", "lateral"])
    assert ended.is_set()
    with pytest.raises(ValueError, match="lateral"):
        workers.side_by_side(lambda item: 1 if item == "ap" else work(item), ["ap", "lateral"])


def test_a_caller_waits_for_nobody_when_every_thread_is_busy(workers):
    release = threading.Event()
    busy = [workers.ahead(lambda _: release.wait(10), [0] * 9, 8) for _ in range(2)]
    holders = [threading.Thread(target=next, args=(iterator,)) for iterator in busy]
    for holder in holders:
        holder.start()
    try:
        assert workers.side_by_side(lambda item: item, [1, 2]) == [1, 2]
    finally:
        release.set()
        for holder in holders:
            holder.join()


@pytest.mark.parametrize("look_ahead", [0, 1, 3])
def test_an_endless_iterator_is_never_read_past_the_bound(workers, look_ahead):
    taken = []

    def items():
        for item in itertools.count():
            taken.append(item)
            yield item

    results = workers.ahead(lambda item: -item, items(), look_ahead)
    for index in range(20):
        assert next(results) == -index
        assert len(taken) <= index + 1 + look_ahead
    results.close()


@pytest.mark.parametrize("look_ahead", [0, 2])
def test_what_the_iterator_raises_comes_after_the_results_before_it(workers, look_ahead):
    def items():
        yield from (1, 2)
        raise OSError("unplugged")

    results = workers.ahead(lambda item: item, items(), look_ahead)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(OSError, match="unplugged"):
        next(results)


def test_an_early_end_drops_what_has_not_begun(workers):
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.02)
        return item

    results = workers.ahead(work, itertools.count(), 8)
    assert next(results) == 0
    results.close()
    workers.close()  # waits for what has begun
    assert len(begun) <= 4
    assert not [thread for thread in threading.enumerate() if "hipnet-edge" in thread.name]


def test_closing_under_way_ends_the_results_and_lets_callers_finish(workers):
    results = workers.ahead(lambda item: time.sleep(0.02) or item, range(9), 8)
    assert next(results) == 0
    workers.close()
    with pytest.raises(UsageError) as caught:
        list(results)
    assert caught.value.code is Reason.CLOSED
    assert workers.side_by_side(lambda item: item, [1, 2]) == [1, 2]


def test_there_are_never_more_threads_than_the_limit(workers):
    before = threading.active_count()
    seen = [
        threading.active_count() - before
        for _ in workers.ahead(lambda _: time.sleep(0.001), range(50), 20)
    ]
    assert max(seen) <= workers.limit
