"""The daily check of an installed device: known studies must give their stored answers.

A bundle's `selftest.json` holds, for each variant, answers to two kinds of question. *Patterns*
are fixed network inputs made of whole-number arithmetic: they test the engine alone. *Studies*
are simulated and go the whole way, from a DICOM object on. Should another version of NumPy draw
other random numbers, the studies themselves differ from those whose answers are stored; that is
said, and they are not held against the device.

A variant that could not be run where its bundle was made, such as one for a GPU, has no answers of
its own, and INT8 and BF16 give other ones in another engine: those are held to the reference's,
within what the gate allows a probability to change.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.errors import BundleUnusable, EngineUnusable, InputRefused, Reason
from hipnet_edge.fields import Fields
from hipnet_edge.prediction import distribution, view_maps
from hipnet_edge.preprocessing import preprocess_study
from hipnet_edge.radiograph import Radiograph
from hipnet_edge.study import Study
from hipnet_edge.verdict import REFERENCE, Gate
from hipnet_edge.vocabulary import CAUSES, VIEWS, Cause, View

if TYPE_CHECKING:
    from hipnet_edge.predictor import Predictor

SELFTEST_FILE = "selftest.json"
SCHEMA = 1
TOLERANCE = 1e-3
"""Largest difference of a probability: engines and processors round differently, by 1e-5."""

PASSED, FAILED, NOT_COMPARABLE = "passed", "failed", "not_comparable"


@dataclass(frozen=True)
class KnownStudy:
    """Which simulated study is predicted: the arguments of `simulate_study`."""

    cause: Cause | None
    seed: int
    pixel_spacing_mm: float = 0.16

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return f"study {self.cause.value if self.cause else 'sound'}, seed {self.seed}"


@dataclass(frozen=True)
class SelftestCheck:
    """How one known question was answered."""

    name: str
    outcome: str
    """`passed`, `failed`, or `not_comparable`: the simulated radiographs themselves differ."""
    largest_difference: float | None
    """The largest difference of a probability or of a map's peak; None if there is no answer."""
    detail: str
    """One sentence: what differs, and from which stage on."""


