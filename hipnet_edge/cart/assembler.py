"""Carries out in the queue what `assemble.settlement_for` decides."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from hipnet_edge.cart.assemble import settlement_for

if TYPE_CHECKING:
    from hipnet_edge.cart.queue import Queue
    from hipnet_edge.cart.records import WaitingStudy
    from hipnet_edge.cart.settings import Assemble

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.5


class Assembler:
    """Looks at every waiting study.

    Args:
        queue: holds them.
        policy: how long to wait.
        assembled: called when there is a case to read.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        queue: Queue,
        policy: Assemble,
        assembled: Callable[[], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue, self._policy = queue, policy
        self._assembled, self._clock = assembled, clock

    def step(self) -> float:
        """Settle what can be; returns after how many seconds to look again."""
        now = self._clock()
        waiting = self._queue.waiting_studies()
        of_uid: dict[str, list[WaitingStudy]] = defaultdict(list)
        for study in waiting:
            of_uid[study.study_instance_uid].append(study)
        for study in waiting:
            beside = [other for other in of_uid[study.study_instance_uid] if other is not study]
            try:
                self._settle(study, now, beside)
            except Exception:  # one study that cannot be judged must not keep the others
                logger.exception("study not assembled", extra={"patient": study.patient_key})
        return min([_LOOK_AGAIN_S, *(self._quiet_in(study, now) for study in waiting)])

    def _quiet_in(self, study: WaitingStudy, now: float) -> float:
        """In how many seconds a study that is still coming in will have settled."""
        left = study.last_received_at + self._policy.settle_s - now
        return left if left > 0 else _LOOK_AGAIN_S

    def _settle(self, study: WaitingStudy, now: float, beside: list[WaitingStudy]) -> None:
        settlement = settlement_for(study, now, self._policy, beside=beside)
        if settlement is None or not self._queue.settle(study, settlement):
            return
        if beside:
            self._queue.note(
                "study_of_several_patients",
                patient=study.patient_key,
                others=sorted(other.patient_key for other in beside),
            )
        for refusal in settlement.refused:
            logger.info("not a pair", extra={"reason": refusal.reason})
        if settlement.cases:
            logger.info("assembled", extra={"count": len(settlement.cases)})
            self._assembled()
