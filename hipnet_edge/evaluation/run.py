"""Every study of a cohort predicted once, each answer on disk before the next is waited for.

`answers.csv` is a log: a line is written whole and flushed to the disk, a line that a crash cut
short is taken away by the next run, which goes on from there. A study is known again by its files
(path, size, time of change) and its row, so that a mended file or label is predicted anew.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hipnet_edge.backends.cores import available_cores
from hipnet_edge.errors import EngineUnusable, Fault, HipNetError, InputRefused, Reason, UsageError
from hipnet_edge.evaluation.maps import area_fraction
from hipnet_edge.evaluation.sample import SOUND
from hipnet_edge.evaluation.table import CohortRow
from hipnet_edge.image_files import IMAGE_SUFFIXES
from hipnet_edge.radiograph import Radiograph
from hipnet_edge.vocabulary import CAUSES, VIEWS, View
from hipnet_edge.workers import Workers

if TYPE_CHECKING:
    from hipnet_edge.prediction import InputRecord, Prediction
    from hipnet_edge.predictor import Predictor

logger = logging.getLogger(__name__)

ANSWERED, REFUSED, MISSING, FAILED = "answered", "refused", "missing", "failed"
PROBABILITIES = tuple(f"p_{cause.value}" for cause in CAUSES)
FIELDS = (
    "key",
    "status",
    "code",
    *PROBABILITIES,
    "disagreement",
    "novelty",
    "sign_of_failure",
    "flags",
    "side",
    "ap_image",
    "lateral_image",
    "ap_cell_mm",
    "lateral_cell_mm",
    "masks",
    "total_ms",
)
"""Of `answers.csv`; `docs/validation.md` says what each holds."""
LOG_NAME, MAPS_NAME, MADE_BY_NAME = "answers.csv", "maps", "run.json"

Answer = dict[str, str]
"""One line of the log."""


@dataclass(frozen=True)
class CohortRun:
    """Where the answers of one predictor to one cohort are kept.

    Attributes:
        folder: of the report.
        predictor: answers.
        threads: studies under way at once.
    """

    folder: Path
    predictor: Predictor
    threads: int

    @classmethod
    def begin(cls, folder: Path, predictor: Predictor, threads: int | None) -> CohortRun:
        """Claim a folder, or go on with the run that it holds.

        Raises:
            UsageError: it holds something else, or the answers of another model or engine.
        """
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / MADE_BY_NAME
        text = json.dumps(made_by(predictor), indent=1, sort_keys=True) + "\n"
        if mark.exists():
            if mark.read_text(encoding="utf-8") != text:
                raise UsageError(
                    f"{folder} holds answers of another bundle, engine, precision or version; "
                    "name another folder."
                )
        elif any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty and holds no validation; name another folder.")
        write_whole(mark, text)
        (folder / MAPS_NAME).mkdir(exist_ok=True)
        return cls(folder, predictor, threads or available_cores())

    def answers(
        self, rows: Iterable[CohortRow], progress: Callable[[], object] = lambda: None
    ) -> dict[int, Answer]:
        """The answer to every row by its line, as far as possible from the log.

        Args:
            rows: of the table.
            progress: called after each of them.

        Raises:
            EngineUnusable: the engine is gone; what was answered is kept.
        """
        log = self.folder / LOG_NAME
        known, found, open_rows = read_log(log), {}, []
        for row in rows:
            key = study_key(row)
            if key is None:
                found[row.line] = {"status": MISSING, "code": Reason.UNREADABLE_FILE.value}
            elif key in known and self._map_is_there(known[key]):
                found[row.line] = known[key]
            else:
                open_rows.append((row, key))
                continue
            progress()
        logger.debug("cohort: %d studies known, %d to predict", len(found), len(open_rows))
        for (row, _), answer in zip(open_rows, self._predicted(log, open_rows), strict=True):
            found[row.line] = answer
            progress()
        return found

    def _predicted(self, log: Path, rows: list[tuple[CohortRow, str]]) -> Iterator[Answer]:
        """Answers in the order of the rows, each logged before it is given."""
        workers = Workers(self.threads)
        with log.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS, restval="", lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            try:
                work = partial(_answer, self.predictor, self.folder / MAPS_NAME)
                ahead = 0 if self.threads == 1 else self.threads
                for answer in workers.ahead(work, rows, ahead):
                    writer.writerow(answer)
                    file.flush()
                    os.fsync(file.fileno())
                    yield answer
            finally:
                workers.close()

    def _map_is_there(self, answer: Answer) -> bool:
        return not answer["masks"] or self.map_of(answer) is not None

    def map_of(self, answer: Answer) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """The map of a study's true cause and the diseased part of its cells, [2, h, w] each."""
        if not answer.get("masks"):
            return None
        try:
            with np.load(self.folder / MAPS_NAME / f"{answer['key']}.npz") as kept:
                return kept["map"], kept["truth"].astype(np.float32)
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            return None


