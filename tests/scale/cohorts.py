"""A small cohort on disk: studies, one of them refused, one without a file."""

from __future__ import annotations

from pathlib import Path

from small_study import pair

STUDIES, REFUSED, MISSING = 10, 3, 6


def write_cohort(folder: Path) -> Path:
    """COHORT.csv without causes; row `REFUSED` has another study's lateral, `MISSING` has none."""
    lines = ["ap,lateral,patient_id"]
    for i in range(STUDIES):
        ap, lateral = pair(i)
        if i == REFUSED:
            lateral = pair(100 + i)[1]
        (folder / f"{i}-ap.dcm").write_bytes(ap)
        if i != MISSING:
            (folder / f"{i}-lateral.dcm").write_bytes(lateral)
        lines.append(f"{i}-ap.dcm,{i}-lateral.dcm,patient {i}")
    table = folder / "cohort.csv"
    table.write_text("\n".join(lines) + "\n")
    return table
