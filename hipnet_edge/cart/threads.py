"""A thread that repeats one step until it is stopped, and never dies of one that fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0


class Repeating:
    """Runs a step again and again in a thread of its own.

    Args:
        name: of the thread.
        step: does what there is to do and returns how many seconds may pass before it is asked
            again; `wake` ends the pause. What it raises is logged by its class, and it is asked
            again after a pause that grows.
        finish: run in the same thread at the end.
        failed: told the name when a step fails.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float],
        finish: Callable[[], None] | None = None,
        *,
        failed: Callable[[str], None],
    ) -> None:
        self.name = name
        self._step, self._finish, self._tell = step, finish, failed
        self._since: float | None = None
        self._awake, self._stopping = threading.Event(), threading.Event()
        self._failed = 0
        self._thread = threading.Thread(target=self._run, name=f"cart-{name}", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._thread.is_alive()

    @property
    def busy_s(self) -> float:
        """For how many seconds the step under way has been running; 0 in a pause."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def wake(self) -> None:
        """There may be something to do: ask the step at once."""
        self._awake.set()

    def stop(self) -> None:
        """Take no further step; `join` waits for the one under way."""
        self._stopping.set()
        self._awake.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; returns whether it came in time."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, timeout_s))
        return not self.alive

    @property
    def stopping(self) -> bool:
        """Whether a step that takes long should give up."""
        return self._stopping.is_set()

    def _run(self) -> None:
        while not self.stopping:
            self._awake.clear()
            self._since = time.monotonic()
            try:
                pause = self._step()
                self._failed = 0
            except Exception:
                self._failed += 1
                pause = min(_FIRST_PAUSE_S * 2 ** (self._failed - 1), _LONGEST_PAUSE_S)
                self._since = None
                self._tell(self.name)
                logger.exception("a step failed", extra={"part": self.name, "seconds": pause})
                self._stopping.wait(pause)
                continue
            self._since = None
            self._awake.wait(pause)
        if self._finish is not None:
            self._finish()
