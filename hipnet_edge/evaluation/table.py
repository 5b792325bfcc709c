"""COHORT.csv: read whole, checked before anything is predicted, every bad row named.

What is said of a row names its line and what is wrong, never a patient or a file, nor a cell that
may hold one because columns are exchanged: reports and terminals are shown around.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hipnet_edge.errors import UsageError
from hipnet_edge.evaluation.sample import SOUND
from hipnet_edge.vocabulary import CAUSES, VIEWS, Laterality, View

FILES = tuple(view.value for view in VIEWS)
NEEDED = (*FILES, "cause")
NUMBERS = ("crp", "esr", "age", "pixel_spacing_mm")
WORDS = ("site", "scanner", "sex")
KNOWN = (*NEEDED, "patient_id", "side", "ap_mask", "lateral_mask", *NUMBERS, *WORDS)
SIDES = (Laterality.LEFT.value, Laterality.RIGHT.value)
FEW_STUDIES = 30
_LABELS = {
    **{cause.value: k for k, cause in enumerate(CAUSES)},
    **{cause.label.lower().replace(" ", "_"): k for k, cause in enumerate(CAUSES)},
    "none": SOUND,
    "": SOUND,
}
_MOST_NAMED = 50
_LONGEST_WORD = 60

Cells = Mapping[str, str]


class CohortInvalid(UsageError):
    """The table cannot be used as it is; the message names every bad row."""


@dataclass(frozen=True)
class CohortRow:
    """One study of the table.

    Attributes:
        line: of the file, the first study's is 2; names the study in every report.
        files: the radiograph of each view.
        masks: what is diseased, where somebody has drawn it.
        cause: index into `CAUSES`, or `SOUND`.
        patient: which patient, numbered from 0 as they first appear.
        side: of the hip to read; None where headers say it.
        numbers: `NUMBERS` by column; NaN where empty.
        words: `WORDS` by column; empty where not stated.
    """

    line: int
    files: Mapping[View, Path]
    masks: Mapping[View, Path]
    cause: int
    patient: int
    side: Laterality | None
    numbers: Mapping[str, float]
    words: Mapping[str, str]


@dataclass(frozen=True)
class CohortTable:
    """A table that passed its checks.

    Attributes:
        rows: every study, in the order of the file.
        sha256: of the file.
        notices: what its reader should know, in sentences.
    """

    rows: tuple[CohortRow, ...]
    sha256: str
    notices: tuple[str, ...]


def read_table(path: Path, *, labelled: bool = True) -> CohortTable:
    """Read and check COHORT.csv; paths in it are relative to it.

    Args:
        path: of the table.
        labelled: whether it must say the causes; without, the column may lack or hold anything.

    Raises:
        CohortInvalid: it cannot be read, lacks a column, or has bad rows; all of them are named.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise CohortInvalid(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise CohortInvalid(f"{path} is not text in UTF-8.") from error
    needed = NEEDED if labelled else FILES
    columns, lines, decimal_comma = _parse(text, needed)
    problems = list(_unlike_its_header(columns, lines))
    cells = [dict(zip(columns, line, strict=False)) for _, line in lines]
    numbers = [number for number, _ in lines]
    shifted = {number for number, _ in problems}
    if labelled:
        problems += _label_problems(columns, numbers, cells, shifted)
    problems += _repeated_files(numbers, cells, path.parent)
    reader = _Reader(path.parent, decimal_comma)
    rows = []
    for number, row in zip(numbers, cells, strict=True):
        made, wrong = reader.row(number, row)
        rows.append(made)
        problems += wrong
    if problems:
        raise CohortInvalid(_in_words(problems))
    notices = (*_notices(rows, columns), *reader.notices())
    return CohortTable(tuple(rows), hashlib.sha256(content).hexdigest(), notices)


def _parse(text: str, needed: Sequence[str]) -> tuple[list[str], list[tuple[int, list[str]]], bool]:
    """Column names, lines with their numbers, and whether numbers may have a decimal comma."""
    first = text.partition("\n")[0]
    semicolons = first.count(";") > first.count(",")
    try:
        reader = csv.reader(text.splitlines(), delimiter=";" if semicolons else ",", strict=True)
        lines = [(reader.line_num, line) for line in reader if any(map(str.strip, line))]
    except csv.Error as error:
        raise CohortInvalid(f"The table is no CSV: {error}.") from error
    if not lines:
        raise CohortInvalid("The table is empty.")
    columns = [name.strip().lower() for name in lines[0][1]]
    twice = [name for name, times in Counter(columns).items() if times > 1 and name]
    if twice:
        raise CohortInvalid(f"The table has two columns named {', '.join(twice)}.")
    missing = [name for name in needed if name not in columns]
    if missing:
        raise CohortInvalid(
            f"The table has no column {', '.join(missing)}; needed are {', '.join(needed)}."
        )
    if len(lines) == 1:
        raise CohortInvalid("The table has no studies.")
    return columns, [(n, [cell.strip() for cell in line]) for n, line in lines[1:]], semicolons


Problem = tuple[int, str]


def _unlike_its_header(
    columns: Sequence[str], lines: Sequence[tuple[int, list[str]]]
) -> Iterator[Problem]:
    for number, line in lines:
        if len(line) != len(columns):
            yield number, f"{len(line)} cells, the header has {len(columns)}"


def _label(cell: str | None) -> int | None:
    """The cause that a cell names; None if it is no cause."""
    return _LABELS.get((cell or "").strip().lower().replace(" ", "_"))


def _label_problems(
    columns: Sequence[str], numbers: Sequence[int], cells: Sequence[Cells], shifted: set[int]
) -> list[Problem]:
    """The rows whose cause is none, and which other column looks like the causes.

    In the lines of `shifted` cells may stand in the wrong column.
    """
    unknown = [
        (number, row)
        for number, row in zip(numbers, cells, strict=True)
        if _label(row.get("cause")) is None
    ]
    exchanged = len(unknown) * 2 > len(cells)
    # A slip of the pen is quoted; what stands where the causes should may be a name.
    wrong = [
        (number, f"unknown cause {row['cause'][:_LONGEST_WORD]!r}")
        if number not in shifted and not exchanged
        else (number, "unknown cause")
        for number, row in unknown
    ]
    if exchanged:
        for column in columns:
            words = [row.get(column, "") for row in cells]
            named = sum(bool(word) and _label(word) is not None for word in words)
            if column != "cause" and named * 2 > len(cells):
                wrong.insert(0, (1, f"the column {column} holds causes: are columns exchanged?"))
    return wrong


def _repeated_files(
    numbers: Sequence[int], cells: Sequence[Cells], folder: Path
) -> Iterator[Problem]:
    """Rows that name a radiograph which another row, or the same, has named already."""
    seen: dict[Path, tuple[int, str]] = {}
    for number, row in zip(numbers, cells, strict=True):
        for view in VIEWS:
            if not row.get(view.value):
                yield number, f"no file in column {view.value}"
                continue
            file = (folder / row[view.value]).resolve()
            if file in seen:
                line, column = seen[file]
                same = "this row's own" if line == number else f"that of line {line}, column"
                yield number, f"its file in column {view.value} is {same} {column}"
            seen.setdefault(file, (number, view.value))


class _Reader:
    """Rows from cells, and the patients seen on the way."""

    def __init__(self, folder: Path, decimal_comma: bool) -> None:
        self._folder, self._decimal_comma = folder, decimal_comma
        self._patients: dict[str, int] = {}
        self._studies: Counter[int] = Counter()
        self._unnamed = 0

    def row(self, line: int, cells: Cells) -> tuple[CohortRow, list[Problem]]:
        """One row, and what is wrong with it beside its label and its files."""
        wrong: list[Problem] = []
        numbers = {}
        for column in NUMBERS:
            numbers[column] = self._number(cells.get(column, ""))
            if numbers[column] < 0 or math.isinf(numbers[column]):
                wrong.append((line, f"{column} is no number of 0 or more"))
        side = cells.get("side", "").lower()
        side = {"l": "left", "r": "right"}.get(side, side)
        if side and side not in SIDES:
            wrong.append((line, "side is neither left nor right"))
        cause = _label(cells.get("cause"))
        row = CohortRow(
            line=line,
            files={view: self._folder / cells.get(view.value, "") for view in VIEWS},
            masks={
                view: self._folder / cells[f"{view.value}_mask"]
                for view in VIEWS
                if cells.get(f"{view.value}_mask")
            },
            cause=SOUND if cause is None else cause,
            patient=self._patient(line, cells.get("patient_id", "")),
            side=Laterality(side) if side in SIDES else None,
            numbers=numbers,
            words={column: cells.get(column, "")[:_LONGEST_WORD] for column in WORDS},
        )
        return row, wrong

    def _number(self, cell: str) -> float:
        """A cell's number; NaN where it is empty, infinity where it holds anything else."""
        if not cell:
            return math.nan
        try:
            number = float(cell.replace(",", ".") if self._decimal_comma else cell)
        except ValueError:
            return math.inf
        return math.inf if math.isnan(number) else number

    def _patient(self, line: int, name: str) -> int:
        self._unnamed += not name
        key = name or f"\0{line}"  # who is not named is a patient of its own
        patient = self._patients.setdefault(key, len(self._patients))
        self._studies[patient] += 1
        return patient

    def notices(self) -> Iterator[str]:
        """What to know about the patients."""
        several = sum(times > 1 for times in self._studies.values())
        if self._unnamed:
            yield (
                f"{self._unnamed} studies name no patient: each is taken for a patient of its own. "
                "Where one patient has several of them, intervals are too narrow."
            )
        if several:
            yield (
                f"{several} patients have several studies: intervals take a patient's studies "
                "together, and DeLong's, which cannot, are left out."
            )
        if len(self._patients) == 1:
            yield "All studies are of one patient: no figure can say anything of others."


def _notices(rows: Sequence[CohortRow], columns: Sequence[str]) -> Iterator[str]:
    """What to know about labels and columns."""
    counted = Counter(row.cause for row in rows)
    labels = [cause.label.lower() for cause in CAUSES]
    absent = [label for k, label in enumerate(labels) if not counted[k]]
    few = [f"{label} {counted[k]}" for k, label in enumerate(labels) if counted[k]]
    few = [words for words in few if int(words.split()[-1]) < FEW_STUDIES]
    if absent:
        yield f"No study with {', '.join(absent)}: figures that need all causes are refused."
    if few:
        yield f"Fewer than {FEW_STUDIES} studies: {', '.join(few)}."
    if counted[SOUND]:
        yield (
            f"{counted[SOUND]} studies name no cause: they count as prostheses that have not "
            "failed, and take no part in figures about causes."
        )
    unused = [name for name in columns if name and name not in KNOWN]
    if unused:
        yield f"Columns that were not used: {', '.join(unused)}."


def _in_words(problems: Sequence[Problem]) -> str:
    """Every bad row, in the order of the file; those beyond `_MOST_NAMED` by number alone."""
    ordered = sorted(problems, key=lambda problem: problem[0])
    lines = [f"  line {number}: {what}" for number, what in ordered[:_MOST_NAMED]]
    rest = sorted({number for number, _ in ordered[_MOST_NAMED:]})
    if rest:
        lines.append(f"  and lines {', '.join(map(str, rest))}")
    bad = len({number for number, _ in ordered if number > 1})
    return "\n".join([f"The table has {bad} bad rows; nothing was predicted:", *lines])
