r"""Compare simulated films with the two real radiographs that pydicom-data carries.

    python -m benchmarks.film_comparison --out benchmarks/results/film_comparison.json \
        --picture docs/pictures/film_comparison.png

RG1 is a chest and RG3 a lower leg, both computed radiography of the last century: n = 2, other
anatomy, no metal, and neither header states a usable pixel spacing (0.2 mm is assumed, the usual
one of such plates). What is compared are a film's noise, sharpness and grey levels, not its hip.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.data import get_testdata_file

from export.provenance import made_here, write
from hipnet_edge import Radiograph
from hipnet_edge.collimation import find_collimation
from hipnet_edge.simulation import simulate_study
from hipnet_edge.simulation.dimensions import Site
from hipnet_edge.vocabulary import CAUSES

Grey = NDArray[np.float32]
Numbers = NDArray[np.float64]

SPACING_MM = 0.2
REAL = ("RG1", "RG3")
PATCH = 64
"""Pixels along the side of a patch whose noise is measured: 12.8 mm."""
FLATTEST = 0.05
"""Part of a film's patches that is taken for flat."""
FREQUENCIES = np.linspace(0.15, 2.4, 16)
"""Edges of the bands of the noise spectrum, cycles per mm."""
BINS = np.linspace(0.0, 1.0, 51)
EDGES, REACH_MM, STEP_MM = 200, 2.0, 0.05


@dataclass(frozen=True)
class Measured:
    """What one film shows.

    Attributes:
        noise: power of flat patches in the bands of `FREQUENCIES`, squared grey levels times mm2.
        spread: standard deviation of those patches.
        edge_mm: 10-90 % width of its steepest edges.
        histogram: share of its pixels in `BINS`, collimation left out.
        grey: grey levels at 5, 25, 50, 75 and 95 % of its pixels.
    """

    noise: Numbers
    spread: float
    edge_mm: Numbers
    histogram: Numbers
    grey: Numbers


