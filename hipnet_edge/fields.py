"""Reading JSON that others wrote: every value is checked, every complaint names its field."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from hipnet_edge.errors import HipNetError

E = TypeVar("E", bound=Enum)


class Fields:
    """One JSON object being read.

    Args:
        value: what the JSON parser gave.
        where: the object's own name in messages, "" for the outermost.
        complain: makes the error that is raised, from one sentence.

    Raises:
        HipNetError: whatever `complain` makes, when `value` is no JSON object.
    """

    def __init__(self, value: object, where: str, complain: Callable[[str], HipNetError]) -> None:
        self._where = where
        self._complain = complain
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise complain(f"{where or 'the outermost value'} is not a JSON object.")
        self._value: dict[str, object] = value

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def __iter__(self) -> Iterator[str]:
        return iter(self._value)

    def wrong(self, key: str, what: str) -> HipNetError:
        """The error that says what is wrong with the field `key`."""
        return self._complain(f"the field {self._name(key)} {what}.")

    def only(self, *keys: str) -> None:
        """Refuse fields other than `keys`."""
        for key in self._value:
            if key not in keys:
                raise self.wrong(key, "is not part of this schema")

    def raw(self, key: str) -> object:
        """The value of a field that must be there."""
        if key not in self._value:
            raise self.wrong(key, "is missing")
        return self._value[key]

    def child(self, key: str) -> Fields:
        """A nested JSON object."""
        return Fields(self.raw(key), self._name(key), self._complain)

    def children(self, key: str) -> list[Fields]:
        """A list of JSON objects."""
        name = self._name(key)
        return [
            Fields(item, f"{name}[{index}]", self._complain)
            for index, item in enumerate(self.items(key))
        ]

    def mapping(self, key: str) -> Mapping[str, object]:
        """A nested JSON object whose content is free."""
        return dict(self.child(key)._value)

    def items(self, key: str) -> list[object]:
        """A JSON list of anything."""
        value = self.raw(key)
        if not isinstance(value, list):
            raise self.wrong(key, "is not a list")
        return value

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self.raw(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, "is not a text")
        return value

    def text_or_none(self, key: str) -> str | None:
        """A text, or null."""
        return None if self.raw(key) is None else self.text(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        values = self.items(key)
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(key, "is not a list of texts")
        return tuple(str(value) for value in values)

    def member(self, key: str, kind: type[E]) -> E:
        """The member of an enumeration whose value the text is."""
        try:
            return kind(self.text(key))
        except ValueError as error:
            choices = ", ".join(str(member.value) for member in kind)
            raise self.wrong(key, f"is not one of {choices}") from error

    def boolean(self, key: str) -> bool:
        """True or false."""
        value = self.raw(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "is neither true nor false")
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(key, f"is not a whole number from {low} to {high}")
        return value

    def integers(self, key: str, count: int) -> tuple[int, ...]:
        """A list of exactly `count` whole numbers."""
        values = self.items(key)
        whole = [value for value in values if isinstance(value, int) and value is not True]
        if len(values) != count or len(whole) != count:
            raise self.wrong(key, f"is not a list of {count} whole numbers")
        return tuple(whole)

    def number(self, key: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number from `low` to `high`."""
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(key, "is not a number")
        if not math.isfinite(value) or not low <= value <= high:
            raise self.wrong(key, f"is not a finite number from {low:g} to {high:g}")
        return float(value)

    def number_or_none(
        self, key: str, low: float = -math.inf, high: float = math.inf
    ) -> float | None:
        """A finite number from `low` to `high`, or null."""
        return None if self.raw(key) is None else self.number(key, low, high)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of exactly `count` finite numbers."""
        values = Fields(
            {str(index): value for index, value in enumerate(self.items(key))},
            self._name(key),
            self._complain,
        )
        if len(values._value) != count:
            raise self.wrong(key, f"is not a list of {count} numbers")
        return tuple(values.number(index) for index in values)

    def _name(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key
