"""How long the DICOM objects of one result take, how large they are, and why they are RLE.

    python -m benchmarks.dicom_results --out benchmarks/results/dicom_results.json

One simulated study of full size, read by the reference bundle. Processor milliseconds of one
thread, so that a busy machine changes little; medians of calls made in turns. Each includes the
object's bytes. `docs/dicom.md` shows the tables.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from benchmarks.latency_interleave import orders
from benchmarks.page_tables import ROOT, table, write_tables
from export.provenance import made_here, write
from hipnet_edge import CAUSES, Cause, Prediction, Predictor, Radiograph, Study, View
from hipnet_edge.dicom import ResultDataset, result_objects
from hipnet_edge.dicom.capture import capture
from hipnet_edge.dicom.encoding import pack_part
from hipnet_edge.dicom.filing import Filing
from hipnet_edge.dicom.identifiers import result_uids
from hipnet_edge.dicom.report import report
from hipnet_edge.dicom.segmentation import LEVELS, segmentation
from hipnet_edge.dicom.source import read_sources
from hipnet_edge.simulation import simulate_study
from hipnet_edge.simulation.dicom_writer import to_dataset

PAGE = ROOT / "docs" / "dicom.md"
ALL, ALL_AND_DECODING = "all, pixels at hand", "all, pixels decoded for the page"
Frames = list[NDArray[np.uint8]]
Files = tuple[bytes, bytes]


def simulated_files(spacing_mm: float) -> Files:
    """AP and lateral of one study, uncompressed, as the bytes of DICOM files."""
    study = simulate_study(Cause.PJI, 4, pixel_spacing_mm=spacing_mm)
    ap, lateral = (
        ResultDataset("source", to_dataset(view)).to_bytes() for view in (study.ap, study.lateral)
    )
    return ap, lateral


def objects(prediction: Prediction, files: Files) -> dict[str, Callable[[], object]]:
    """What makes each object, and what makes all of them, by name."""
    study = Study(*map(Radiograph.from_dicom, files))
    sources = read_sources(prediction, *files)
    uids = result_uids(prediction, sources, None)
    filing = Filing(prediction, sources, uids, None, datetime.now().astimezone())
    single = {
        "report": partial(report, filing),
        "segmentation_ap": partial(segmentation, filing, View.AP),
        "segmentation_lateral": partial(segmentation, filing, View.LATERAL),
        "capture": partial(capture, filing, study),
    }

    def everything(study: Study | None) -> list[bytes]:
        return [made.to_bytes() for made in result_objects(prediction, *files, study=study)]

    return {
        **{
            kind: lambda kind=kind, build=build: ResultDataset(kind, build()).to_bytes()  # type: ignore[misc]
            for kind, build in single.items()
        },
        ALL: partial(everything, study),
        ALL_AND_DECODING: partial(everything, None),
    }


def encodings(prediction: Prediction) -> dict[str, Callable[[], list[bytes]]]:
    """Ways to compress the five maps of the AP, by name; the first is the one used."""
    shape = prediction.inputs[View.AP].shape
    frames: Frames = [
        np.asarray(
            cv2.convertScaleAbs(
                prediction.map_for(View.AP, cause, full_resolution=True), alpha=LEVELS
            ),
            np.uint8,
        )
        for cause in CAUSES
    ]
    return {
        "RLE, runs alone": lambda: [pack_part(frame, (0, 0), shape) for frame in frames],
        "RLE, imagecodecs' PackBits": lambda: [
            bytes(imagecodecs.packbits_encode(frame, axis=-1)) for frame in frames
        ],
        "JPEG-LS, imagecodecs": lambda: [
            bytes(imagecodecs.jpegls_encode(frame)) for frame in frames
        ],
        "JPEG 2000, imagecodecs": lambda: [
            bytes(imagecodecs.jpeg2k_encode(frame, reversible=True)) for frame in frames
        ],
        "none": lambda: [frame.tobytes() for frame in frames],
    }


def processor_ms(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median processor milliseconds of each call, all made in every round in an order of its own.

    The first round is not counted.
    """
    taken = np.empty((rounds + 1, len(calls)))
    for row, order in zip(taken, orders(len(calls), rounds + 1, seed=0), strict=True):
        for chosen in order:
            call = list(calls.values())[chosen]
            started = time.process_time()
            call()
            row[chosen] = 1e3 * (time.process_time() - started)
    medians = np.median(taken[1:], axis=0)
    return {name: round(float(median), 1) for name, median in zip(calls, medians, strict=True)}


def measure(prediction: Prediction, files: Files, rounds: int) -> dict[str, Any]:
    """All of the report but its provenance."""
    made, packed = objects(prediction, files), encodings(prediction)
    sizes: dict[str, int] = {
        result.kind: len(result.to_bytes()) for result in result_objects(prediction, *files)
    }
    sizes |= dict.fromkeys((ALL, ALL_AND_DECODING), sum(sizes.values()))
    medians = processor_ms(made | packed, rounds)
    return {
        "what": "median processor milliseconds and bytes of each object of one result, one thread",
        "sizes": {view.value: list(prediction.inputs[view].shape) for view in View},
        "rounds": rounds,
        "objects": [{"object": name, "ms": medians[name], "bytes": sizes[name]} for name in made],
        "encodings_of_five_maps": [
            {"encoding": name, "ms": medians[name], "bytes": sum(map(len, call()))}
            for name, call in packed.items()
        ],
    }


def tables(measured: Mapping[str, Any]) -> dict[str, str]:
    """The two tables of the page, by the names of their places."""

    def rows(entries: list[dict[str, Any]], name: str) -> list[tuple[str, str, str]]:
        return [
            (f"{entry[name]}", f"{entry['ms']:.0f}", f"{entry['bytes'] / 1000:,.0f}")
            for entry in entries
        ]

    return {
        "times": table(("Object", "ms", "kB"), rows(measured["objects"], "object")),
        "encodings": table(
            ("Five maps of the AP", "ms", "kB"),
            rows(measured["encodings_of_five_maps"], "encoding"),
        ),
    }


@click.command(help=__doc__)
@click.option("--rounds", type=click.IntRange(min=2), default=15, help="Timed calls of each.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Report as JSON.")
def main(rounds: int, out: Path) -> None:
    """Measure, write, and show on the page."""
    cv2.setNumThreads(1)
    files = simulated_files(0.16)
    with Predictor.reference(threads=1) as predictor:
        prediction = predictor.predict(*files)
    packages = ("highdicom", "pydicom", "numpy", "opencv-python-headless", "imagecodecs")
    measured = {**measure(prediction, files, rounds), **made_here(*packages)}
    write(measured, out)
    write_tables(PAGE, tables(measured))
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