def measure(film: Grey) -> Measured:
    """Measure a film [rows, columns] of grey levels, bone bright."""
    scale = 320 / max(film.shape)
    small = cv2.resize(film, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    field = find_collimation(np.asarray(small, np.float32))
    seen = film[
        round(field.top / scale) : round(field.bottom / scale),
        round(field.left / scale) : round(field.right / scale),
    ]
    noise, spread = noise_spectrum(seen)
    histogram, _ = np.histogram(np.clip(seen, 0.0, 1.0), BINS)
    return Measured(
        noise=noise,
        spread=spread,
        edge_mm=edge_widths(seen),
        histogram=histogram / histogram.sum(),
        grey=np.quantile(seen, [0.05, 0.25, 0.5, 0.75, 0.95]),
    )


def noise_spectrum(film: Grey) -> tuple[Numbers, float]:
    """Power spectrum of a film's flattest patches after a quadratic fit, and their spread."""
    v, u = np.mgrid[-1 : 1 : PATCH * 1j, -1 : 1 : PATCH * 1j]
    terms = np.stack([u**0, u, v, u * u, u * v, v * v], -1).reshape(-1, 6)
    fit = terms @ np.linalg.pinv(terms)
    patches = []
    for row in range(0, film.shape[0] - PATCH, PATCH):
        for column in range(0, film.shape[1] - PATCH, PATCH):
            patch = film[row : row + PATCH, column : column + PATCH].astype(np.float64)
            if 0.1 < patch.mean() < 0.95:
                flat = patch.ravel() - fit @ patch.ravel()
                if flat.std() > 1e-4:  # what is saturated has no noise to measure
                    patches.append(flat.reshape(PATCH, PATCH))
    if not patches:
        return np.full(len(FREQUENCIES) - 1, np.nan), float("nan")
    patches.sort(key=lambda patch: float(cv2.GaussianBlur(patch, (0, 0), 3.0).std()))
    flattest = np.array(patches[: max(3, round(FLATTEST * len(patches)))])
    window = np.outer(np.hanning(PATCH), np.hanning(PATCH))
    power = np.abs(np.fft.fft2(flattest * window)) ** 2 * SPACING_MM**2 / (window**2).sum()
    axis = np.fft.fftfreq(PATCH, SPACING_MM)
    frequency = np.hypot(axis[:, None], axis[None, :])
    bands = np.digitize(frequency, FREQUENCIES) - 1
    mean = power.mean(0)
    spectrum = np.array([mean[bands == band].mean() for band in range(len(FREQUENCIES) - 1)])
    return spectrum, float(np.median(flattest.std((1, 2))))


def edge_widths(film: Grey) -> Numbers:
    """10-90 % widths, mm, of a film's steepest edges, one from each neighbourhood."""
    smooth = cv2.GaussianBlur(film, (0, 0), 1.0)
    across, down = (np.asarray(cv2.Scharr(smooth, cv2.CV_32F, *d)) for d in ((1, 0), (0, 1)))
    slope = np.hypot(across, down)
    margin = round(2 * REACH_MM / SPACING_MM)
    slope[:margin], slope[-margin:], slope[:, :margin], slope[:, -margin:] = 0, 0, 0, 0
    peak = slope >= cv2.dilate(slope, np.ones((25, 25), np.uint8))
    rows, columns = np.nonzero(peak & (slope > 0))
    first = np.argsort(slope[rows, columns])[::-1][:EDGES]
    rows, columns = rows[first], columns[first]
    length = slope[rows, columns]
    along = np.arange(-REACH_MM, REACH_MM + STEP_MM, STEP_MM) / SPACING_MM
    x = columns[:, None] + along * (across[rows, columns] / length)[:, None]
    y = rows[:, None] + along * (down[rows, columns] / length)[:, None]
    profiles = cv2.remap(film, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    low, high = profiles.min(1, keepdims=True), profiles.max(1, keepdims=True)
    part = (profiles - low) / np.maximum(high - low, 1e-6)
    middle = part.shape[1] // 2
    right = np.argmax(part[:, middle:] > 0.9, axis=1)
    left = np.argmax(part[:, middle::-1] < 0.1, axis=1)
    found = (right > 0) & (left > 0)
    return np.asarray((right + left)[found] * STEP_MM, np.float64)


def _summary(films: list[Measured]) -> dict[str, Any]:
    noise = np.array([film.noise for film in films])
    edges = np.array([np.quantile(film.edge_mm, 0.1) for film in films])
    slopes = [_slope(film.noise) for film in films]

    def spread(values: Any) -> list[float]:
        return [float(f"{x:.4g}") for x in np.nanquantile(np.asarray(values), [0.1, 0.5, 0.9])]

    return {
        "films": len(films),
        "noise_spectrum": [float(f"{x:.4g}") for x in np.nanmedian(noise, axis=0)],
        "noise_spread_10_50_90": spread([film.spread for film in films]),
        "noise_decades_0.5_to_2_per_mm_10_50_90": spread(slopes),
        "sharpest_tenth_edge_mm_10_50_90": spread(edges),
        "grey_at_5_25_50_75_95": [
            float(f"{x:.3g}") for x in np.median([film.grey for film in films], axis=0)
        ],
    }


def _slope(noise: Numbers) -> float:
    """Decades by which the noise's power changes from 0.5 to 2 cycles per mm."""
    middle = 0.5 * (FREQUENCIES[1:] + FREQUENCIES[:-1])
    at = np.interp([0.5, 2.0], middle, np.log10(noise))
    return float(at[1] - at[0])


def _draw(measured: dict[str, list[Measured]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (spectrum, edges, grey) = pyplot.subplots(1, 3, figsize=(11, 3.4))
    middle = 0.5 * (FREQUENCIES[1:] + FREQUENCIES[:-1])
    colours = dict(zip(measured, ("black", "dimgrey", "tab:blue", "tab:orange"), strict=True))
    for name, films in measured.items():
        colour, style = colours[name], "--" if name == "RG3" else "-"
        label = name if name in REAL else f"simulated, {name} (n = {len(films)})"
        noise = np.array([film.noise for film in films])
        widths = np.sort(np.concatenate([film.edge_mm for film in films]))
        shares = np.array([film.histogram for film in films])
        spectrum.semilogy(middle, np.nanmedian(noise, 0), style, color=colour, label=label)
        edges.plot(widths, np.linspace(0, 1, len(widths)), style, color=colour)
        bins = 0.5 * (BINS[1:] + BINS[:-1])
        grey.semilogy(bins, np.maximum(shares.mean(0), 1e-4), style, color=colour)
        if len(films) > 1:
            band = np.nanquantile(noise, [0.1, 0.9], axis=0)
            spectrum.fill_between(middle, *band, color=colour, alpha=0.2, linewidth=0)
    spectrum.set(title="Noise of flat patches", xlabel="cycles per mm", ylabel="power, grey² mm²")
    edges.set(title="Steepest edges", xlabel="10-90 % width, mm", ylabel="share of edges narrower")
    edges.set_xlim(0, 3)
    grey.set(title="Grey levels", xlabel="grey (bone bright)", ylabel="share of pixels")
    figure.suptitle("Simulated films and two real radiographs of other anatomy (n = 2)")
    figure.legend(*spectrum.get_legend_handles_labels(), loc="lower center", ncol=4, fontsize=8)
    figure.tight_layout(rect=(0.0, 0.07, 1.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _real(name: str) -> Grey:
    path = get_testdata_file(f"{name}_UNCR.dcm", download=False)
    if path is None:
        raise click.ClickException("this needs pydicom-data")
    return Radiograph.from_dicom(pydicom.dcmread(str(path))).grey_levels()


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--picture", type=click.Path(path_type=Path), required=True)
@click.option("--films", default=24, show_default=True, help="Simulated films of each site.")
def main(out: Path, picture: Path, films: int) -> None:
    """Measure, write and draw."""
    cv2.setNumThreads(1)
    measured = {name: [measure(_real(name))] for name in REAL}
    for site in Site:
        measured[site.value] = []
        for seed in range(films):
            cause = CAUSES[seed % len(CAUSES)]
            study = simulate_study(cause, 70_000 + seed, site=site, pixel_spacing_mm=SPACING_MM)
            view = (study.ap, study.lateral)[seed % 2]
            measured[site.value].append(measure(view.stored.astype(np.float32) / 16383.0))
    report = {
        "what": "noise, sharpness and grey levels of simulated films and of two real radiographs",
        "caution": "n = 2, other anatomy (chest, lower leg), no metal; 0.2 mm pixels are assumed",
        **made_here("opencv-python-headless", "numpy", "pydicom"),
        "pixel_spacing_mm": SPACING_MM,
        "band_edges_per_mm": [round(float(x), 3) for x in FREQUENCIES],
        "films": {name: _summary(found) for name, found in measured.items()},
    }
    write(report, out)
    _draw(measured, picture)
    for name, found in report["films"].items():
        print(name, json.dumps(found))


if __name__ == "__main__":
    main()
