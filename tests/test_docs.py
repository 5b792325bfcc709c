"""The pages for people say what the code does: codes, flags, options, names, links."""

from __future__ import annotations

import ast
import json
import re
from enum import Enum
from itertools import pairwise
from pathlib import Path

import click
import pytest

from hipnet_edge import cli
from hipnet_edge.errors import Reason
from hipnet_edge.evaluation.commands import NOT_ACCEPTED
from hipnet_edge.vocabulary import Flag
from hipnet_edge.wording import FLAG_WORDS

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


def test_every_command_option_and_exit_code_is_documented():
    sections = (ROOT / "docs" / "cli.md").read_text().split("\n## ")
    codes = re.findall(r"^\| (\d+) \|", sections[0], re.MULTILINE)
    left = {0, 130, NOT_ACCEPTED}
    assert {int(code) for code in codes} == left | {code for _, code in cli.EXIT_CODES}
    for name, command in cli.hipnet_edge.commands.items():
        section = next(part for part in sections if part.startswith(f"`{name}"))
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.opts[0] in section, f"{name} {option.opts[0]}"


def test_every_flag_has_its_sentence():
    assert set(FLAG_WORDS) == set(Flag)


def test_the_readmes_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--cause", "pji", "--seed", "7", "--out", "demo/study", "--pixel-spacing", "0.5"]
    assert cli.run(["simulate", *arguments]) == 0
    capsys.readouterr()
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    assert "simulated_input" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_figures_of_the_readme_are_those_that_were_measured():
    text = " ".join((ROOT / "README.md").read_text().split())
    report = json.loads((ROOT / "benchmarks" / "results" / "accuracy.json").read_text())
    studies = dict(report["cohort"]["by_cause"])
    studies.pop("sound")
    assert f"On {sum(studies.values()):,} simulated failed hips" in text
    for figure, sentence in (
        ("simulated_macro_auc", "macro AUC of {value:.3f} (95 % CI {low:.3f}-{high:.3f})"),
        ("simulated_accuracy", "calls {value:.3f} ({low:.3f}-{high:.3f}) rightly"),
    ):
        value, (low, high) = (report["figures"][figure][key] for key in ("value", "ci95"))
        assert sentence.format(value=value, low=low, high=high) in text
