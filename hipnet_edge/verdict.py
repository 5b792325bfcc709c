"""The gate: how far an engine's answers may lie from the reference's, and which engines passed.

A verdict belongs to a variant on an engine's version and device. Verdicts that were made before a
bundle shipped stand in its manifest under `gate`; those made on a device lie in its plan cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hipnet_edge.fields import Fields


@dataclass(frozen=True)
class Limits:
    """What a candidate may lose against the reference, by the name of each limit."""

    values: Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """What the gate said of one variant on one engine and device."""

    variant: str
    backend: str
    version: str
    device: str
    passed: bool
    studies: int
    date: str


@dataclass(frozen=True)
class Gate:
    """The section `gate` of a manifest."""

    limits: Limits
    verdicts: tuple[Verdict, ...]

    def verdict(self, variant: str, backend: str, version: str, device: str) -> Verdict | None:
        """The verdict on a combination; None where there is none. The last one counts."""
        wanted = (variant, backend, version, device)
        fitting = [
            made
            for made in self.verdicts
            if (made.variant, made.backend, made.version, made.device) == wanted
        ]
        return fitting[-1] if fitting else None


def _read_verdict(fields: Fields) -> Verdict:
    """One verdict, as it stands in a manifest or in a device's cache."""
    fields.only("variant", "backend", "version", "device", "passed", "studies", "date")
    return Verdict(
        variant=fields.text("variant"),
        backend=fields.text("backend"),
        version=fields.text("version"),
        device=fields.text("device"),
        passed=fields.boolean("passed"),
        studies=fields.integer("studies", 0, 10**9),
        date=fields.text("date"),
    )


def read_gate(fields: Fields) -> Gate:
    """The section `gate` of a manifest.

    Raises:
        HipNetError: what `fields` complains with; the field is named.
    """
    fields.only("limits", "verdicts")
    limits = fields.child("limits")
    return Gate(
        limits=Limits({name: limits.number(name, 0) for name in limits}),
        verdicts=tuple(_read_verdict(verdict) for verdict in fields.children("verdicts")),
    )
