"""Processes that die: every item has one answer, or is given up after a few tries."""

from __future__ import annotations

import multiprocessing

import mortal_workers
import pytest
from mortal_workers import GONE, POISON, POISON_ONCE, Mortal

from hipnet_edge.errors import EngineUnusable, MissingExtra, Reason
from hipnet_edge.scale.processes import in_processes
from hipnet_edge.scale.work import MOST_DEATHS


def test_an_item_that_kills_is_given_up_and_no_other_is_lost(tmp_path):
    items = ["a", POISON, "b", POISON_ONCE, "c", "d"]
    answers = list(in_processes(Mortal(tmp_path), items, 2))
    expected = [None if item == POISON else item.upper() for item in items]
    assert sorted(answers) == sorted(enumerate(expected))
    assert len(list(tmp_path.glob(f"{POISON} *"))) >= MOST_DEATHS
    deaths = [path.name for path in tmp_path.iterdir()]
    assert sum(name.startswith(POISON_ONCE) for name in deaths) == 1
    assert sum(not name.startswith(POISON_ONCE) for name in deaths) == MOST_DEATHS
    assert not multiprocessing.active_children()


def test_an_engine_that_is_gone_ends_the_run_with_what_it_said(tmp_path):
    answers = in_processes(Mortal(tmp_path), ["a", GONE, "b"], 1)
    assert next(answers) == (0, "A")
    with pytest.raises(EngineUnusable, match="The engine is gone"):
        list(answers)
    assert not multiprocessing.active_children()


def test_workers_that_all_die_at_once_are_an_error_and_no_endless_loop():
    with pytest.raises(EngineUnusable, match="before it answers anything"):
        list(in_processes(mortal_workers.stillborn, ["a", "b"], 1))


def test_what_a_worker_lacks_is_said_where_the_run_was_asked_for():
    with pytest.raises(EngineUnusable) as raised:
        list(in_processes(mortal_workers.without_extra, ["a"], 1))
    assert raised.value.code is Reason.MISSING_EXTRA
    assert raised.value.message == MissingExtra("cpu", "ONNX Runtime").message


def test_no_items_start_nothing():
    assert list(in_processes(mortal_workers.stillborn, [], 2)) == []
