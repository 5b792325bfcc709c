"""Results on their way to one destination: sent, sent again, given up.

| The destination | Outcome | What follows |
|---|---|---|
| has it now, or had it before | `DELIVERED` | done |
| cannot be reached, or has no room | `LATER` | everything waits, until it is too old |
| does not want this object | `REJECTED` | this object is tried a few times more, then given up |

A courier knows how one kind of destination is spoken to; what it sends are the kept bytes.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from hipnet_edge.cart.store import StoreDamaged

if TYPE_CHECKING:
    from pathlib import Path

    from hipnet_edge.cart.metrics import Metrics
    from hipnet_edge.cart.queue import Queue
    from hipnet_edge.cart.records import Delivery, ResultObject
    from hipnet_edge.cart.settings import Deliver
    from hipnet_edge.cart.store import ObjectStore

logger = logging.getLogger(__name__)

MOST_REJECTIONS = 5
"""How often an object is offered to a destination that does not want it."""

_BATCH = 16
_LOOK_AGAIN_S = 1.0


class Outcome(str, Enum):
    """What became of an object that was offered."""

    DELIVERED = "delivered"
    LATER = "later"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Answer:
    """What a destination said.

    Attributes:
        outcome: what to do next.
        reason: a code: "status_a700", "unreachable".
    """

    outcome: Outcome
    reason: str = ""


class Courier(Protocol):
    """Speaks to one destination; used by one thread, but for `interrupt`."""

    def prepare(self, objects: Sequence[ResultObject]) -> Answer:
        """Get ready for these; anything but DELIVERED says why nothing can be sent now."""

    def send(self, item: ResultObject, path: Path) -> Answer:
        """Offer one object, whose file lies there."""

    def release(self) -> None:
        """Let go of what `prepare` holds; nothing was sent for a while."""

    def interrupt(self) -> None:
        """End what is under way, from another thread: the cart stops."""


class Deliverer:
    """Brings what is due to one destination.

    Args:
        name: of the destination.
        courier: speaks to it.
        queue: says what is due and is told what became of it.
        store: holds the objects.
        timing: `[deliver]` of the configuration.
        metrics: counts.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        name: str,
        courier: Courier,
        queue: Queue,
        store: ObjectStore,
        timing: Deliver,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name, self.courier = name, courier
        self._queue, self._store = queue, store
        self._timing, self._metrics, self._clock = timing, metrics, clock
        self._failures = 0
        self._not_before = 0.0
        self._last_sent = 0.0
        self._idle = True
        self._stopping = False

    def stop(self) -> None:
        """From another thread: send nothing more after the object that is on its way."""
        self._stopping = True

    def step(self) -> float:
        """Send what is due; returns after how many seconds to look again."""
        now = self._clock()
        if now < self._not_before:
            return self._not_before - now
        due = self._queue.due(self.name, now, _BATCH)
        if not due:
            if not self._idle and now - self._last_sent >= self._timing.idle_release_s:
                self.courier.release()
                self._idle = True
            return _LOOK_AGAIN_S
        self._idle = False
        ready = self.courier.prepare([delivery.object for delivery in due])
        if ready.outcome is not Outcome.DELIVERED:
            return self._wait(due, ready.reason)
        for place, delivery in enumerate(due):
            if self._stopping:
                break
            # What was kept is what is sent: a damaged file is noticed here.
            try:
                self._store.read(delivery.object.file)
            except StoreDamaged as error:
                self._give_up(delivery, "result_damaged", error)
                continue
            started = time.perf_counter()
            answer = self.courier.send(delivery.object, self._store.path(delivery.object.file))
            self._metrics.stage("deliver", time.perf_counter() - started)
            if answer.outcome is Outcome.LATER:
                return self._wait(due[place:], answer.reason)
            self._failures = 0
            self._last_sent = self._clock()
            self._settle(delivery, answer)
        return 0.0

    def _settle(self, delivery: Delivery, answer: Answer) -> None:
        """The destination took or rejected one object."""
        facts = {"destination": self.name, "case": delivery.case_id}
        if answer.outcome is Outcome.DELIVERED:
            self._metrics.delivery(self.name, "delivered")
            self._queue.sent(delivery)
            logger.info("delivered", extra={**facts, "kind": delivery.object.kind})
            return
        attempt = delivery.attempts + 1
        given_up = attempt >= MOST_REJECTIONS
        pause = self._pause(attempt)
        self._metrics.delivery(self.name, "failed" if given_up else "retry")
        self._queue.delivery_postponed(
            delivery, answer.reason, None if given_up else self._clock() + pause
        )
        logger.warning(
            "given up" if given_up else "not taken",
            extra={**facts, "reason": answer.reason, "attempt": attempt},
        )

    def _give_up(self, delivery: Delivery, reason: str, error: Exception) -> None:
        self._metrics.delivery(self.name, "failed")
        self._queue.delivery_postponed(delivery, reason, None)
        facts = {"destination": self.name, "case": delivery.case_id, "reason": reason}
        logger.error("given up", extra=facts, exc_info=error)

    def _wait(self, due: Sequence[Delivery], reason: str) -> float:
        """The destination can take nothing now: what is too old is given up, the rest waits."""
        self._failures += 1
        pause = self._pause(self._failures)
        now = self._clock()
        self._not_before = now + pause
        for delivery in due:
            since = self._queue.case(delivery.case_id).updated_at
            given_up = now - since > self._timing.give_up_after_h * 3600
            if given_up or delivery is due[0]:
                self._metrics.delivery(self.name, "failed" if given_up else "retry")
                self._queue.delivery_postponed(delivery, reason, None if given_up else now + pause)
        logger.warning(
            "destination cannot take anything",
            extra={
                "destination": self.name,
                "reason": reason,
                "attempt": self._failures,
                "seconds": round(pause, 1),
            },
        )
        return pause

    def _pause(self, failures: int) -> float:
        """Twice as long each time, up to a limit, and never in step with other senders."""
        longest: float = min(
            self._timing.first_retry_s * 2 ** min(failures - 1, 30), self._timing.max_retry_s
        )
        return longest * random.uniform(0.5, 1.0)
