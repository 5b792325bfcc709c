"""Timing things that are compared: in turns, in an order drawn anew for each round."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.latency_noise import Watch
from benchmarks.latency_statistics import Times

REST_S = 0.02
"""Before each contestant: pools of threads spin for some milliseconds after their last call."""

FEWEST_ROUNDS = 2
"""What a comparison that has run out of time still makes."""


@dataclass(frozen=True)
class Contestant:
    """Something whose calls are timed, by a name of its own."""

    name: str
    call: Callable[[], object]


def interleaved(
    contestants: Sequence[Contestant],
    rounds: int,
    *,
    block: int = 1,
    seed: int = 0,
    watch: Watch | None = None,
    warm_up: int = 3,
    untimed: int = 1,
    longest_s: float | None = None,
) -> dict[str, Times]:
    """Time every contestant in every round.

    A turn is a rest, `untimed` calls (caches hold what the one before left) and `block` timed
    ones. Garbage is collected as Python does by default.

    Args:
        contestants: with different names.
        rounds: how many turns each has.
        block: timed calls in a turn.
        seed: decides the orders.
        watch: looks at the machine once a round.
        warm_up: untimed calls of each before the first round.
        untimed: untimed calls at the beginning of each turn.
        longest_s: after so many seconds no round begins, but two are always made.

    Returns:
        Milliseconds, float64 [rounds made, block], by name.
    """
    times = {one.name: np.empty((rounds, block)) for one in contestants}
    if len(times) != len(contestants):
        raise ValueError("two contestants have the same name")
    started, made = time.perf_counter(), 0
    for one in contestants:
        for _ in range(warm_up):
            one.call()
    for index, order in enumerate(orders(len(contestants), rounds, seed)):
        spent = time.perf_counter() - started
        if index >= FEWEST_ROUNDS and longest_s is not None and spent > longest_s:
            break
        made = index + 1
        if watch is not None:
            time.sleep(REST_S)
            watch.look()
        for chosen in order:
            one = contestants[chosen]
            time.sleep(REST_S)
            for _ in range(untimed):
                one.call()
            for repeat in range(block):
                times[one.name][index, repeat] = timed_ms(one.call)
    return {name: taken[:made] for name, taken in times.items()}


def orders(contestants: int, rounds: int, seed: int) -> list[list[int]]:
    """For each round an order of all contestants, the same for the same seed."""
    draw = random.Random(seed)
    return [draw.sample(range(contestants), contestants) for _ in range(rounds)]


def timed_ms(call: Callable[[], object]) -> float:
    """Milliseconds of one call, on the wall's clock."""
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


def timer() -> dict[str, Any]:
    """What the clock itself costs: its resolution and the time of timing nothing, nanoseconds."""
    empty = [timed_ms(_nothing) for _ in range(2001)]
    return {
        "clock": "time.perf_counter",
        "resolution_ns": round(1e9 * time.get_clock_info("perf_counter").resolution, 1),
        "overhead_ns": round(1e6 * float(np.median(empty)), 1),
    }


def _nothing() -> None:
    pass
