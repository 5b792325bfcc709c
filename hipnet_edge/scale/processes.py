"""Items given to processes of this machine, any of which may die at any time.

A process holds one item at a time, so that it is known over which item it died. The item is given
to another process, at the end of the queue; one over which several died is given up.
"""

from __future__ import annotations

import logging
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from hipnet_edge.scale.work import MOST_DEATHS, Ended, Make, R, T, workers_die

logger = logging.getLogger(__name__)

_CONTEXT = get_context("spawn")  # engines and OpenCV's threads do not survive a fork


def in_processes(
    make: Make[T, R], items: Sequence[T], workers: int
) -> Iterator[tuple[int, R | None]]:
    """The answer to every item, as they come.

    Args:
        make: see `Make`.
        items: what to answer.
        workers: how many processes; each does one item at a time.

    Returns:
        The place of each item and its answer, once for every item; None where `MOST_DEATHS`
        processes died over it.

    Raises:
        HipNetError: a worker cannot go on at all. What was given before is valid.
    """
    pool = _Pool(make, items)
    try:
        pool.start(min(workers, len(items)))
        while pool.outstanding:
            yield from pool.events()
    finally:
        pool.stop()


class _Process:
    """One process, and the place of the item that it holds."""

    def __init__(self, make: Make[Any, Any]) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, make), daemon=True)
        self._process.start()
        theirs.close()  # so that its death ends the connection
        self.warm = False
        self.place: int | None = None

    def give(self, place: int, item: object) -> None:
        self.place = place
        with suppress(OSError):  # it has just died: the connection will say so
            self.connection.send(item)

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


class _Pool:
    """The processes and what is still to be done."""

    def __init__(self, make: Make[Any, Any], items: Sequence[Any]) -> None:
        self._make, self._items = make, items
        self._waiting = deque(range(len(items)))
        self._deaths: Counter[int] = Counter()
        self._stillborn = 0
        self._processes: dict[Connection, _Process] = {}
        self.outstanding = len(items)

    def start(self, workers: int) -> None:
        for _ in range(workers):
            process = _Process(self._make)
            self._processes[process.connection] = process

    def stop(self) -> None:
        for process in self._processes.values():
            process.stop()

    def events(self) -> Iterator[tuple[int, Any]]:
        """Wait until something happens; gives what was answered or given up."""
        for connection in wait(list(self._processes)):
            process = self._processes[connection]  # type: ignore[index]
            try:
                said = process.connection.recv()
            except (EOFError, OSError):
                yield from self._died(process)
                continue
            if isinstance(said, Ended):
                raise said.error()
            if process.place is not None:
                place, process.place = process.place, None
                self.outstanding -= 1
                yield place, said
            process.warm, self._stillborn = True, 0
        for process in self._processes.values():
            if self._waiting and process.warm and process.place is None:
                place = self._waiting.popleft()
                process.give(place, self._items[place])

    def _died(self, process: _Process) -> Iterator[tuple[int, Any]]:
        del self._processes[process.connection]
        process.stop()
        place = process.place
        if place is not None:
            self._deaths[place] += 1
            logger.warning("a worker died over item %d, time %d", place, self._deaths[place])
            if self._deaths[place] < MOST_DEATHS:
                self._waiting.append(place)
            else:
                self.outstanding -= 1
                yield place, None
        elif not process.warm:
            self._stillborn += 1
            if self._stillborn >= MOST_DEATHS:
                raise workers_die()
        if len(self._processes) < self.outstanding:
            self.start(1)


def _serve(connection: Connection, make: Make[Any, Any]) -> None:
    """A process's life: answer until the other end is closed or gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that asks
    try:
        answer = make()
        connection.send(None)  # warm
        while True:
            connection.send(answer(connection.recv()))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        connection.send(Ended.by(error))
