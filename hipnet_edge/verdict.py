"""What the gate says of a way to run a network, and by which limits it judges.

A quantised or half-precision network is another network than the reference, and the same file
gives other numbers in another engine, another version of it or on another processor. So a verdict
belongs to one variant, backend, version and device. Those that ship stand in the manifest under
`gate`; those made on a device lie in its plan cache.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace

from hipnet_edge.fields import Fields

REFERENCE = "fp32"
"""The variant that all others are compared with."""


@dataclass(frozen=True)
class Limits:
    """The largest difference from the reference with which a network passes, over one cohort."""

    auroc_drop: float = 0.003
    """Of the mean of the five causes' areas under the ROC curve."""
    auroc_drop_of_a_cause: float = 0.006
    """Of each single cause's."""
    decision_flips: float = 0.015
    """Part of the studies whose leading cause is another."""
    finding_flips: float = 0.03
    """Part of the studies whose flags `out_of_distribution` or `no_sign_of_failure` are others."""
    calibration_error_change: float = 0.01
    """Of the expected calibration error of the leading cause, either way."""
    probability_change_p99: float = 0.1
    """Of any cause's probability, in all but one study of a hundred."""
    probability_change_max: float = 0.3
    """Of any cause's probability, in any study."""
    map_correlation: float = 0.98
    """The least correlation of a cause's maps with the reference's, over all cells."""
    map_pointing_drop: float = 0.01
    """Of the part of the views whose map peaks at the disease."""

    def to_dict(self) -> dict[str, float]:
        """The limits by name, as they stand in a manifest."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """What the gate found of one way to run one network."""

    variant: str
    backend: str
    version: str
    """Of the engine, in full."""
    device: str
    """What the backend says that it runs on."""
    passed: bool
    studies: int
    """How many it was judged on."""
    date: str

    def to_dict(self) -> dict[str, str | bool | int]:
        """The verdict as it stands in a manifest."""
        return asdict(self)


@dataclass(frozen=True)
class ShortcutVerdict:
    """What the gate found of a shortcut in reading: the same network, asked of other pixels."""

    shortcut: str
    """Its name, such as `hipnet_edge.pixels.SHORTCUT`."""
    passed: bool
    studies: int
    date: str

    def to_dict(self) -> dict[str, str | bool | int]:
        """The verdict as it stands in a manifest."""
        return asdict(self)


@dataclass(frozen=True)
class Gate:
    """The limits of a bundle and the verdicts that come with it."""

    limits: Limits = field(default_factory=Limits)
    verdicts: tuple[Verdict, ...] = ()
    shortcuts: tuple[ShortcutVerdict, ...] = ()

    def verdict(self, variant: str, backend: str, version: str, device: str) -> Verdict | None:
        """The latest verdict on exactly this combination; None where nobody has judged it."""
        asked = (variant, backend, version, device)
        found = (v for v in reversed(self.verdicts) if _combination(v) == asked)
        return next(found, None)

    def with_verdict(self, verdict: Verdict) -> Gate:
        """The same with one more; it replaces an older one on the same combination."""
        others = (v for v in self.verdicts if _combination(v) != _combination(verdict))
        return replace(self, verdicts=(*others, verdict))

    def allows(self, shortcut: str) -> bool:
        """Whether a shortcut in reading passed."""
        return any(verdict.passed for verdict in self.shortcuts if verdict.shortcut == shortcut)

    def with_shortcut(self, verdict: ShortcutVerdict) -> Gate:
        """The same with a verdict on a shortcut; it replaces an older one."""
        others = (v for v in self.shortcuts if v.shortcut != verdict.shortcut)
        return replace(self, shortcuts=(*others, verdict))

    def to_dict(self) -> dict[str, object]:
        """The section `gate` of a manifest."""
        return {
            "limits": self.limits.to_dict(),
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "shortcuts": [verdict.to_dict() for verdict in self.shortcuts],
        }


def _combination(verdict: Verdict) -> tuple[str, str, str, str]:
    return verdict.variant, verdict.backend, verdict.version, verdict.device


def read_limits(given: Fields) -> Limits:
    """Limits by name; those that are not given are the usual ones.

    Raises:
        HipNetError: what `given` complains with; the field is named.
    """
    names = [limit.name for limit in fields(Limits)]
    given.only(*names)
    return Limits(**{name: given.number(name, 0, 1) for name in names if name in given})


def read_verdict(given: Fields) -> Verdict:
    """One verdict.

    Raises:
        HipNetError: what `given` complains with; the field is named.
    """
    given.only(*(part.name for part in fields(Verdict)))
    return Verdict(
        variant=given.text("variant"),
        backend=given.text("backend"),
        version=given.text("version"),
        device=given.text("device"),
        passed=given.boolean("passed"),
        studies=given.integer("studies", 1, 10**9),
        date=given.text("date"),
    )


def read_gate(given: Fields) -> Gate:
    """The section `gate` of a manifest.

    Raises:
        HipNetError: what `given` complains with; the field is named.
    """
    given.only("limits", "verdicts", "shortcuts")
    shortcuts = given.children("shortcuts") if "shortcuts" in given else []
    return Gate(
        limits=read_limits(given.child("limits")),
        verdicts=tuple(read_verdict(item) for item in given.children("verdicts")),
        shortcuts=tuple(_read_shortcut(item) for item in shortcuts),
    )


def _read_shortcut(given: Fields) -> ShortcutVerdict:
    given.only(*(part.name for part in fields(ShortcutVerdict)))
    return ShortcutVerdict(
        shortcut=given.text("shortcut"),
        passed=given.boolean("passed"),
        studies=given.integer("studies", 1, 10**9),
        date=given.text("date"),
    )
