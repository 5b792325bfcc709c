"""Which engine answers: what was asked for, or the fastest that passed the gate here.

An engine on a GPU goes first; on the CPU a short measurement at the first load decides, and later
loads remember it. Only a combination of variant, engine, version and device that the gate has
passed is ever chosen by itself. The FP32 file on ONNX Runtime's CPU is what every other is measured
against and needs no verdict, so something can always be chosen where that is installed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hipnet_edge.backends.backend import Backend, Identity, Progress
from hipnet_edge.backends.onnxruntime_backend import OnnxRuntimeBackend
from hipnet_edge.backends.onnxruntime_gpu import (
    OnnxRuntimeCudaBackend,
    OnnxRuntimeTensorRtBackend,
)
from hipnet_edge.backends.openvino_backend import OpenVinoBackend
from hipnet_edge.backends.openvino_gpu import OpenVinoGpuBackend
from hipnet_edge.backends.plan_cache import PlanCache
from hipnet_edge.backends.race import Memory, race
from hipnet_edge.backends.tensorrt_backend import TensorRtBackend, TensorRtPartsBackend
from hipnet_edge.errors import EngineUnusable, Reason
from hipnet_edge.verdict import Gate
from hipnet_edge.vocabulary import Flag

if TYPE_CHECKING:
    from hipnet_edge.bundle import Bundle
    from hipnet_edge.verdict import Verdict

BACKENDS: dict[str, type[Backend]] = {
    backend.name: backend
    for backend in (
        TensorRtBackend,
        TensorRtPartsBackend,
        OnnxRuntimeTensorRtBackend,
        OnnxRuntimeCudaBackend,
        OpenVinoGpuBackend,
        OpenVinoBackend,
        OnnxRuntimeBackend,
    )
}
"""Every backend of this version by its name, the preferred one first."""

REFERENCE = (OnnxRuntimeBackend.name, "fp32")
"""The backend and the variant whose answers are the reference."""

_FASTER_FIRST = ("int8", "bf16", "fp16", "fp32")
"""The order of preference on a CPU; within a precision that of `BACKENDS`."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """A backend that is ready to run a variant of a bundle, and why it was chosen."""

    backend: Backend
    variant: str
    reason: str
    flags: frozenset[Flag] = frozenset()
    """What every result of it must say."""


def choose_backend(
    bundle: Bundle,
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Choice:
    """Load a bundle's network into the backend that runs it best here.

    Args:
        bundle: the verified bundle.
        backend: a name from `BACKENDS`, or "auto".
        precision: "int8", "bf16", "fp16", "fp32", or "auto".
        threads: how many threads share one inference; None for all cores this process may use.
        progress: told how far a long loading is, such as the building of a plan.

    Raises:
        EngineUnusable: there is no such backend or precision, or none that passed the gate and
            was not named (ENGINE_UNAVAILABLE); or the engine fails with a code of its own.
        MissingExtra: the backend's own package is not installed.
    """
    if backend not in (*BACKENDS, "auto"):
        raise EngineUnusable(
            f"There is no backend {backend!r}; choose auto or one of {', '.join(BACKENDS)}.",
            Reason.ENGINE_UNAVAILABLE,
        )
    names = list(BACKENDS) if backend == "auto" else [backend]
    offered = [
        (name, wanted, variant)
        for name in names
        for wanted, variant in BACKENDS[name].variants.items()
        if variant in bundle.manifest.variants and precision in ("auto", wanted)
    ]
    if not offered:
        raise _not_offered(bundle, names, precision)
    verdicts = _Verdicts(bundle)
    if backend != "auto" and precision != "auto":
        ((name, _, variant),) = offered
        loaded = BACKENDS[name].open(bundle, variant, threads=threads, progress=progress)
        return _choice(loaded, variant, verdicts, "as asked")
    loading = _Loading(bundle, verdicts, threads, progress)
    choice = loading.first_on_a_gpu(offered) or loading.fastest_on_the_cpu(offered)
    if choice is None:
        raise loading.refused[-1] if loading.refused else _none_passed(bundle, offered)
    return choice


class _Loading:
    """The loading of what passed the gate here, and what was refused on the way.

    Args:
        bundle: whose network is loaded.
        verdicts: of the gate.
        threads: as `choose_backend` takes it.
        progress: as `choose_backend` takes it.
    """

    def __init__(
        self,
        bundle: Bundle,
        verdicts: _Verdicts,
        threads: int | None,
        progress: Progress | None,
    ) -> None:
        self._bundle, self._verdicts = bundle, verdicts
        self._threads, self._progress = threads, progress
        self.refused: list[EngineUnusable] = []
        self._missed = False

    def first_on_a_gpu(self, offered: Sequence[tuple[str, str, str]]) -> Choice | None:
        """The first combination on a GPU that passed the gate here and loads."""
        for name, _, variant in offered:
            if not BACKENDS[name].on_gpu or not self._verdicts.may_have_passed(name, variant):
                continue
            loaded = self._load(name, variant)
            if loaded is not None:
                why = "the first that loads; it passed the gate here"
                return _choice(loaded, variant, self._verdicts, why)
        return None

    def fastest_on_the_cpu(self, offered: Sequence[tuple[str, str, str]]) -> Choice | None:
        """Of what passed the gate here and loads, the fastest; the reference needs no verdict."""
        candidates = [
            (name, variant)
            for wanted in _FASTER_FIRST
            for name, precision, variant in offered
            if precision == wanted
            and not BACKENDS[name].on_gpu
            and ((name, variant) == REFERENCE or self._verdicts.may_have_passed(name, variant))
        ]
        if len(candidates) > 1:
            try:
                found = self._remembered_or_raced(candidates)
            except EngineUnusable as error:
                _LOG.info("Nothing is measured: %s", error.message)
                unmeasured = f"the first that loads, nothing measured ({error.message})"
                found = self._first(candidates, unmeasured)
        else:
            found = self._first(candidates, "the first that loads")
        return None if found is None else self._after_what_is_missed(found)

    def _remembered_or_raced(self, candidates: Sequence[tuple[str, str]]) -> Choice | None:
        """As an earlier start found it, else by a race now; refused where it cannot be kept."""
        packages = {package for name, _ in candidates for package in BACKENDS[name].distributions}
        memory = Memory(self._bundle, candidates, sorted(packages), self._threads)
        found = memory.recall()
        if found is not None and (found.backend, found.variant) in candidates:
            loaded = self._load(found.backend, found.variant)
            if loaded is not None:
                return _choice(loaded, found.variant, self._verdicts, found.reason())
        memory.require_writable()
        entrants = self._entrants(candidates)
        if not entrants:
            return None
        if len(entrants) > 1 and self._progress is not None:
            self._progress(f"measuring which of {len(entrants)} engines is the fastest here")
        place, found = race(entrants)
        for other, (_, backend) in enumerate(entrants):
            if other != place:
                backend.close()
        try:
            memory.keep(found)
        except EngineUnusable as error:
            _LOG.warning("What was measured is not kept: %s", error.message)
        return _choice(entrants[place][1], found.variant, self._verdicts, found.reason())

    def _entrants(self, candidates: Sequence[tuple[str, str]]) -> list[tuple[str, Backend]]:
        """Those that load and run, each after its variant."""
        entrants: list[tuple[str, Backend]] = []
        for name, variant in candidates:
            loaded = self._load(name, variant)
            if loaded is not None and self._runs(loaded):
                entrants.append((variant, loaded))
        return entrants

    def _runs(self, loaded: Backend) -> bool:
        """Whether an engine answers at all; what it allocates meanwhile is in no measurement."""
        try:
            loaded.infer(loaded.signature.test_pattern())
        except EngineUnusable as error:
            _LOG.info("%s does not run: %s", loaded.name, error.message)
            self.refused.append(error)
            return False
        return True

    def _first(self, candidates: Sequence[tuple[str, str]], why: str) -> Choice | None:
        """The first that loads, in the order of preference."""
        for name, variant in candidates:
            loaded = self._load(name, variant)
            if loaded is not None:
                role = (
                    "the reference" if (name, variant) == REFERENCE else "it passed the gate here"
                )
                return _choice(loaded, variant, self._verdicts, f"{why}; {role}")
        return None

    def _load(self, name: str, variant: str) -> Backend | None:
        """One combination, if it passed the gate here and loads."""
        kind, reference = BACKENDS[name], (name, variant) == REFERENCE
        # A GPU that answered yesterday and is gone today must not be missed in silence.
        expected = self._verdicts.passed_on_this_device(name, variant)
        try:
            if not reference:
                expected = self._verdicts.passed(name, variant, kind.identify(variant))
                if not expected:
                    return None
            return kind.open(self._bundle, variant, threads=self._threads, progress=self._progress)
        except EngineUnusable as error:
            _LOG.info("%s cannot run %s: %s", name, variant, error.message)
            self.refused.append(error)
            self._missed |= kind.on_gpu and expected
            return None

    def _after_what_is_missed(self, choice: Choice) -> Choice:
        if not self._missed:
            return choice
        reason = f"{choice.reason}, after: {self.refused[0].message}"
        return replace(choice, reason=reason, flags=choice.flags | {Flag.CPU_FALLBACK})


class _Verdicts:
    """What the gate said: before the bundle shipped, and on this device since."""

    def __init__(self, bundle: Bundle) -> None:
        self._shipped = bundle.manifest.gate or Gate()
        self._here = Gate(verdicts=_made_here(bundle))

    def passed(self, name: str, variant: str, identity: Identity) -> bool:
        """Whether this very combination passed; the device's own verdict counts first."""
        asked = (variant, name, identity.version, identity.device)
        verdict = self._here.verdict(*asked) or self._shipped.verdict(*asked)
        return verdict is not None and verdict.passed

    def may_have_passed(self, name: str, variant: str) -> bool:
        """Whether it passed anywhere; if not, its engine need not even be looked for."""
        return any(_has_passed(gate, name, variant) for gate in (self._here, self._shipped))

    def passed_on_this_device(self, name: str, variant: str) -> bool:
        """Whether it passed here, whatever has become of its engine since."""
        return _has_passed(self._here, name, variant)


