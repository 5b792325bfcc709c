"""What is diseased in a scene: the solids whose silhouettes are the truth masks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .motion import moved
from .solids import Pose, Solid


@dataclass(frozen=True)
class Truth:
    """A solid that is diseased; with `minus` its silhouette less that of another (an interface)."""

    solid: Solid
    group: str
    minus: Solid | None = None

    def moved(self, motion: Pose) -> Truth:
        """The same after a motion within its group."""
        minus = None if self.minus is None else moved(self.minus, motion)
        return replace(self, solid=moved(self.solid, motion), minus=minus)
