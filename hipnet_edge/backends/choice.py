"""Which engine answers: what was asked for, or the fastest that passed the gate here.

Only a combination of variant, engine, version and device that the gate has passed is ever chosen by
itself. The FP32 file on ONNX Runtime's CPU is what every other is measured against and needs no
verdict, so something can always be chosen where that is installed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hipnet_edge.backends.backend import Backend, Identity, Progress
from hipnet_edge.backends.onnxruntime_backend import OnnxRuntimeBackend
from hipnet_edge.backends.onnxruntime_gpu import (
    OnnxRuntimeCudaBackend,
    OnnxRuntimeTensorRtBackend,
)
from hipnet_edge.backends.openvino_backend import OpenVinoBackend
from hipnet_edge.backends.plan_cache import PlanCache
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
        OpenVinoBackend,
        OnnxRuntimeBackend,
    )
}
"""Every backend of this version by its name, the preferred one first."""

REFERENCE = (OnnxRuntimeBackend.name, "fp32")
"""The backend and the variant whose answers are the reference."""

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
    return _first_that_loads(bundle, offered, verdicts, threads, progress)


def _first_that_loads(
    bundle: Bundle,
    offered: list[tuple[str, str, str]],
    verdicts: _Verdicts,
    threads: int | None,
    progress: Progress | None,
) -> Choice:
    """The first combination that passed the gate here and loads; flagged if a better one failed."""
    refused: list[EngineUnusable] = []
    missed = False
    for name, _, variant in offered:
        kind, reference = BACKENDS[name], (name, variant) == REFERENCE
        if not reference and not verdicts.may_have_passed(name, variant):
            continue
        # A GPU that answered yesterday and is gone today must not be missed in silence.
        expected = verdicts.passed_on_this_device(name, variant)
        try:
            if not reference:
                expected = verdicts.passed(name, variant, kind.identify(variant))
                if not expected:
                    continue
            loaded = kind.open(bundle, variant, threads=threads, progress=progress)
        except EngineUnusable as error:
            _LOG.info("%s cannot run %s: %s", name, variant, error.message)
            refused.append(error)
            missed |= kind.on_gpu and expected
            continue
        why = "the reference" if reference else "it passed the gate here"
        choice = _choice(loaded, variant, verdicts, f"the first that loads; {why}")
        return _as_fallback(choice, refused) if missed and not kind.on_gpu else choice
    raise refused[-1] if refused else _none_passed(bundle, offered)


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


def _as_fallback(choice: Choice, refused: list[EngineUnusable]) -> Choice:
    reason = f"{choice.reason}, after: {refused[0].message}"
    return replace(choice, reason=reason, flags=choice.flags | {Flag.CPU_FALLBACK})


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
