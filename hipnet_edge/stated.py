"""What the operator states of an image, and for the rest what its header says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from hipnet_edge.errors import UsageError
from hipnet_edge.views import Anatomy, Finding, anatomy_of, laterality_of, view_of
from hipnet_edge.vocabulary import Laterality, View

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

_NOTHING: Finding[Any] = Finding(None, "none")


@dataclass(frozen=True)
class Stated:
    """What the operator states of an image, which overrules its header.

    Attributes:
        view: which projection it is; None where nothing is stated, here and below.
        laterality: which hip it shows.
        anatomy: whether it shows a hip.
    """

    view: View | None
    laterality: Laterality | None
    anatomy: Anatomy | None

    @classmethod
    def of(cls, view: object, laterality: object, anatomy: object) -> Stated:
        """The statements as a caller gives them: members, their values, or None.

        Raises:
            UsageError: one of them is no such member.
        """
        return cls(
            _member(View, view, "view"),
            _member(Laterality, laterality, "laterality"),
            _member(Anatomy, anatomy, "anatomy"),
        )

    def overrides(self) -> Mapping[str, str]:
        """What is stated, such as {"view": "ap"}."""
        stated: dict[str, Enum | None] = vars(self)
        return MappingProxyType({name: v.value for name, v in stated.items() if v is not None})

    def findings(
        self, header: Dataset | None
    ) -> tuple[Finding[View], Finding[Laterality], Finding[Anatomy]]:
        """View, side and anatomy: what the operator states, else what the header says."""
        return (
            _statement(self.view) or (view_of(header) if header else _NOTHING),
            _statement(self.laterality) or (laterality_of(header) if header else _NOTHING),
            _statement(self.anatomy) or (anatomy_of(header) if header else _NOTHING),
        )


def _statement(value: T | None) -> Finding[T] | None:
    return None if value is None else Finding(value, "operator")


def _member(kind: type[E], value: object, name: str) -> E | None:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError as error:
        names = ", ".join(member.value for member in kind)
        raise UsageError(f"{name} must be one of {names}.") from error
