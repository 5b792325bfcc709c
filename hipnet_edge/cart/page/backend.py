"""What the page needs of the cart: few enough things that it is tested without a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hipnet_edge.cart.admission import Admission
    from hipnet_edge.cart.configuration import Configuration
    from hipnet_edge.cart.queue import Queue
    from hipnet_edge.cart.store import ObjectStore


@dataclass(frozen=True)
class PageBackend:
    """The parts of the cart that the page shows and asks.

    Attributes:
        configuration: how the cart was set up; `page`, `receive` and `service` are read.
        queue: the studies and where they stand.
        store: the radiographs, the predictions and the result objects.
        admission: judges what is uploaded.
        not_ready: the parts that are not ready yet, in a word or two each ("predictor", "receiver",
            "database"); empty when the cart is ready. Asked often: it must answer at once.
        metrics: the counters as text in Prometheus' exposition format.
    """

    configuration: Configuration
    queue: Queue
    store: ObjectStore
    admission: Admission
    not_ready: Callable[[], Sequence[str]]
    metrics: Callable[[], str | bytes]
