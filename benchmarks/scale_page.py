"""The tables of docs/scale.md, from benchmarks/results/scale.json alone.

python -m benchmarks.scale_page
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.page_tables import ROOT, read_result, table, write_tables

PAGE = ROOT / "docs" / "scale.md"
REPORT = "scale"
WAYS = {
    "one_process": "1 process",
    "processes": "{workers} processes, one thread each (what `predict-cohort` does)",
    "threads": "1 process, {workers} threads of one predictor",
    "ray": "{workers} Ray actors (`--ray`)",
}
MILLION = 1_000_000
EXAMPLE_CORES = (2, 16, 64, 256)
_MS_AN_HOUR = 3.6e6

Report = Mapping[str, Any]


def machine(report: Report) -> str:
    """On what and with what it was measured."""
    made = report["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    rows = [
        ("Machine", f"{made['processor']['value']}, {made['usable_cores']['value']} cores"),
        ("Answers", report["engine"]),
        (
            "Studies",
            f"{report['studies']} simulated, {report['pixel_spacing_mm']} mm a pixel, "
            f"uncompressed, {report['file_bytes'] / 1e6:.1f} MB a file, in the system's file cache",
        ),
        ("Runs of each way", f"{report['rounds']}, in turns; the median is shown"),
        (
            "Load average at the end",
            f"{', '.join(map(str, report['load_average']))} (1, 5, 15 minutes): above the "
            "number of cores other work delays what wall time shows",
        ),
        ("Versions", versions),
        ("Date", report["date"]),
    ]
    return table(("", ""), rows)


def ways(report: Report) -> str:
    """What 1,000 studies cost, by who works."""
    rows = []
    for key, words in WAYS.items():
        figures = report["ways"][key]
        rows.append(
            (
                words.format(workers=report["workers"]),
                f"{figures['processor_ms_a_study'] * 1e3 / 6e4:.2f} min",
                f"{figures['wall_ms_a_study'] * 1e3 / 6e4:.2f} min",
                f"{figures['start_processor_s']:.1f} s",
                f"{figures['first_answer_s']:.1f} s",
            )
        )
    head = (
        "Who works",
        "Processor time, 1,000 studies",
        "Wall time, 1,000 studies",
        "Processor time of the start",
        "First answer after",
    )
    return table(head, rows)


def overhead(report: Report) -> str:
    """What is not the reading of a study, in milliseconds of the one who asks."""
    passed, kept = report["passing_ms_a_study"], report["bookkeeping"]
    plain, ray = (report["ways"][way]["processor_ms_a_study"] for way in ("processes", "ray"))
    rows = [
        (
            "Ray actors against plain processes, reading studies",
            f"{100 * (ray / plain - 1):+.0f} % processor time, Ray's own helpers included",
        ),
        ("A study to a process and its answer back", f"{passed['processes']:.2f} ms"),
        ("A study to a Ray actor and its answer back", f"{passed['ray']:.2f} ms"),
        ("Reading the table, asking for the files' sizes", f"{kept['table_ms_a_study']:.3f} ms"),
        ("Journal", f"{kept['journal_ms_a_study']:.3f} ms"),
        ("Results as CSV", f"{kept['csv_ms_a_study']:.3f} ms"),
        ("Results as Parquet", f"{kept['parquet_ms_a_study']:.3f} ms"),
    ]
    return table(("For each study", "Cost"), rows)


def killed(report: Report) -> str:
    """What a killed worker changed."""
    rows = [
        (
            WAYS[way].format(workers=report["workers"]).partition(" (")[0],
            str(found["killed"]),
            f"{found['rows']} of {report['studies']}",
            "yes" if found["same_bytes"] else "**no**",
        )
        for way, found in report["killed"].items()
    ]
    return table(("Who works", "Killed half way", "Rows", "Same bytes as one process"), rows)


def million(report: Report) -> str:
    """The arithmetic to a million studies."""
    passed, kept = report["passing_ms_a_study"], report["bookkeeping"]
    study_ms = report["ways"]["processes"]["processor_ms_a_study"]
    hours = MILLION * study_ms / _MS_AN_HOUR
    asking = kept["table_ms_a_study"] + kept["journal_ms_a_study"] + kept["parquet_ms_a_study"]
    feeds = int(study_ms / (passed["ray"] + kept["journal_ms_a_study"]))
    rows = [
        ("Core hours", f"{hours:,.0f}", f"{study_ms:.0f} ms of a core for each"),
        *(
            (f"Hours on {cores} such cores", f"{hours / cores:.1f}", "core hours / cores")
            for cores in EXAMPLE_CORES
        ),
        (
            "Cores that one asker keeps busy through Ray",
            f"{feeds}",
            f"{study_ms:.0f} ms / ({passed['ray']:.2f} + {kept['journal_ms_a_study']:.2f}) ms",
        ),
        (
            "Table, journal and Parquet, hours",
            f"{MILLION * asking / _MS_AN_HOUR:.1f}",
            "in the one who asks",
        ),
        ("Journal", f"{kept['journal_bytes_a_study'] / 1e3:.1f} GB", "stays beside the results"),
        ("Results as Parquet", _size(kept["parquet_bytes_a_study"]), "zstd"),
        ("Results as CSV", _size(kept["csv_bytes_a_study"]), ""),
        (
            "Memory of the one who asks",
            f"{kept['memory_bytes_a_study'] / 1e3:.1f} GB",
            "grows with the table: several tables where that is too much",
        ),
        (
            "Radiographs",
            f"{2 * report['file_bytes'] / 1e6:.1f} TB",
            "read once, at the size of these files",
        ),
    ]
    return table(("A million studies", "", "From"), rows)


def _size(bytes_a_study: float) -> str:
    return f"{bytes_a_study / 1e3:.2f} GB"


def tables(report: Report) -> dict[str, str]:
    """Every table by the name of its place."""
    return {
        "machine": machine(report),
        "ways": ways(report),
        "overhead": overhead(report),
        "killed": killed(report),
        "million": million(report),
    }


if __name__ == "__main__":
    write_tables(PAGE, tables(read_result(REPORT)))
