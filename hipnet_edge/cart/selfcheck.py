"""The daily self-test of a running cart: known studies must still get their stored answers.

It runs on the warm predictor, in a thread of its own and between studies: after each loading of the
predictor, and then every `[selftest] every_h`. After a failure the predictor is loaded anew and
tested once more. If that fails too, no study is read until a later test passes: they are received,
kept, and wait. A wrong answer in the PACS would be worse than a late one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hipnet_edge.cart.records import State
from hipnet_edge.errors import BundleUnusable, HipNetError, Reason

if TYPE_CHECKING:
    from hipnet_edge.cart.engine import Engine
    from hipnet_edge.cart.metrics import Metrics
    from hipnet_edge.cart.queue import Queue
    from hipnet_edge.predictor import Predictor
    from hipnet_edge.selftest import SelftestReport

logger = logging.getLogger(__name__)

PASSED, FAILED, NONE = "passed", "failed", "none"

_LOOK_EVERY_S = 1.0
_WAIT_FOR_A_PAUSE_S = 600.0
"""After so long without a pause between studies it runs beside them."""
_AFTER_FAILURE_S = 600.0


class SelfCheck:
    """Tests the engine of a cart now and then.

    Args:
        engine: whose predictor is tested; it is told not to answer while the test fails.
        queue: says whether studies wait, and gets the audit records.
        metrics: is told the outcome.
        every_h: hours between two tests.
        clock: seconds, for the pauses.
    """

    def __init__(
        self,
        engine: Engine,
        queue: Queue,
        metrics: Metrics,
        every_h: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._queue, self._metrics = engine, queue, metrics
        self._every_s, self._clock = every_h * 3600, clock
        self._tested: Predictor | None = None
        self._due_at = clock()

    def step(self) -> float:
        """Run the test if it is due; returns after how many seconds to look again."""
        if not self._engine.ready:
            return _LOOK_EVERY_S
        predictor, now = self._engine.predictor, self._clock()
        if predictor is self._tested:
            late = now - self._due_at
            if late < 0 or (late < _WAIT_FOR_A_PAUSE_S and self._studies_wait()):
                return _LOOK_EVERY_S
        outcome = self._test(predictor)
        if outcome is None:
            return _LOOK_EVERY_S
        self._tested = predictor
        self._due_at = now + (self._every_s if self._engine.trusted else _AFTER_FAILURE_S)
        return _LOOK_EVERY_S

    def _studies_wait(self) -> bool:
        return self._queue.counts()[State.ASSEMBLED] > 0

    def _test(self, predictor: Predictor) -> str | None:
        """Test a predictor and act on it; None if it was exchanged meanwhile."""
        from hipnet_edge.selftest import selftest

        started = self._clock()
        report, reason = None, None
        try:
            report = selftest(predictor)
            outcome = PASSED if report.passed else FAILED
        except BundleUnusable:
            outcome = NONE
        except HipNetError as error:
            # A broken engine is thrown away here or by a worker, and the next one is tested.
            works = self._engine.check()
            if error.code is Reason.CLOSED or not works:
                return None
            outcome, reason = FAILED, error.code.value
        if outcome == FAILED:
            self._distrust()
        elif outcome == PASSED:
            self._engine.trusted = True
        self._tell(outcome, report, reason, self._clock() - started)
        return outcome

    def _distrust(self) -> None:
        """No study is read any more; the first time another predictor is loaded, and tested."""
        if self._engine.trusted:
            self._engine.trusted = False
            self._engine.close()

    def _tell(
        self, outcome: str, report: SelftestReport | None, reason: str | None, seconds: float
    ) -> None:
        checks = () if report is None else report.checks
        failed = [check.name for check in checks if check.outcome == FAILED]
        if outcome == NONE:
            logger.warning("the bundle brings no self-test", extra={"outcome": outcome})
        else:
            self._metrics.selftest(outcome == PASSED)
            level = logging.INFO if outcome == PASSED else logging.ERROR
            facts = {"outcome": outcome, "count": len(failed), "seconds": round(seconds, 2)}
            logger.log(level, "self-test", extra=facts | {"reason": reason})
        self._queue.note("selftest", outcome=outcome, failed=failed, reason=reason)
