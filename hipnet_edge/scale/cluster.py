"""Items given to the actors of a Ray cluster, any of which may die at any time.

Ray Data gives blocks of items to the actors, each with one warm worker function, and lets a block
that was lost be done again, which it must not do for ever: after `MOST_DEATHS` deaths a block is
left out. What has no answer then is asked once more, an item at a time, so that an item which kills
its worker takes no other with it; what has none after that is given up.
"""

from __future__ import annotations

import logging
import pickle
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hipnet_edge.errors import EngineUnusable, MissingExtra, Reason
from hipnet_edge.scale.work import MOST_DEATHS, Ended, Make, R, T, workers_die

logger = logging.getLogger(__name__)

_LISTENER_S = 10.0
_LARGEST_BLOCK = 64
_BLOCKS_A_WORKER = 16  # so that no worker is idle for long at the end


def on_cluster(
    make: Make[T, R], items: Sequence[T], workers: int | None, address: str
) -> Iterator[tuple[int, R | None]]:
    """The answer to every item, as they come: what `in_processes` gives, from a Ray cluster.

    Args:
        make: see `Make`; what it imports must be installed on every node.
        items: what to answer.
        workers: how many actors, each of which takes one core; all cores of the cluster if None.
        address: of the cluster, as `ray.init` takes it.

    Raises:
        HipNetError: there is no such cluster, or a worker cannot go on at all.
    """
    with _connected(address) as ray:
        actors = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        size = max(1, min(_LARGEST_BLOCK, len(items) // (actors * _BLOCKS_A_WORKER)))
        left: list[int] = list(range(len(items)))
        for block in (size, 1):
            answered = set()
            if left:
                for place, answer in _answers(make, items, left, block, min(actors, len(left))):
                    answered.add(place)
                    yield place, answer
            logger.debug("ray: %d of %d items answered", len(answered), len(left))
            if len(left) > MOST_DEATHS and not answered:
                raise workers_die()
            left = [place for place in left if place not in answered]
        for place in left:
            yield place, None


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster that runs already."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra("ray", "Predicting on a Ray cluster") from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        _require_listener(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, RuntimeError, ValueError) as error:
        raise EngineUnusable(
            f"No Ray cluster that can be used is at {address}.", Reason.ENGINE_UNAVAILABLE
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Refuse host:port where nobody listens: Ray itself would try for minutes.

    Raises:
        OSError: nobody listens there.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), _LISTENER_S).close()


def _answers(
    make: Make[Any, Any], items: Sequence[Any], places: Sequence[int], block: int, actors: int
) -> Iterator[tuple[int, Any]]:
    """One pass over some items, in blocks; blocks whose workers kept dying give nothing."""
    from ray.data import ActorPoolStrategy, DataContext, from_items

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    given = from_items(
        [{"place": place, "item": pickle.dumps(items[place])} for place in places],
        override_num_blocks=-(-len(places) // block),
    )
    answered = given.map(
        _actor(make),
        # One block at a time: those that wait at an actor would share the deaths of its block.
        compute=ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
        num_cpus=1,
        max_restarts=-1,
        max_task_retries=MOST_DEATHS - 1,
    )
    for row in answered.iter_rows():
        answer = pickle.loads(row["answer"])
        if isinstance(answer, Ended):
            raise answer.error()
        yield int(row["place"]), answer


def _actor(make: Make[Any, Any]) -> type:
    """The class of an actor with one warm worker function.

    What goes wrong travels as an answer: an exception would be taken for a lost block.
    """

    class Actor:
        def __init__(self) -> None:
            self._work: Any = None

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            try:
                if self._work is None:
                    self._work = make()
                answer = self._work(pickle.loads(row["item"]))
            except Exception as error:
                answer = Ended.by(error)
            return {"place": row["place"], "answer": pickle.dumps(answer)}

    return Actor
