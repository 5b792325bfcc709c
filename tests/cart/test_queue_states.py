"""Steps in any order, the process gone between any two of them: what was acknowledged is kept."""

from __future__ import annotations

from contextlib import ExitStack, suppress

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from keep_made import KINDS, Kept, pair
from power_cut import memory_folder

from hipnet_edge.cart.queue import Admitted, Case, NewRefusal, Settlement, State
from hipnet_edge.cart.schema import QueueUnusable

DESTINATIONS = {"pacs": KINDS, "other": KINDS[:1]}


class Steps(RuleBasedStateMachine):
    """Holds beside the queue what it has acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self._exit = ExitStack()
        self._data = self._exit.enter_context(memory_folder())
        self._now = 1_000_000.0
        self.kept = Kept(self._data, lambda: self._now)
        self.claimed: Case | None = None
        self.images: dict[str, bytes] = {}
        self.states: dict[int, State] = {}
        self.deliveries: dict[tuple[int, str, str], str] = {}
        self.steps = 0

    def teardown(self) -> None:
        assert sum(self.kept.told().values()) >= self.steps
        self.kept.queue.close()
        self._exit.close()

    @initialize(predicted=st.booleans())
    def arrive(self, predicted: bool) -> None:
        """A pair to begin with, so that most of the steps find something to do."""
        for view in ("ap", "lateral"):
            self.admit(0, view, False)
        self.settle(False)
        if predicted:
            self.claim()
            self.read("predicted")

    @rule(study=st.integers(0, 1), view=st.sampled_from(["ap", "lateral"]), content=st.booleans())
    def admit(self, study: int, view: str, content: bool) -> None:
        uid, extra = f"{study}.{view}", b"x" * content
        admitted = self.kept.queue.admit(self.kept.image(uid, view, str(study), extra))
        self.steps += 1
        whole = uid.encode() + extra
        if uid not in self.images:
            assert admitted is Admitted.NEW
        elif self.images[uid] == whole:
            assert admitted is Admitted.DUPLICATE
        elif any(case.ap == uid or case.lateral == uid for case in self.assembled()):
            assert admitted is Admitted.CONFLICT
            return
        else:
            assert admitted is Admitted.REPLACED
            self.take_in_cases()
        self.images[uid] = whole

    def assembled(self) -> list[Case]:
        cases = self.kept.queue.cases()
        return [case for case in cases if case.ap is not None and case.lateral is not None]

    @rule(lone=st.booleans())
    def settle(self, lone: bool) -> None:
        for study in self.kept.queue.waiting_studies():
            settlement = pair(study)
            if lone and not settlement.cases:
                (image,) = study.instances
                ap, lateral = (
                    image.sop_instance_uid if image.view == view else None
                    for view in ("ap", "lateral")
                )
                refusal = NewRefusal(ap, lateral, "left", "missing_view", "One view is missing.")
                settlement = Settlement(refused=(refusal,))
            assert self.kept.queue.settle(study, settlement)
            self.steps += len(settlement.cases)
        self.take_in_cases()

    def take_in_cases(self) -> None:
        """New cases, and refusals that were undone; all others must stay as they are."""
        now = {case.id: case for case in self.kept.queue.cases()}
        for gone in self.states.keys() - now.keys():
            assert self.states.pop(gone) is State.REFUSED
        for new in now.keys() - self.states.keys():
            assert now[new].state in (State.ASSEMBLED, State.REFUSED)
            self.states[new] = now[new].state

    @precondition(lambda self: self.claimed is None)
    @rule()
    def claim(self) -> None:
        self.claimed = self.kept.queue.claim(self._now)
        if self.claimed is not None:
            self.steps += 1
            assert self.states[self.claimed.id] is State.ASSEMBLED
            assert self.kept.queue.claim(self._now) != self.claimed

    @precondition(lambda self: self.claimed is not None)
    @rule(how=st.sampled_from(["predicted", "refused", "postponed", "failed"]))
    def read(self, how: str) -> None:
        assert self.claimed is not None
        case_id, self.claimed = self.claimed.id, None
        queue = self.kept.queue
        self.steps += 1
        if how == "predicted":
            name, objects = self.kept.results(case_id)
            queue.predicted(case_id, name, objects, DESTINATIONS)
            self.states[case_id] = State.PREDICTED
            for destination, kinds in DESTINATIONS.items():
                for item in objects:
                    if item.kind in kinds:
                        self.deliveries[case_id, destination, item.sop_instance_uid] = "waiting"
        elif how == "refused":
            queue.refuse(case_id, "empty_image", "The image is empty.")
            self.states[case_id] = State.REFUSED
        else:
            when = self._now + 10 if how == "postponed" else None
            queue.postpone(case_id, "engine_failed", "The engine failed.", when)
            self.states[case_id] = State.FAILED if when is None else State.ASSEMBLED

    @rule(destination=st.sampled_from(sorted(DESTINATIONS)), how=st.sampled_from("spf"))
    def deliver(self, destination: str, how: str) -> None:
        for delivery in self.kept.queue.due(destination, self._now, 5):
            key = (delivery.case_id, destination, delivery.object.sop_instance_uid)
            assert self.deliveries[key] == "waiting"
            self.steps += 1
            if how == "s":
                self.kept.queue.sent(delivery)
                self.deliveries[key] = "sent"
            else:
                when = self._now + 10 if how == "p" else None
                self.kept.queue.delivery_postponed(delivery, "no_answer", when)
                self.deliveries[key] = "waiting" if how == "p" else "failed"
            of_case = {s for (c, *_), s in self.deliveries.items() if c == delivery.case_id}
            if "waiting" not in of_case:
                self.states[delivery.case_id] = (
                    State.FAILED if "failed" in of_case else State.DELIVERED
                )

    @rule()
    def retry(self) -> None:
        for case in self.kept.queue.cases(state=State.FAILED, limit=1):
            self.states[case.id] = self.kept.queue.retry(case.id)
            self.steps += 1
            for key, state in self.deliveries.items():
                if key[0] == case.id and state == "failed":
                    self.deliveries[key] = "waiting"

    @rule()
    def later(self) -> None:
        self._now += 11

    @rule()
    def flush(self) -> None:
        self.kept.trail.flush()

    @rule(within=st.booleans())
    def kill(self, within: bool) -> None:
        """The process ends, also within a transaction; another begins."""
        if within:
            with suppress(QueueUnusable), self.kept.queue.database.transaction() as connection:
                connection.execute("UPDATE cases SET state = 'delivered'")
                connection.execute("DELETE FROM audit")
                connection.close()
        else:
            self.kept.queue.close()
        self.kept = Kept(self._data, lambda: self._now)
        self.claimed = None

    @invariant()
    def nothing_acknowledged_is_missing(self) -> None:
        for uid, content in self.images.items():
            instance = self.kept.queue.instance(uid)
            assert instance is not None
            assert self.kept.store.read(instance.file) == content

    @invariant()
    def every_case_is_where_it_was_left(self) -> None:
        queue = self.kept.queue
        assert {case.id: case.state for case in queue.cases()} == self.states
        in_states = [c.id for state in State for c in queue.cases(state=state)]
        assert sorted(in_states) == sorted(self.states)

    @invariant()
    def no_delivery_is_lost(self) -> None:
        there = {
            (d.case_id, d.destination, d.object.sop_instance_uid): d.state
            for case_id in self.states
            for d in self.kept.queue.deliveries(case_id)
        }
        assert there == self.deliveries


TestSteps = Steps.TestCase
TestSteps.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
