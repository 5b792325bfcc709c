"""Ways to run the network, and the choice between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hipnet_edge.backends.backend import Backend, Outputs, Signature
from hipnet_edge.backends.cores import available_cores
from hipnet_edge.backends.onnxruntime_backend import OnnxRuntimeBackend
from hipnet_edge.errors import EngineUnusable, Reason

if TYPE_CHECKING:
    from hipnet_edge.bundle import Bundle

__all__ = [
    "BACKENDS",
    "Backend",
    "Choice",
    "OnnxRuntimeBackend",
    "Outputs",
    "Signature",
    "available_cores",
    "choose_backend",
]

BACKENDS = {OnnxRuntimeBackend.name: OnnxRuntimeBackend}
"""Every backend of this version by its name, the preferred one first."""


@dataclass(frozen=True)
class Choice:
    """A backend that is ready to run a variant of a bundle, and why it was chosen."""

    backend: Backend
    variant: str
    reason: str


def choose_backend(
    bundle: Bundle, backend: str = "auto", precision: str = "auto", threads: int | None = None
) -> Choice:
    """Load a bundle's network into the backend that runs it best here.

    Args:
        bundle: the verified bundle.
        backend: a name from `BACKENDS`, or "auto".
        precision: such as "fp32", or "auto".
        threads: how many threads share one inference; None for all cores this process may use.

    Raises:
        EngineUnusable: there is no such backend or precision (ENGINE_UNAVAILABLE), or the engine
            refuses the network.
        MissingExtra: the backend's own package is not installed.
    """
    if backend not in (*BACKENDS, "auto"):
        raise EngineUnusable(
            f"There is no backend {backend!r}; choose auto or one of {', '.join(BACKENDS)}.",
            Reason.ENGINE_UNAVAILABLE,
        )
    name = next(iter(BACKENDS)) if backend == "auto" else backend
    chosen = BACKENDS[name]
    offered = {
        precision: variant
        for precision, variant in chosen.variants.items()
        if variant in bundle.manifest.variants
    }
    wanted = next(iter(offered), None) if precision == "auto" else precision
    if wanted not in offered:
        raise EngineUnusable(
            f"{name} cannot run the bundle {bundle.manifest.name} at precision {precision}; "
            f"it can at: {', '.join(offered) or 'none'}.",
            Reason.ENGINE_UNAVAILABLE,
        )
    variant = offered[wanted]
    loaded = chosen(bundle.model(variant), bundle.signature(variant), threads=threads)
    why_backend = "the preferred backend of this version" if backend == "auto" else "as asked"
    why_precision = "the first it offers for this bundle" if precision == "auto" else "as asked"
    return Choice(loaded, variant, f"{name}: {why_backend}; {wanted}: {why_precision}")
