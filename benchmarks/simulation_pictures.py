"""The pictures and the table of docs/simulation.md.

    python benchmarks/simulation_pictures.py

Draws docs/pictures/simulation.png, one study of each cause with and without the outline of what is
diseased, and rewrites the tables of dimensions in docs/simulation.md between their markers.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hipnet_edge.simulation import SimulatedView, simulate_study
from hipnet_edge.simulation.dimensions import PROBABILITIES, TABLE
from hipnet_edge.vocabulary import Cause

Picture = NDArray[np.uint8]

DOCS = Path(__file__).parent.parent / "docs"
SHOWN = {
    Cause.PJI: 9002,
    Cause.ASEPTIC_LOOSENING: 9014,
    Cause.DISLOCATION: 9011,
    Cause.PERIPROSTHETIC_FRACTURE: 9012,
    Cause.POLYETHYLENE_WEAR: 9007,
}
"""The seed of each cause's study, chosen so that both kinds of lateral and a pelvis are seen."""
TILE = (350, 276)
"""Rows and columns of one view in the contact sheet."""
HEAD = 24
OUTLINE = (60, 190, 255)
TONES = 96
"""Grey tones of the sheet: noise in all 256 would swell the file for nothing the eye sees."""


def tile(view: SimulatedView, outlined: bool) -> Picture:
    """One view [*TILE, 3], with the outline of its truth mask if wanted."""
    rows, columns = view.stored.shape
    scale = min(TILE[0] / rows, TILE[1] / columns)
    size = (round(columns * scale), round(rows * scale))
    small = cv2.resize(view.stored, size, interpolation=cv2.INTER_AREA)
    level = np.round(small / float(2**view.bits_stored - 1) * (TONES - 1)) / (TONES - 1)
    picture = cv2.cvtColor((level * 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    if outlined:
        mask = cv2.resize(view.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        edges, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, edges, -1, OUTLINE, 1)
    sheet = np.zeros((*TILE, 3), np.uint8)
    top, left = (TILE[0] - size[1]) // 2, (TILE[1] - size[0]) // 2
    sheet[top : top + size[1], left : left + size[0]] = picture
    return sheet


def contact_sheet() -> Picture:
    """Five rows of causes: AP and lateral as displayed, then both with the truth outlined."""
    rows = []
    for cause, seed in SHOWN.items():
        study = simulate_study(cause, seed)
        title = np.full((HEAD, 4 * TILE[1], 3), 255, np.uint8)
        side = study.laterality.value
        text = f"{cause.label}: {study.sign_mm:.1f} mm, {side} hip, {study.ap.projection}, "
        text += f"{study.lateral.projection} lateral (simulated, seed {seed})"
        where, ink = (4, 17), (0, 0, 0)
        cv2.putText(title, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, 1, cv2.LINE_AA)
        tiles = [tile(v, outlined) for outlined in (False, True) for v in study.views.values()]
        rows.append(np.vstack([title, np.hstack(tiles)]))
    return np.asarray(np.vstack(rows), np.uint8)


def tables() -> dict[str, str]:
    """The Markdown tables of ranges and of probabilities, by the name of their marker."""
    ranges = ["| Name | Low | High | What it is |", "|---|---|---|---|"]
    ranges += [f"| `{n}` | {r.low:g} | {r.high:g} | {r.meaning} |" for n, r in TABLE.items()]
    chances = ["| Habit or finding | Probability |", "|---|---|"]
    chances += [f"| `{name}` | {chance:g} |" for name, chance in PROBABILITIES.items()]
    return {"ranges": "\n".join(ranges), "probabilities": "\n".join(chances)}


def write_tables(page: Path) -> None:
    """Replaces what stands between the markers of a page by the tables of the code."""
    text = page.read_text()
    for name, table in tables().items():
        start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        _, marker, after = rest.partition(end)
        if not marker:
            raise SystemExit(f"{page} has no place for the table of {name}")
        text = before + start + table + end + after
    page.write_text(text)


def main() -> None:
    """Draws the contact sheet and rewrites the tables."""
    target = DOCS / "pictures" / "simulation.png"
    target.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(target), contact_sheet(), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    write_tables(DOCS / "simulation.md")
    print(f"{target}: {target.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
