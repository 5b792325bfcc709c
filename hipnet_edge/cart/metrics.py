"""What the cart counts, in the exposition format of Prometheus (extra `cart`).

The labels are destinations, states, stages and codes: nothing that comes from an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hipnet_edge import __version__

if TYPE_CHECKING:
    from hipnet_edge.prediction import Provenance

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(frozen=True)
class Levels:
    """What is looked at when the metrics are asked for."""

    cases: Mapping[str, int]
    """By state."""
    backlog: int
    waiting: Mapping[str, int]
    """Objects that wait to be delivered, by destination."""
    free_bytes: int
    ready: bool


class Metrics:
    """The counters of one cart, in a registry of their own; safe from many threads.

    Args:
        levels: gives what is measured at the moment of asking.
    """

    def __init__(self, levels: Callable[[], Levels]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

        self._levels = levels
        self._registry = registry = CollectorRegistry()

        def gauge(name: str, help_text: str, *labels: str) -> Gauge:
            return Gauge(f"hipnet_{name}", help_text, labels, registry=registry)

        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"hipnet_{name}", help_text, labels, registry=registry)

        self._cases = gauge("cases", "Studies waiting and cases, by state", "state")
        self._backlog = gauge("backlog", "Studies received or assembled and not yet read")
        self._waiting = gauge("deliveries_waiting", "Objects to be delivered", "destination")
        self._free = gauge("disk_free_bytes", "Free space where the data lie")
        self._ready = gauge("ready", "1 when the predictor is warm and images are received")
        self._stored = counter("store_requests", "C-STORE requests answered, by status", "status")
        self._events = counter(
            "reception_events",
            "Images and associations accepted and refused",
            *("event", "reason", "source"),
        )
        self._deliveries = counter(
            "deliveries", "Tries to deliver an object", "destination", "outcome"
        )
        self._failures = counter("failures", "Steps that failed and are tried again", "part")
        self._seconds = Histogram(
            "hipnet_stage_seconds",
            "Seconds by stage",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._selftest = gauge("selftest_passed", "1 or 0: the last self-test; NaN before any")
        self._selftest.set(float("nan"))
        self._selftest_at = gauge("selftest_time_seconds", "When that was, seconds since 1970")
        self._build = Info("hipnet_build", "What runs here", registry=registry)
        self._build.info({"version": __version__})

    def runs(self, provenance: Provenance) -> None:
        """The predictor is loaded: say which."""
        self._build.info(
            {
                "version": __version__,
                "bundle": provenance.bundle_digest,
                "overlay": provenance.overlay_digest or "",
                "variant": provenance.variant,
                "backend": provenance.backend,
                "backend_version": provenance.backend_version,
            }
        )

    def stored(self, status: int) -> None:
        """A C-STORE request was answered."""
        self._stored.labels(f"0x{status:04X}").inc()

    def event(self, event: str, reason: str, source: str) -> None:
        """Reception tells of an image or an association: accepted, or refused with a reason."""
        self._events.labels(event, reason, source).inc()

    def delivery(self, destination: str, outcome: str) -> None:
        """A try to deliver: "delivered", "retry" or "failed"."""
        self._deliveries.labels(destination, outcome).inc()

    def failure(self, part: str) -> None:
        """A part of the cart failed and is tried again."""
        self._failures.labels(part).inc()

    def stage(self, stage: str, seconds: float) -> None:
        """A stage took so long."""
        self._seconds.labels(stage).observe(seconds)

    def selftest(self, passed: bool) -> None:
        """A self-test was done."""
        self._selftest.set(passed)
        self._selftest_at.set_to_current_time()

    def text(self) -> bytes:
        """All of it, as `/metrics` gives it."""
        from prometheus_client import generate_latest

        levels = self._levels()
        for state, count in levels.cases.items():
            self._cases.labels(state).set(count)
        self._backlog.set(levels.backlog)
        for destination, count in levels.waiting.items():
            self._waiting.labels(destination).set(count)
        self._free.set(levels.free_bytes)
        self._ready.set(levels.ready)
        return generate_latest(self._registry)
