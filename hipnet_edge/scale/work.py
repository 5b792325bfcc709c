"""What a worker is given and what it may answer, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from hipnet_edge.errors import (
    BundleUnusable,
    EngineUnusable,
    Fault,
    HipNetError,
    Reason,
    UsageError,
)

T = TypeVar("T")
R = TypeVar("R")

Make = Callable[[], Callable[[T], R]]
"""Called once in each worker: gives the warm function that is then called for every item. It and
the items are pickled; so are the answers."""

MOST_DEATHS = 3
"""Workers that may die over one item before it is given up."""

_KINDS = (BundleUnusable, EngineUnusable, UsageError, Fault)


@dataclass(frozen=True)
class Ended:
    """Why a worker cannot go on with any item: an error in a form that can travel."""

    kind: str
    message: str
    code: Reason

    @classmethod
    def by(cls, error: Exception) -> Ended:
        """What an error becomes; of a foreign one only its class is said."""
        if not isinstance(error, HipNetError):
            what = f"A fault of hipnet_edge ({type(error).__name__}); please report it."
            return cls(Fault.__name__, what, Reason.INTERNAL)
        kind = next((kind for kind in _KINDS if isinstance(error, kind)), Fault)
        return cls(kind.__name__, error.message, error.code)

    def error(self) -> HipNetError:
        """The error, to be raised where the run was asked for."""
        kind = next(kind for kind in _KINDS if kind.__name__ == self.kind)
        return kind(self.message, self.code)


def workers_die() -> EngineUnusable:
    """The error where workers die before they have answered anything."""
    return EngineUnusable(
        "Every worker dies before it answers anything: too little memory, or an engine that does "
        "not run here; hipnet-edge doctor may say more."
    )
