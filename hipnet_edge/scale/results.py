"""The table of results, CSV or Parquet: a row for each study, in the order of the cohort's table.

The same rows give the same bytes, whoever worked them out: what differs from run to run, the
timings, are columns that are only there when asked for.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from hipnet_edge.errors import MissingExtra, UsageError
from hipnet_edge.evaluation.run import PROBABILITIES
from hipnet_edge.scale.answers import Answer

_NUMBERS = (*PROBABILITIES, "disagreement", "novelty", "sign_of_failure")
COLUMNS: tuple[str, ...] = (
    *("line", "ap", "lateral", "status", "code", "message", "leading_cause", *_NUMBERS),
    *("plausible_causes", "flags", "side", "ap_image", "lateral_image"),
    *("bundle", "variant", "engine"),
)
"""In this order; docs/scale.md says what each holds."""
TIMINGS = ("read_ms", "decode_ms", "preprocess_ms", "inference_ms", "total_ms")
SUFFIXES = (".csv", ".parquet")
_ROW_GROUP = 10_000


def check_output(out: Path) -> None:
    """Refuse an output that cannot be made, before anything is predicted.

    Raises:
        UsageError: it has another suffix.
        MissingExtra: what writes Parquet is not installed.
    """
    if out.suffix not in SUFFIXES:
        raise UsageError(f"The results are a file that ends in {' or '.join(SUFFIXES)}.")
    if out.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise MissingExtra("parquet", "Writing Parquet") from error


def write_results(out: Path, rows: Iterable[Answer], *, timings: bool) -> None:
    """Write the table whole or not at all.

    Args:
        out: the file, `.csv` or `.parquet`.
        rows: in their order, by column.
        timings: with the columns of `TIMINGS`.

    Raises:
        OSError: it cannot be written.
    """
    columns = (*COLUMNS, *TIMINGS) if timings else COLUMNS
    part = out.with_name(out.name + ".part")
    write = _write_csv if out.suffix == ".csv" else _write_parquet
    write(part, rows, columns)
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(out)


def _write_csv(part: Path, rows: Iterable[Answer], columns: Sequence[str]) -> None:
    with part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _write_parquet(part: Path, rows: Iterable[Answer], columns: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = {
        **dict.fromkeys(columns, pyarrow.string()),
        "line": pyarrow.int64(),
        **dict.fromkeys((*_NUMBERS, *TIMINGS), pyarrow.float64()),
    }
    schema = pyarrow.schema([(name, kinds[name]) for name in columns])
    with pyarrow.parquet.ParquetWriter(part, schema, compression="zstd") as table:
        for group in _groups(rows):
            lacking = [{name: row.get(name) for name in columns} for row in group]
            table.write_table(pyarrow.Table.from_pylist(lacking, schema=schema))


def _groups(rows: Iterable[Answer]) -> Iterator[list[Answer]]:
    remaining = iter(rows)
    while group := list(islice(remaining, _ROW_GROUP)):
        yield group
