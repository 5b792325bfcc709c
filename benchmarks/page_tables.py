"""Tables in Markdown pages: written between markers, so that the words around them stay."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def read_result(name: str) -> Any:
    """A committed result by its file's stem."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def between(text: str, name: str) -> str:
    """What stands between the markers of a name.

    Raises:
        ValueError: the text has no such place.
    """
    _, start, rest = text.partition(f"<!-- {name} -->\n")
    inside, end, _ = rest.partition(f"<!-- end of {name} -->")
    if not (start and end):
        raise ValueError(f"no place for the table of {name}")
    return inside


def write_tables(page: Path, tables: Mapping[str, str]) -> None:
    """Replace what stands between the markers of a page, by the markers' names.

    Raises:
        ValueError: the page lacks a place for one of them; nothing is written.
    """
    text = page.read_text()
    for name, content in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        text = text.replace(f"{start}{between(text, name)}{end}", f"{start}{content}\n{end}")
    page.write_text(text)
