"""OpenCV within the threads that a caller gave us."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0
_threads_outside = 0


@contextmanager
def in_calling_thread() -> Iterator[None]:
    """OpenCV computes in the calling thread alone while any such block runs, in any thread.

    Its own pool has a thread for each core of the machine, whatever `threads` a caller asked for,
    and waits by spinning: with both views side by side it took half as much processor time again
    and made them slower. OpenCV knows one setting for the whole process; an integrator's calls at
    the same moment have one thread too, and after the last block what they had before.
    """
    import cv2

    global _inside, _threads_outside
    with _lock:
        if _inside == 0:
            _threads_outside = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                cv2.setNumThreads(_threads_outside)
