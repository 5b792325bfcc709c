"""Which of several loaded engines is fastest on this machine, and what was found before.

An engine that is fast on one processor is slow on another, and nothing but a measurement says
which. It is made once for a machine, a bundle and a set of engines; what was found lies beside the
plans, in a folder that only its user can write.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import TYPE_CHECKING

from hipnet_edge import __version__
from hipnet_edge.backends.backend import Backend
from hipnet_edge.backends.plan_cache import PlanCache
from hipnet_edge.errors import HipNetError
from hipnet_edge.fields import Fields
from hipnet_edge.machine import cpu_signature

if TYPE_CHECKING:
    from hipnet_edge.bundle import Bundle

ROUNDS = 7
"""How often each engine runs at least; they take turns, so that a busy moment meets all of them."""
SHORTEST_S, LONGEST_S = 0.3, 1.0
"""So long at least, for small networks, whose times vary more; after so long no round begins."""
_OUT_OF_SIGHT, _ROUNDS_TO_SEE = 1.5, 3
"""Who after so many rounds has needed this many times the best one's time runs no more."""

_FILE = "choices.json"
_SCHEMA = 1
_KEPT = 32
"""How many choices are remembered; the oldest goes first."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What a race found, or an earlier start remembered."""

    backend: str
    variant: str
    """Of the winner."""
    measured_ms: Mapping[str, float]
    """The median inference of each that ran, by "backend variant"; empty where one ran alone."""
    date: str

    def reason(self) -> str:
        """Why the winner was chosen, in numbers."""
        if not self.measured_ms:
            return "the only one that passed the gate and loads here"
        times = ", ".join(f"{label} {ms:.1f} ms" for label, ms in self.measured_ms.items())
        winner = label_of(self.backend, self.variant)
        fastest = min(self.measured_ms, key=lambda label: self.measured_ms[label]) == winner
        why = "the fastest" if fastest else "preferred, as none was clearly faster,"
        return f"{why} of {len(self.measured_ms)} measured here on {self.date} ({times})"


def label_of(backend: str, variant: str) -> str:
    """What a way to run a network is called in reports of a race."""
    return f"{backend} {variant}"


def race(entrants: Sequence[tuple[str, Backend]]) -> tuple[int, Found]:
    """Let engines run in turns and say which is fastest.

    The first is preferred: another wins only if even its median is below the first one's best
    time, which noise alone does not bring about.

    Args:
        entrants: the variant of each and the engine, which has run once; the preferred one first.

    Returns:
        The winner's place in `entrants`, and what was found.

    Raises:
        EngineUnusable: an engine failed to run.
    """
    seconds: list[list[float]] = [[] for _ in entrants]
    if len(entrants) > 1:
        _run(entrants, seconds)
    winner = 0
    for i, taken in enumerate(seconds):
        if taken and median(taken) < min(seconds[winner]):
            winner = i
    variant, backend = entrants[winner]
    measured = {
        label_of(engine.name, of): round(1e3 * median(taken), 2)
        for (of, engine), taken in zip(entrants, seconds, strict=True)
        if taken
    }
    today = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    return winner, Found(backend.name, variant, measured, today)


def _run(entrants: Sequence[tuple[str, Backend]], seconds: list[list[float]]) -> None:
    pattern = entrants[0][1].signature.test_pattern()
    running = list(range(len(entrants)))
    started = time.perf_counter()
    turns = 0
    while len(running) > 1:
        for i in running:
            begun = time.perf_counter()
            entrants[i][1].infer(pattern)
            seconds[i].append(time.perf_counter() - begun)
        turns += 1
        if turns >= _ROUNDS_TO_SEE:
            best = min(min(seconds[i]) for i in running)
            running = [i for i in running if min(seconds[i]) <= _OUT_OF_SIGHT * best]
        passed = time.perf_counter() - started
        if passed > LONGEST_S or (turns >= ROUNDS and passed > SHORTEST_S):
            return


class Memory:
    """What races found on this machine, in a file beside the plans.

    Args:
        bundle: whose network is run.
        candidates: (backend, variant) of each that may run, the preferred one first.
        distributions: the packages that bring their engines.
        threads: as the caller asks for them.
    """

    def __init__(
        self,
        bundle: Bundle,
        candidates: Sequence[tuple[str, str]],
        distributions: Iterable[str],
        threads: int | None,
    ) -> None:
        about = {
            "bundle": bundle.digest,
            "package": __version__,
            "engines": {name: _version(name) for name in distributions},
            "candidates": [list(candidate) for candidate in candidates],
            "cpu": cpu_signature(),
            "threads": threads,
        }
        text = json.dumps(about, sort_keys=True)
        self._key = hashlib.sha256(text.encode()).hexdigest()
        self._cache = PlanCache()

    def require_writable(self) -> None:
        """Make sure that what is found could be kept; else it would be measured at each start.

        Raises:
            EngineUnusable: the folder is not trusted, or cannot be written.
        """
        self._cache.require_writable()

    def recall(self) -> Found | None:
        """What was found before under just these conditions; None if nothing was.

        Raises:
            EngineUnusable: the folder is not trusted.
        """
        return _read(self._cache).get(self._key)

    def keep(self, found: Found) -> None:
        """Remember what was found.

        Raises:
            EngineUnusable: as `require_writable`.
        """
        choices = _read(self._cache)
        choices.pop(self._key, None)
        latest = [*choices.items(), (self._key, found)][-_KEPT:]
        value = {"schema": _SCHEMA, "choices": {key: asdict(one) for key, one in latest}}
        self._cache.keep(_FILE, (json.dumps(value, indent=1) + "\n").encode())


def remembered() -> list[Found]:
    """Every choice that this user's races led to, the oldest first, for reports.

    Raises:
        EngineUnusable: the folder is not trusted.
    """
    return list(_read(PlanCache()).values())


class _Damaged(HipNetError):
    """The file is not what was written."""


def _complain(what: str) -> HipNetError:
    return _Damaged(f"The file of choices is unusable: {what}")


def _read(cache: PlanCache) -> dict[str, Found]:
    """The file's choices by key; a damaged file holds none and is written anew."""
    content = cache.read(_FILE)
    if not content:
        return {}
    try:
        fields = Fields(json.loads(content), "", _complain)
        fields.integer("schema", _SCHEMA, _SCHEMA)
        choices = fields.child("choices")
        return {key: _found(choices.child(key)) for key in choices}
    except (ValueError, RecursionError, _Damaged) as error:
        _LOG.warning("What was measured before is not read: %s", error)
        return {}


def _found(fields: Fields) -> Found:
    measured = fields.child("measured_ms")
    return Found(
        backend=fields.text("backend"),
        variant=fields.text("variant"),
        measured_ms={label: measured.number(label, 0, 1e9) for label in measured},
        date=fields.text("date"),
    )


def _version(distribution: str) -> str | None:
    """Of an installed distribution, without importing it."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
