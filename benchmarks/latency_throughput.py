"""Studies a second: many callers of one predictor, batches, and the stream against its bound."""

from __future__ import annotations

import threading
import time
from itertools import islice, repeat
from pathlib import Path
from typing import Any

from hipnet_edge import Predictor
from hipnet_edge.backends.cores import available_cores, core_quota
from hipnet_edge.errors import InputRefused

FEWEST = 6
"""Studies of a stream at least, however long they take."""

Pair = tuple[Path, Path]


def callers(predictor: Predictor, pair: Pair, duration: float) -> list[dict[str, Any]]:
    """Throughput with 1 to twice as many callers as cores, each asking again at once."""
    found = []
    for count in sorted({1, 2, available_cores(), 2 * available_cores()}):
        done = [0] * count
        until = time.perf_counter() + duration

        def ask(caller: int, done: list[int] = done, until: float = until) -> None:
            while time.perf_counter() < until:
                predictor.predict(*pair)
                done[caller] += 1

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(count)]
        started, used = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found.append({"callers": count, **_rate(sum(done), started, used)})
    return found


def in_batches(
    predictor: Predictor, pair: Pair, batch: int, duration: float
) -> dict[str, Any] | None:
    """Throughput of `predict_batch`; None for a batch of one study."""
    if batch < 2:
        return None
    studies, done = [pair] * batch, 0
    started, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < duration:
        done += len(predictor.predict_batch(studies))
    return {"batch": batch, **_rate(done, started, used)}


def stream(predictor: Predictor, pair: Pair, duration: float) -> dict[str, Any]:
    """Throughput of `predict_stream` against what the cores could do at most.

    The bound is cores over processor seconds a study. Processor seconds are measured twice: within
    the stream itself, and of the same study asked for alone; the smaller counts, or a stream that
    burns time would set itself a lower bound.
    """
    alone = _seconds_alone(predictor, pair)
    answers = predictor.predict_stream(repeat(pair))
    # The look-ahead fills first, and what is in flight at the end is not waited for: with both
    # ends in it, a short measurement would say more of them than of the stream.
    for answer in islice(answers, 2 * available_cores()):
        _must_be_answered(answer)
    done, started, used = 0, time.perf_counter(), time.process_time()
    while done < FEWEST or time.perf_counter() - started < duration:
        _must_be_answered(next(answers))
        done += 1
    rate = _rate(done, started, used)
    del answers  # ends the stream
    quota = core_quota()
    cores = available_cores() if quota is None else min(float(available_cores()), quota)
    busy, least = rate["processor_seconds_a_study"], min(rate["processor_seconds_a_study"], alone)
    return {
        **rate,
        "processor_seconds_a_study_alone": round(alone, 6),
        "cores": cores,
        "bound_studies_per_second": round(cores / least, 4),
        "over_bound": round(rate["studies_per_second"] * least / cores, 4),
        "cores_kept_busy": round(rate["studies_per_second"] * busy / cores, 4),
    }


def _seconds_alone(predictor: Predictor, pair: Pair, least_s: float = 0.5) -> float:
    """Processor seconds of one study, asked for again and again by one caller."""
    predictor.predict(*pair)
    done, started, used = 0, time.perf_counter(), time.process_time()
    while done < 3 or time.perf_counter() - started < least_s:
        predictor.predict(*pair)
        done += 1
    return (time.process_time() - used) / done


def _must_be_answered(answer: object) -> None:
    if isinstance(answer, InputRefused):
        raise answer


def _rate(done: int, started: float, used: float) -> dict[str, Any]:
    """Studies a second since `started`, and what each cost since processor time `used`."""
    return {
        "studies": done,
        "studies_per_second": round(done / (time.perf_counter() - started), 4),
        "processor_seconds_a_study": round((time.process_time() - used) / done, 6),
    }
