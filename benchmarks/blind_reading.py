"""Blind reading: can the five causes be told from the simulated pictures by the sign table alone?

    python benchmarks/blind_reading.py prepare --n 40 --seed 20260 --out DIR --key KEYS
    python benchmarks/blind_reading.py score --key KEYS/key.json --answers ANSWERS.json --out JSON

`prepare` writes pictures with hashed names and the reader's sheet into DIR, and which picture is
which into KEYS, never beside the pictures. A picture holds both views of one study as displayed,
cropped around hip and stem; where the crop lies is reckoned from the patient without the disease,
so that it gives nothing away.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from datetime import datetime, timezone
from math import sqrt
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hipnet_edge import __version__
from hipnet_edge.simulation import SimulatedView, simulate_study
from hipnet_edge.simulation.dimensions import Draws
from hipnet_edge.simulation.radiography import expose
from hipnet_edge.simulation.scene import FILM_STREAM, compose
from hipnet_edge.vocabulary import CAUSES, VIEWS, Cause, Laterality

READER = (
    "not a radiologist; a language model that had seen neither code nor labels, only the pictures "
    "and the sign table"
)
PICTURE = (1000, 700)
"""Rows and columns of one view in a picture."""
MARGIN_MM, BELOW_TIP_MM = 52.0, 40.0
"""What is shown around the prosthesis, and of the shaft below its tip."""

SHEET = """\
# Reader's sheet

Every PNG here is one study: the antero-posterior (AP) radiograph of a hip with a prosthesis on the
left, the lateral radiograph of the same hip on the right. Bone and metal are bright. The pictures
are simulated; each shows exactly one of five causes of failure. Call every picture from what you
see, even when unsure.

| Answer | Signs on AP and lateral |
|---|---|
| aseptic_loosening | continuous radiolucent line wider than 2 mm at the bone-implant or \
bone-cement interface, often bordered by a thin sclerotic line, over much of the stem (sometimes \
around the cup too); subsidence or tilt of the stem, a pedestal (bony plug) below the tip |
| pji | (infection) irregular, ill-defined lucency, focal scalloping of the endosteum, lamellated \
periosteal new bone on the outside of the femoral shaft (the sign that points to infection rather \
than loosening), soft-tissue swelling, occasionally gas |
| dislocation | head outside the cup: posterior-superior most often, anterior-inferior less; cup \
and stem otherwise sound |
| periprosthetic_fracture | lucent line through the cortex around or below the stem or at the \
greater trochanter, step-off, angulation, displaced fragment |
| polyethylene_wear | head eccentric in the cup, usually superolaterally, by 2-6 mm; with advanced \
wear lytic spots in the pelvis near the cup |

Not disease: a thin (under 2 mm) lucency with a sclerotic line along a part of the stem is stable
fibrous fixation. Cement, screws, cerclage wires, bowel gas, side letters (R, L), dark or white
collimated borders and thick soft tissue are normal too. The other hip, where it is in the picture,
does not count.

