"""The pictures and the table of docs/simulation.md.

    python -m benchmarks.simulation_pictures

Draws docs/pictures/simulation.png, one study of each cause with and without the outline of what is
diseased, and rewrites the tables of what is drawn from in docs/simulation.md between their markers.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.page_tables import table, write_tables
from hipnet_edge.simulation import SimulatedView, simulate_study
from hipnet_edge.simulation.clinical import CRP_MG_L, ESR_MM_H
from hipnet_edge.simulation.cups import CUPS, CupFamily
from hipnet_edge.simulation.dimensions import PREVALENCE, PROBABILITIES, SOUND, TABLE, Site
from hipnet_edge.simulation.stems import STEMS, StemFamily
from hipnet_edge.vocabulary import CAUSES, Cause

Picture = NDArray[np.uint8]

DOCS = Path(__file__).parent.parent / "docs"
SHOWN = (
    (Cause.PJI, Site.DEVELOPMENT, 9005),
    (Cause.ASEPTIC_LOOSENING, Site.DEVELOPMENT, 9011),
    (Cause.DISLOCATION, Site.SHIFTED, 9003),
    (Cause.PERIPROSTHETIC_FRACTURE, Site.DEVELOPMENT, 9001),
    (Cause.POLYETHYLENE_WEAR, Site.SHIFTED, 9006),
)
"""One study of each cause, chosen so that both sites, both laterals and a pelvis are seen."""
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
    for cause, site, seed in SHOWN:
        study = simulate_study(cause, seed, site=site)
        title = np.full((HEAD, 4 * TILE[1], 3), 255, np.uint8)
        text = f"{cause.label}: {study.sign_mm:.1f} mm; {study.laterality.value} hip, "
        text += f"{study.stem} stem, {study.cup} cup, {study.ap.projection}, "
        text += f"{study.lateral.projection} lateral ({site.value} site, seed {seed})"
        where, ink = (4, 17), (0, 0, 0)
        cv2.putText(title, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.42, ink, 1, cv2.LINE_AA)
        tiles = [tile(v, outlined) for outlined in (False, True) for v in study.views.values()]
        rows.append(np.vstack([title, np.hstack(tiles)]))
    return np.asarray(np.vstack(rows), np.uint8)


def tables() -> dict[str, str]:
    """The Markdown tables of what is drawn from, by the name of their marker."""
    return {
        "ranges": table(
            ("Name", "Development", "Shifted, if other", "What it is"),
            [
                (f"`{name}`", _span((row.low, row.high)), _span(row.shifted), row.meaning)
                for name, row in TABLE.items()
            ],
        ),
        "probabilities": table(
            ("Habit or finding", "Development", "Shifted, if other", "What it is"),
            [
                (f"`{name}`", f"{row.development:g}", _number(row.shifted), row.meaning)
                for name, row in PROBABILITIES.items()
            ],
        ),
        "prevalence": table(
            ("Cause", "Development", "Shifted"),
            [
                (cause.label, *(f"{PREVALENCE[cause].at(site):g}" for site in Site))
                for cause in CAUSES
            ]
            + [("(sound, of all)", *(f"{SOUND.at(site):g}" for site in Site))],
        ),
        "implants": table(
            ("Implant", "Site", "Share there", "Fixation"),
            [
                (f"{kind}: {family.name}", family.site.value, f"{family.share:g}", _fixed(family))
                for kind, families in (("stem", STEMS), ("cup", CUPS))
                for family in families
            ],
        ),
        "blood tests": table(
            ("Test", "Cause", "Median, severity 0", "Median, severity 1", "SD of the logarithm"),
            [
                (
                    test,
                    cause.label if cause else "all others, and sound",
                    f"{row.median:g}",
                    f"{row.median_if_severe:g}",
                    f"{row.sd_of_log:g}",
                )
                for test, rows in (("CRP, mg/L", CRP_MG_L), ("ESR, mm/h", ESR_MM_H))
                for cause, row in rows.items()
            ],
        ),
    }


def _span(span: tuple[float, float] | None) -> str:
    return "" if span is None else f"{span[0]:g} to {span[1]:g}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _fixed(family: StemFamily | CupFamily) -> str:
    return "cemented" if family.cemented else "cementless"


def main() -> None:
    """Draws the contact sheet and rewrites the tables."""
    target = DOCS / "pictures" / "simulation.png"
    target.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(target), contact_sheet(), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    write_tables(DOCS / "simulation.md", tables())
    print(f"{target}: {target.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
