"""The few threads of one predictor: views side by side, and studies ahead of their turn.

What runs in these threads never waits for another of them, so they cannot wait for each other.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from hipnet_edge.errors import Reason, UsageError

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """At most so many threads, started when they are first needed and kept until `close`.

    Args:
        limit: how many.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False

    def side_by_side(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """What `map` gives; the first item is the caller's own, threads help with the others.

        Of several errors the first item's is raised, as if all had been done in order; and nothing
        is still at work when this returns.
        """
        first, *others = items
        offered = [self._begin(function, item) for item in others]
        try:
            return [function(first)] + [
                function(item) if future.cancel() else future.result()
                for item, future in zip(others, offered, strict=True)
            ]
        finally:
            wait([future for future in offered if not future.cancel()])

    def ahead(self, function: Callable[[T], R], items: Iterable[T], look_ahead: int) -> Iterator[R]:
        """What `map` gives, in order, each as soon as it is asked for and ready.

        Args:
            function: what a thread does with an item; what it raises ends the results there.
            items: taken in the caller's thread, and never more than `look_ahead` beyond the one
                whose result is asked for. What this iterator raises is raised in its place.
            look_ahead: 0 makes the caller's thread do all.

        Raises:
            UsageError: CLOSED, if `close` was called while results were outstanding.
        """
        if look_ahead == 0:
            yield from map(function, items)
            return
        source, ended = iter(items), False
        pending: deque[Future[R]] = deque()
        try:
            while True:
                while not ended and len(pending) <= look_ahead:
                    try:
                        pending.append(self._begin(function, next(source)))
                    except StopIteration:  # noqa: PERF203 - each item may be the last
                        ended = True
                    except Exception as error:  # raised when its place in the order comes
                        pending.append(_failed(error))
                        ended = True
                if not pending:
                    return
                yield _result(pending.popleft())
        finally:
            # What a thread has begun it ends by itself; waiting for it here could be for ever, as
            # it may be that very thread that clears an abandoned iterator away.
            for future in pending:
                future.cancel()

    def close(self) -> None:
        """Drop what has not begun, wait for what has, end the threads. May be called again."""
        with self._lock:
            self._closed, pool, self._pool = True, self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, function: Callable[[T], R], item: T) -> Future[R]:
        """The item offered to a thread; cancelled already where the threads are no more."""
        with self._lock:
            if self._closed:
                return _cancelled()
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.limit, "hipnet-edge")
            return self._pool.submit(function, item)


def _cancelled() -> Future[Any]:
    future: Future[Any] = Future()
    future.cancel()
    return future


def _failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _result(future: Future[R]) -> R:
    try:
        return future.result()
    except CancelledError as error:
        raise UsageError("The predictor was closed.", Reason.CLOSED) from error