Answer with one JSON file: {"<name of the PNG without .png>": "<answer>", ...}, every picture once.
"""


def crop(view: SimulatedView, laterality: Laterality) -> NDArray[np.uint8]:
    """Hip, stem and some shaft below it [rows, columns], 8 bit, as displayed."""
    scene = compose(None, view.seed, view.site)
    draws = Draws(view.site, view.seed, FILM_STREAM, VIEWS.index(view.view))
    exposure = expose(scene, view.view, draws, view.pixel_spacing_mm)
    patient, level = scene.patient, scene.patient.neck_level
    tip = level - scene.prosthesis.stem_length - BELOW_TIP_MM
    corners = [[0.0, 0.0, 0.0], [patient.offset, 0.0, level], [patient.offset, 0.0, tip]]
    pose = exposure.poses["femur"]
    uv = exposure.beam.project(pose.apply(np.array(corners))) / view.pixel_spacing_mm
    if laterality is Laterality.RIGHT:
        uv[:, 0] = view.stored.shape[1] - uv[:, 0]
    low, high = uv.min(0), uv.max(0)
    low -= MARGIN_MM / view.pixel_spacing_mm
    high[0] += MARGIN_MM / view.pixel_spacing_mm
    rows, columns = PICTURE
    scale = min(columns / (high[0] - low[0]), rows / (high[1] - low[1]))
    shift = 0.5 * np.array([columns, rows]) - scale * 0.5 * (low + high)
    grey = (view.stored >> (view.bits_stored - 8)).astype(np.uint8)
    if scale < 1.0:  # averages what is made smaller, as a viewer does
        grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), 0.35 / scale), np.uint8)
    matrix = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
    return np.asarray(cv2.warpAffine(grey, matrix, (columns, rows), flags=cv2.INTER_LINEAR))


def prepare(n: int, seed: int, out: Path, key: Path) -> None:
    """Writes `n` pictures of balanced causes and the reader's sheet; the key elsewhere."""
    if out.resolve() == key.resolve() or out.resolve() in key.resolve().parents:
        raise SystemExit("the key must not lie beside the pictures")
    out.mkdir(parents=True, exist_ok=True)
    key.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    causes = rng.permutation(np.resize(np.arange(len(CAUSES)), n))
    studies = rng.choice(10**8, n, replace=False) + 10**8  # far from any seed used elsewhere
    entries: dict[str, dict[str, Any]] = {}
    for index, (cause, study_seed) in enumerate(zip(causes, studies, strict=True)):
        study = simulate_study(CAUSES[cause], int(study_seed))
        name = hashlib.sha256(f"{seed}/{index}/{study_seed}".encode()).hexdigest()[:10]
        gap = np.full((PICTURE[0], 12), 255, np.uint8)
        views = [crop(view, study.laterality) for view in (study.ap, study.lateral)]
        picture = out / f"{name}.png"
        cv2.imwrite(str(picture), np.hstack([views[0], gap, views[1]]))
        entries[name] = {
            "cause": CAUSES[cause].value,
            "seed": int(study_seed),
            "sign_mm": round(study.sign_mm, 2),
            "lateral": study.lateral.projection,
            "sha256": hashlib.sha256(picture.read_bytes()).hexdigest(),
        }
    (out / "READ-ME-FIRST.md").write_text(SHEET)
    stated = {"prepared_with_seed": seed, "hipnet_edge": __version__, "pictures": entries}
    (key / "key.json").write_text(json.dumps(stated, indent=1, sort_keys=True) + "\n")


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % confidence interval of a proportion after Wilson (1927)."""
    z, p = 1.959964, correct / n
    middle, half = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def proportion(correct: int, n: int) -> dict[str, Any]:
    """A proportion with its confidence interval, for JSON."""
    low, high = wilson(correct, n)
    interval = [round(low, 3), round(high, 3)]
    return {"correct": correct, "of": n, "value": round(correct / n, 3), "wilson_95": interval}


def score(key: dict[str, Any], answers: dict[str, str], reader: str = READER) -> dict[str, Any]:
    """The confusion table and what follows from it.

    Raises:
        ValueError: pictures without an answer, answers without a picture, or unknown causes.
    """
    pictures: dict[str, dict[str, Any]] = key["pictures"]
    if set(pictures) != set(answers):
        raise ValueError(f"pictures and answers differ: {sorted(set(pictures) ^ set(answers))}")
    called = {name: Cause(answer) for name, answer in answers.items()}
    confusion = {truth.value: {c.value: 0 for c in CAUSES} for truth in CAUSES}
    for name, picture in pictures.items():
        confusion[picture["cause"]][called[name].value] += 1
    hits = {c.value: confusion[c.value][c.value] for c in CAUSES}
    totals = {c.value: sum(confusion[c.value].values()) for c in CAUSES}
    return {
        "what": "blind reading of simulated studies by the sign table; no patient's radiograph",
        "reader": reader,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {
            "hipnet_edge": key["hipnet_edge"],
            "python": platform.python_version(),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
        },
        "prepared_with_seed": key["prepared_with_seed"],
        "chance_level": round(max(totals.values()) / len(pictures), 3),
        "accuracy": proportion(sum(hits.values()), len(pictures)),
        "recall": {c: proportion(hits[c], totals[c]) for c in hits if totals[c]},
        "confusion_rows_truth_columns_called": confusion,
        "pictures": {
            name: {**picture, "called": called[name].value}
            for name, picture in sorted(pictures.items())
        },
    }


def main() -> None:
    """Command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("prepare", help="write pictures, reader's sheet and key")
    one.add_argument("--n", type=int, default=40)
    one.add_argument("--seed", type=int, required=True)
    one.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    one.add_argument("--key", type=Path, required=True, help="folder of the key, elsewhere")
    two = commands.add_parser("score", help="compare a reader's answers with the key")
    two.add_argument("--key", type=Path, required=True)
    two.add_argument("--answers", type=Path, required=True)
    two.add_argument("--reader", default=READER, help="who read; stands in the result")
    two.add_argument("--remark", action="append", default=[], help="how the reading went")
    two.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.command == "prepare":
        prepare(given.n, given.seed, given.out, given.key)
        print(f"{given.n} pictures in {given.out}; the key is in {given.key}")
        return
    key, answers = (json.loads(path.read_text()) for path in (given.key, given.answers))
    result = score(key, answers, given.reader)
    result["remarks"] = given.remark
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    accuracy = result["accuracy"]
    print(f"{accuracy['correct']} of {accuracy['of']}, 95 % {accuracy['wilson_95']}")


if __name__ == "__main__":
    main()
