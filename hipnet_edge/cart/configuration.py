"""Reading a cart's TOML file: every mistake with its line and key, and a commented example."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from hipnet_edge.errors import MissingExtra, UsageError

try:
    from pydantic import BaseModel, ValidationError

    from hipnet_edge.cart.settings import (
        Configuration,
        DicomDestination,
        DicomwebDestination,
        FolderDestination,
    )
except ImportError as error:  # every way into the cart begins with its configuration
    raise MissingExtra("cart", "An imaging cart") from error

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

__all__ = ["Configuration", "ConfigurationInvalid", "Pins", "example", "load"]

Location = tuple[str | int, ...]

_KINDS: dict[str, type[BaseModel]] = {
    "dicom": DicomDestination,
    "folder": FolderDestination,
    "dicomweb": DicomwebDestination,
}
_HEADER = re.compile(r"^\s*(\[{1,2})\s*([A-Za-z0-9_.\- \"']+?)\s*\]{1,2}\s*(#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.\-\"']+)\s*=")


class ConfigurationInvalid(UsageError):
    """The configuration cannot be used; the message has one line for each mistake in it."""


@dataclass(frozen=True)
class Pins:
    """What `[predict]` pins: the bundle's digest, its variant and the engine that runs it."""

    bundle_digest: str
    backend: str
    variant: str


def load(path: Path) -> Configuration:
    """Read and check a configuration; relative paths in it start at the file's own folder.

    Raises:
        ConfigurationInvalid: with every mistake, as "file:line: key: what is wrong".
    """
    try:
        text = path.read_bytes().decode("utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationInvalid(f"{path} cannot be read: {reason}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationInvalid(f"{path} is not UTF-8 text, as TOML must be.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationInvalid(_syntax(path, text, str(error))) from error
    try:
        # As JSON, because only there does pydantic's strict mode know that a path is a string.
        return Configuration.model_validate_json(
            json.dumps(document, default=str),
            strict=True,
            context={"folder": path.parent.resolve()},
        )
    except ValidationError as error:
        mistakes = _mistakes(path, text, document, error)
        raise ConfigurationInvalid("\n".join(mistakes)) from error


def example(pins: Pins) -> str:
    """A commented configuration with every key, ready to be adapted."""
    text = resources.files("hipnet_edge.cart").joinpath("cart.example.toml").read_text("utf-8")
    for name, value in vars(pins).items():
        text = text.replace(f"@{name}@", value)
    return text


def _syntax(path: Path, text: str, said: str) -> str:
    """What the parser says, with its line in front."""
    found = re.search(r"\(at line (\d+), column (\d+)\)", said)
    line = int(found[1]) if found else max(text.count("\n"), 1)
    what = re.sub(r"\s*\(at .*\)$", "", said)
    return f"{path}:{line}: this is not TOML: {what[:1].lower()}{what[1:]}."


def _mistakes(
    path: Path, text: str, document: Mapping[str, Any], error: ValidationError
) -> list[str]:
    """One sentence for each mistake, in the order of their lines."""
    lines = _lines(text)
    found = []
    for mistake in error.errors(include_url=False):
        location = _without_kind(mistake["loc"])
        line = _line(lines, location)
        found.append((line, f"{path}:{line}: {_key(location)}: {_what(mistake, document)}."))
    return [sentence for _, sentence in sorted(found)]


def _without_kind(location: Location) -> Location:
    """Pydantic puts the kind of a destination between its index and its key."""
    if location[:1] == ("destination",) and len(location) > 2 and location[2] in _KINDS:
        return (*location[:2], *location[3:])
    return location


def _key(location: Location) -> str:
    """A location as TOML writes it: `receive.tls.key`, `destination[2].port` (counted from 1)."""
    words = ""
    for part in location:
        words += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return words.lstrip(".")


def _what(mistake: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """What is wrong, in words of this file rather than of pydantic's."""
    kind, location = mistake["type"], mistake["loc"]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), _keys_beside(location), n=1)
        return f"this key is unknown; perhaps {near[0]} is meant" if near else "this key is unknown"
    if kind == "missing":
        is_table = len(location) == 1
        return "this table is missing" if is_table else "this key is missing"
    if kind == "value_error":
        return str(mistake["ctx"]["error"])
    if kind == "union_tag_not_found":
        return "this destination does not say its kind: dicom, folder or dicomweb"
    if kind == "union_tag_invalid":
        return "the kind of a destination is dicom, folder or dicomweb"
    if kind == "string_pattern_mismatch":
        return "this value does not have the form that is expected"
    message: str = mistake["msg"]
    return message[:1].lower() + message[1:].replace(" valid array", " array")


def _keys_beside(location: Location) -> Sequence[str]:
    """The keys that the table of an unknown key knows."""
    model: type[BaseModel] = Configuration
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        if part in _KINDS:
            model = _KINDS[part]
        elif part in model.model_fields:
            model = _table_of(model.model_fields[part].annotation, model)
    return list(model.model_fields)


def _table_of(annotation: Any, otherwise: type[BaseModel]) -> type[BaseModel]:
    """The model in an annotation such as `Tls | None`."""
    candidates: Sequence[Any] = (annotation, *getattr(annotation, "__args__", ()))
    return next((c for c in candidates if hasattr(c, "model_fields")), otherwise)


def _line(lines: Mapping[Location, int], location: Location) -> int:
    """Where a key stands; of one that is missing, its table; 1 for what is nowhere."""
    while location and location not in lines:
        location = location[:-1]
    return lines.get(location, 1)


def _lines(text: str) -> dict[Location, int]:
    """The line of every table and key; what spans several lines counts where it begins."""
    found: dict[Location, int] = {}
    arrays: dict[str, int] = {}
    table: Location = ()
    for number, line in _plain_lines(text):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            names = tuple(_names(header[2]))
            if header[1] == "[[":
                arrays[names[0]] = arrays.get(names[0], -1) + 1
            table = (names[0], arrays[names[0]], *names[1:]) if names[0] in arrays else names
            found.setdefault(table, number)
            if table[:1] not in found:
                found[table[:1]] = number
        elif key:
            found.setdefault((*table, *_names(key[1])), number)
    return found


def _names(dotted: str) -> Iterator[str]:
    for name in dotted.split("."):
        yield name.strip().strip("\"'")


def _plain_lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that do not lie inside a string of several lines."""
    closing = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not closing:
            yield number, line
        for quotes in re.findall(r"\"\"\"|'''", line):
            if not closing:
                closing = quotes
            elif closing == quotes:
                closing = ""