@dataclass(frozen=True)
class SelftestReport:
    """The outcome of a self-test and of each of its checks."""

    bundle: str
    bundle_digest: str
    variant: str
    backend: str
    backend_version: str
    checks: tuple[SelftestCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(check.outcome != FAILED for check in self.checks)

    def raise_for_failure(self) -> None:
        """Raise if the self-test failed.

        Raises:
            EngineUnusable: SELFTEST_FAILED, naming what failed.
        """
        failed = [check for check in self.checks if check.outcome == FAILED]
        if failed:
            named = "; ".join(f"{check.name}: {check.detail}" for check in failed)
            raise EngineUnusable(f"The self-test failed ({named}).", Reason.SELFTEST_FAILED)

    def to_dict(self) -> dict[str, object]:
        """The report as a JSON object."""
        return {**asdict(self), "passed": self.passed}


def selftest(predictor: Predictor) -> SelftestReport:
    """Put the known questions of the predictor's bundle to it and compare the answers.

    Raises:
        BundleUnusable: the bundle has no self-test, or none for this variant.
        EngineUnusable: the engine failed altogether.
    """
    manifest, info = predictor.bundle.manifest, predictor.provenance
    if SELFTEST_FILE not in manifest.files:
        raise BundleUnusable(f"The bundle {manifest.name} brings no self-test.")
    fields = _open(predictor.bundle.read(SELFTEST_FILE)).child("answers")
    own = info.variant in fields and (
        info.variant == REFERENCE or _answered_by(fields.child(info.variant)) == info.backend
    )
    if not own and REFERENCE not in fields:
        raise BundleUnusable(
            f"The bundle {manifest.name} brings no self-test for its variant {info.variant}."
        )
    answers = fields.child(info.variant if own else REFERENCE)
    limits = (manifest.gate or Gate()).limits
    allowed = TOLERANCE if own else limits.probability_change_p99
    checks = [_check_pattern(predictor, stored, allowed) for stored in answers.children("patterns")]
    checks += [_check_study(predictor, stored, allowed) for stored in answers.children("studies")]
    return SelftestReport(
        bundle=manifest.name,
        bundle_digest=manifest.digest,
        variant=info.variant,
        backend=info.backend,
        backend_version=info.backend_version,
        checks=tuple(checks),
    )


def write_selftest(
    folder: str | os.PathLike[str],
    studies: Iterable[KnownStudy],
    *,
    patterns: Iterable[int] = (0, 1),
    precision: str = "auto",
    backend: str = "auto",
) -> Path:
    """Store the answers that a bundle gives now, and list the file in its manifest.

    Called once, when a bundle is made; answers of other variants already stored are kept.

    Args:
        folder: a complete bundle, with or without a self-test.
        studies: the studies to predict.
        patterns: seeds of the fixed network inputs.
        precision: which variant answers.
        backend: which backend answers.

    Returns:
        The path of `selftest.json`.
    """
    from hipnet_edge.predictor import Predictor

    path = Path(folder) / SELFTEST_FILE
    with Predictor(folder, backend=backend, precision=precision, threads=1) as predictor:
        answers: dict[str, object] = {}
        if SELFTEST_FILE in predictor.bundle.manifest.files:
            stored = _open(predictor.bundle.read(SELFTEST_FILE))
            answers.update(stored.mapping("answers"))
        answers[predictor.provenance.variant] = {
            "backend": predictor.backend.name,
            "patterns": [
                {"seed": seed, **_answer(*_infer_pattern(predictor, seed))} for seed in patterns
            ],
            "studies": [_describe(predictor, study) for study in studies],
        }
    text = json.dumps({"schema": SCHEMA, "answers": answers}, indent=1) + "\n"
    path.write_text(text, encoding="utf-8")
    _declare(path)
    return path


def _open(content: bytes) -> Fields:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleUnusable(f"The bundle's {SELFTEST_FILE} is not JSON.") from error
    fields = Fields(value, "", _complain)
    fields.integer("schema", SCHEMA, SCHEMA)
    return fields


def _answered_by(answers: Fields) -> str:
    """The backend that gave stored answers; older bundles do not name it."""
    return answers.text("backend") if "backend" in answers else "onnxruntime"


def _complain(what: str) -> BundleUnusable:
    return BundleUnusable(f"The bundle's {SELFTEST_FILE} is unusable: {what}")


def _declare(path: Path) -> None:
    """Enter a file's size and digest in the manifest beside it."""
    manifest_path = path.with_name("manifest.json")
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    content = path.read_bytes()
    manifest["files"][path.name] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    manifest_path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


Maps = Mapping[View, NDArray[np.float32]]


def _infer_pattern(predictor: Predictor, seed: int) -> tuple[Mapping[Cause, float], Maps]:
    outputs = predictor.backend.infer(predictor.backend.signature.test_pattern(seed))
    return distribution(outputs.probabilities[0]), view_maps(outputs.maps[0])


def _infer_study(predictor: Predictor, study: Study) -> tuple[Mapping[Cause, float], Maps]:
    """What the network itself says of a study, without a site's overlay."""
    prepared = preprocess_study(study, predictor.bundle.manifest.input)
    outputs = predictor.backend.infer(prepared.radiographs[np.newaxis])
    return distribution(outputs.probabilities[0]), view_maps(outputs.maps[0])


def _simulate(known: KnownStudy) -> Study:
    """The known study, read from DICOM objects as any other."""
    from hipnet_edge.simulation import simulate_study

    simulated = simulate_study(known.cause, known.seed, pixel_spacing_mm=known.pixel_spacing_mm)
    ap, lateral = (Radiograph.from_dicom(simulated.views[view].to_dataset()) for view in VIEWS)
    return Study(ap, lateral, laterality=simulated.laterality)


def _input_sha256(predictor: Predictor, study: Study) -> str:
    prepared = preprocess_study(study, predictor.bundle.manifest.input)
    return hashlib.sha256(prepared.radiographs.astype("<f4").tobytes()).hexdigest()


def _answer(probabilities: Mapping[Cause, float], maps: Maps) -> dict[str, Any]:
    """What is stored of an answer: the probabilities, and each map's peak and its place."""
    return {
        "probabilities": {cause.value: round(probabilities[cause], 6) for cause in CAUSES},
        "peaks": {
            view.value: {
                cause.value: _peak(maps[view][index]) for index, cause in enumerate(CAUSES)
            }
            for view in VIEWS
        },
    }


def _peak(probability: NDArray[np.float32]) -> dict[str, Any]:
    row, column = divmod(int(probability.argmax()), probability.shape[1])
    return {"row": row, "column": column, "value": round(float(probability[row, column]), 6)}


def _describe(predictor: Predictor, known: KnownStudy) -> dict[str, Any]:
    study = _simulate(known)
    return {
        "cause": known.cause.value if known.cause else None,
        "seed": known.seed,
        "pixel_spacing_mm": known.pixel_spacing_mm,
        "pixel_sha256": {view.value: study.views[view].pixel_sha256 for view in VIEWS},
        "input_sha256": _input_sha256(predictor, study),
        **_answer(*_infer_study(predictor, study)),
    }


def _check_pattern(predictor: Predictor, stored: Fields, allowed: float) -> SelftestCheck:
    seed = stored.integer("seed", 0, 2**31)
    difference = _difference(stored, *_infer_pattern(predictor, seed))
    if difference <= allowed:
        return SelftestCheck(f"pattern {seed}", PASSED, difference, "the engine answers as stored")
    return SelftestCheck(
        f"pattern {seed}", FAILED, difference, f"the engine's answer differs by {difference:.2g}"
    )


def _check_study(predictor: Predictor, stored: Fields, allowed: float) -> SelftestCheck:
    known = KnownStudy(
        cause=None if stored.raw("cause") is None else stored.member("cause", Cause),
        seed=stored.integer("seed", 0, 2**31),
        pixel_spacing_mm=stored.number("pixel_spacing_mm", 0.01, 10),
    )
    study = _simulate(known)
    digests = stored.child("pixel_sha256")
    same_pixels = all(study.views[view].pixel_sha256 == digests.text(view.value) for view in VIEWS)
    try:
        answer = _infer_study(predictor, study)
    except InputRefused as refusal:
        detail = f"refused as {refusal.code.value}"
        return SelftestCheck(known.name, _unlike(same_pixels), None, detail)
    difference = _difference(stored, *answer)
    if difference <= allowed:
        return SelftestCheck(known.name, PASSED, difference, "the answer is the stored one")
    if not same_pixels:
        since = "this machine simulates other pixels than those whose answer is stored"
    elif _input_sha256(predictor, study) != stored.text("input_sha256"):
        since = "the pixels are the same but the network's input differs"
    else:
        since = "the network's input is the same but its answer differs"
    detail = f"the answer differs by {difference:.2g}; {since}"
    return SelftestCheck(known.name, _unlike(same_pixels), difference, detail)


def _unlike(same_pixels: bool) -> str:
    return FAILED if same_pixels else NOT_COMPARABLE


def _difference(stored: Fields, probabilities: Mapping[Cause, float], maps: Maps) -> float:
    """The largest difference from a stored answer, in probabilities, peaks and at their places."""
    expected = stored.child("probabilities")
    differences = [
        abs(probabilities[cause] - expected.number(cause.value, 0, 1)) for cause in CAUSES
    ]
    for view in VIEWS:
        peaks = stored.child("peaks").child(view.value)
        for index, cause in enumerate(CAUSES):
            peak, here = peaks.child(cause.value), maps[view][index]
            row = peak.integer("row", 0, here.shape[0] - 1)
            column = peak.integer("column", 0, here.shape[1] - 1)
            value = peak.number("value", 0, 1)
            differences += [abs(float(here[row, column]) - value), abs(float(here.max()) - value)]
    return max(differences)