def _has_passed(gate: Gate, name: str, variant: str) -> bool:
    asked = (name, variant)
    return any(v.passed for v in gate.verdicts if (v.backend, v.variant) == asked)


def _made_here(bundle: Bundle) -> tuple[Verdict, ...]:
    """The verdicts in this device's folder of plans; one that cannot be trusted holds none."""
    cache = PlanCache()
    networks = {bundle.network(variant) for variant in bundle.manifest.variants}
    try:
        return tuple(verdict for network in networks for verdict in cache.verdicts(network))
    except EngineUnusable as error:
        _LOG.warning("Verdicts of this device are not read: %s", error.message)
        return ()


def _choice(loaded: Backend, variant: str, verdicts: _Verdicts, why: str) -> Choice:
    identity = Identity(loaded.version, loaded.device)
    flags = set()
    if (loaded.name, variant) != REFERENCE and not verdicts.passed(loaded.name, variant, identity):
        flags.add(Flag.NOT_GATED)
    if not loaded.proven:
        flags.add(Flag.UNPROVEN_ENGINE)
    return Choice(loaded, variant, f"{loaded.name}, {variant}: {why}", frozenset(flags))


def _not_offered(bundle: Bundle, names: list[str], precision: str) -> EngineUnusable:
    runs = {
        wanted
        for name in names
        for wanted, variant in BACKENDS[name].variants.items()
        if variant in bundle.manifest.variants
    }
    who = f"{names[0]} does not run" if len(names) == 1 else "No backend runs"
    return EngineUnusable(
        f"{who} the bundle {bundle.manifest.name} at precision {precision}; it can be run at: "
        f"{', '.join(sorted(runs)) or 'none'}.",
        Reason.ENGINE_UNAVAILABLE,
    )


def _none_passed(bundle: Bundle, offered: list[tuple[str, str, str]]) -> EngineUnusable:
    possible = ", ".join(f"{name} {precision}" for name, precision, _ in offered)
    return EngineUnusable(
        f"No engine that may run the bundle {bundle.manifest.name} has passed the gate here "
        f"({possible}): name backend and precision to use one all the same, or run "
        "python -m export.gate --record on this device.",
        Reason.ENGINE_UNAVAILABLE,
    )
