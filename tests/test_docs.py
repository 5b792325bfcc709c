"""The pages for people say what the code does: codes, flags, options, names, links."""

from __future__ import annotations

import ast
import re
from enum import Enum
from itertools import pairwise
from pathlib import Path

import pytest

from hipnet_edge.errors import Reason
from hipnet_edge.vocabulary import Flag

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def docstrings(module: str, enum: type[Enum]) -> dict[str, str]:
    """The docstring under each member of an enumeration, by the member's value."""
    tree = ast.parse((ROOT / "hipnet_edge" / module).read_text())
    body = next(
        n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == enum.__name__
    )
    found = {}
    for statement, after in pairwise(body):
        if isinstance(statement, ast.Assign) and isinstance(after, ast.Expr):
            found[ast.literal_eval(statement.value)] = " ".join(
                ast.literal_eval(after.value).split()
            )
    return found


@pytest.mark.parametrize(("module", "enum"), [("errors.py", Reason), ("vocabulary.py", Flag)])
def test_every_code_is_documented_in_the_words_of_its_docstring(module, enum):
    written = docstrings(module, enum)
    assert set(written) == {member.value for member in enum}
    page = (ROOT / "docs" / "errors-and-flags.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.MULTILINE))
    assert {code: rows.get(code) for code in written} == written


def test_the_page_of_codes_lists_nothing_that_does_not_exist():
    page = (ROOT / "docs" / "errors-and-flags.md").read_text()
    listed = re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted([m.value for m in Reason] + [m.value for m in Flag])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