def made_by(predictor: Predictor) -> dict[str, Any]:
    """What decides an answer beside the radiographs."""
    made = predictor.provenance
    return {
        "bundle": {
            "name": made.bundle_name,
            "version": made.bundle_version,
            "digest": made.bundle_digest,
        },
        **({"overlay": made.overlay_digest} if made.overlay_digest else {}),
        "precision": made.variant,
        "engine": {"name": made.backend, "version": made.backend_version, "device": made.device},
        "exact": predictor.info()["exact"],
        "hipnet_edge": made.package_version,
    }


def read_log(log: Path) -> dict[str, Answer]:
    """The answers of a log by their key; a line that was cut short is removed from the file."""
    if not log.exists():
        return {}
    content = log.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with log.open("r+b") as file:
            file.truncate(len(whole))
    lines = whole.decode("utf-8").splitlines()
    if lines and lines[0] != ",".join(FIELDS):
        raise UsageError(f"{log} is of another version of hipnet-edge; name another folder.")
    return {line["key"]: line for line in csv.DictReader(lines)}


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def study_key(row: CohortRow) -> str | None:
    """What a study is known by; None where a radiograph is not there."""
    facts: list[object] = [row.cause, row.side, str(row.numbers["pixel_spacing_mm"])]
    for files in (row.files, row.masks):
        for view, path in files.items():
            try:
                status = path.stat()
            except OSError:
                if files is row.files:
                    return None
                continue
            facts += [view.value, str(path.resolve()), status.st_size, status.st_mtime_ns]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def radiograph(row: CohortRow, view: View) -> Radiograph | Path:
    """A view as a predictor takes it: image files carry no header, so the table speaks for them."""
    path = row.files[view]
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return path
    spacing = row.numbers["pixel_spacing_mm"]
    return Radiograph.from_image(
        path,
        view=view,
        anatomy="hip",
        pixel_spacing_mm=spacing if np.isfinite(spacing) and spacing > 0 else None,
    )


def _answer(predictor: Predictor, maps: Path, study: tuple[CohortRow, str]) -> Answer:
    row, key = study
    try:
        ap, lateral = (radiograph(row, view) for view in VIEWS)
        prediction = predictor.predict(ap, lateral, laterality=row.side)
        if predictor.overlay is not None:
            predictor.overlay.require_unseen(prediction)
    except InputRefused as refusal:
        return {"key": key, "status": REFUSED, "code": refusal.code.value}
    except (Fault, EngineUnusable) as error:
        if not of_this_study(error):
            raise
        return {"key": key, "status": FAILED, "code": error.code.value}
    return {
        "key": key,
        "status": ANSWERED,
        **_numbers(prediction),
        "masks": "" if row.cause == SOUND else _keep_map(maps / f"{key}.npz", row, prediction),
    }


def of_this_study(error: HipNetError) -> bool:
    """Whether an error says nothing of the studies that follow."""
    return isinstance(error, Fault) or error.code is Reason.NON_FINITE_OUTPUT


def _numbers(prediction: Prediction) -> Answer:
    """A prediction as cells; numbers with all their digits."""
    inputs = prediction.inputs
    cells_mm = {f"{view.value}_cell_mm": _cell_mm(inputs[view], prediction) for view in VIEWS}
    values: dict[str, float | None] = {
        **dict(zip(PROBABILITIES, prediction.probabilities.values(), strict=True)),
        "disagreement": prediction.disagreement,
        "novelty": prediction.novelty,
        "sign_of_failure": prediction.sign_of_failure,
        **cells_mm,
    }
    return {
        **{name: "" if value is None else repr(float(value)) for name, value in values.items()},
        "flags": ";".join(flag.value for flag in prediction.flags),
        "side": inputs[View.AP].laterality.value,
        **{
            f"{view.value}_image": inputs[view].pixel_sha256 or inputs[view].encoded_sha256 or ""
            for view in VIEWS
        },
        "total_ms": f"{prediction.timings_ms['total']:.1f}",
    }


def _cell_mm(record: InputRecord, prediction: Prediction) -> float | None:
    """The side of a map's cell on the detector."""
    if record.pixel_spacing is None:
        return None
    rows = prediction.maps[record.view].shape[1]
    return float(record.geometry.box.height / rows * record.pixel_spacing.row_mm)


def _keep_map(file: Path, row: CohortRow, prediction: Prediction) -> str:
    """Store the map of the true cause beside the mask; says which views have a mask."""
    truth, drawn = [], []
    for view in VIEWS:
        record = prediction.inputs[view]
        cells = prediction.maps[view].shape[1:]
        mask = _mask(row, view, record.shape)
        if mask is None:
            truth.append(np.full(cells, np.nan, np.float16))
        else:
            cell = record.geometry.network_shape[0] // cells[0]
            truth.append(area_fraction(record.geometry.image_to_network(mask), cell))
            drawn.append(view.value)
    if drawn:
        own = np.stack([prediction.maps[view][row.cause] for view in VIEWS])
        part = file.with_name(file.name + ".part")
        with part.open("wb") as opened:
            np.savez_compressed(opened, map=own, truth=np.stack(truth))
            os.fsync(opened.fileno())
        part.replace(file)
    return ";".join(drawn)


def _mask(row: CohortRow, view: View, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """A view's mask; None where there is none that can be read and fits the radiograph."""
    path = row.masks.get(view)
    mask = None if path is None else cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    return None if mask is None or mask.shape != shape else np.asarray(mask > 0)
