"""The one worker function: a warm predictor that answers for a row of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hipnet_edge import __version__
from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import EngineUnusable, Fault, HipNetError, InputRefused, Reason, UsageError
from hipnet_edge.evaluation.run import (
    ANSWERED,
    FAILED,
    MISSING,
    PROBABILITIES,
    REFUSED,
    of_this_study,
    radiograph,
)
from hipnet_edge.evaluation.table import CohortRow
from hipnet_edge.prediction import Prediction
from hipnet_edge.predictor import Predictor
from hipnet_edge.vocabulary import VIEWS, View

Value = str | int | float | None
Answer = Mapping[str, Value]
"""The columns of one study; those that have no value may lack."""


@dataclass(frozen=True)
class Model:
    """What decides every answer beside the radiographs; each worker opens it for itself.

    Attributes:
        bundle: the folder, at the same place on every machine; None is the reference bundle.
        digest: of the bundle.
        backend, precision, exact: as `Predictor` takes them.
        hipnet_edge: the version of the package.
    """

    bundle: str | None
    digest: str
    backend: str
    precision: str
    exact: bool
    hipnet_edge: str = __version__

    @classmethod
    def choose(cls, bundle: Path | None, backend: str, precision: str, exact: bool) -> Model:
        """The model for a run.

        Raises:
            BundleUnusable: the bundle is missing, damaged or of another schema.
        """
        loaded = Bundle.reference() if bundle is None else Bundle.load(bundle)
        place = None if bundle is None else str(bundle.absolute())
        return cls(place, loaded.digest, backend, precision, exact)

    def to_dict(self) -> dict[str, object]:
        """What the answers depend on; where the bundle lies is not of it."""
        return {name: value for name, value in asdict(self).items() if name != "bundle"}

    def open(self) -> StudyReader:
        """A warm predictor with one thread: `Make` of a cohort.

        Raises:
            BundleUnusable, EngineUnusable: as `Predictor`.
            UsageError: another version or another bundle is installed here.
        """
        if self.hipnet_edge != __version__:
            raise UsageError(
                f"A worker has hipnet_edge {__version__}, not {self.hipnet_edge} as here."
            )
        return StudyReader(self._predictor())

    def open_chooser(self) -> Callable[[Model], Model]:
        """`Make` of a function that says what `auto` comes to here.

        Workers that each chose for themselves might choose differently: it goes by measurements.
        """
        with self._predictor() as predictor:
            backend, variant = predictor.backend, predictor.provenance.variant
        precision = next(name for name, made in backend.variants.items() if made == variant)
        return lambda model: replace(model, backend=backend.name, precision=precision)

    def _predictor(self) -> Predictor:
        bundle = Bundle.reference() if self.bundle is None else Bundle.load(self.bundle)
        if bundle.digest != self.digest:
            raise UsageError("A worker finds another bundle than the one that was named here.")
        return Predictor(
            bundle,
            backend=self.backend,
            precision=self.precision,
            threads=1,
            exact=self.exact,
        )


class StudyReader:
    """Answers for one study after another; a refusal is an answer."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def __call__(self, row: CohortRow) -> Answer:
        """The columns of a study.

        Raises:
            EngineUnusable: the engine is gone; other studies would fare no better.
        """
        try:
            ap, lateral = (radiograph(row, view) for view in VIEWS)
            prediction = self._predictor.predict(ap, lateral, laterality=row.side)
        except InputRefused as refusal:
            return without_result(REFUSED, refusal)
        except (Fault, EngineUnusable) as error:
            if not of_this_study(error):
                raise
            return without_result(FAILED, error)
        return columns_of(prediction)


def without_result(status: str, error: HipNetError) -> Answer:
    """The columns of a study without a result."""
    return {"status": status, "code": error.code.value, "message": error.message}


def missing_file() -> Answer:
    """The columns of a study of which a file is not there."""
    words = "A radiograph of this row is not where the table says."
    return without_result(MISSING, InputRefused(Reason.UNREADABLE_FILE, words))


def worker_died(deaths: int) -> Answer:
    """The columns of a study over which its workers died."""
    words = f"The process that read this study died, {deaths} times or more."
    return without_result(FAILED, Fault(words, Reason.WORKER_DIED))


def columns_of(prediction: Prediction) -> Answer:
    """The columns of a prediction, timings among them."""
    made, inputs = prediction.provenance, prediction.inputs
    probabilities = map(float, prediction.probabilities.values())
    return {
        "status": ANSWERED,
        "leading_cause": prediction.leading_cause.value,
        **dict(zip(PROBABILITIES, probabilities, strict=True)),
        "disagreement": prediction.disagreement,
        "novelty": prediction.novelty,
        "sign_of_failure": prediction.sign_of_failure,
        "plausible_causes": ";".join(cause.value for cause in prediction.plausible_causes),
        "flags": ";".join(flag.value for flag in prediction.flags),
        "side": inputs[View.AP].laterality.value,
        **{
            f"{view.value}_image": inputs[view].pixel_sha256 or inputs[view].encoded_sha256
            for view in VIEWS
        },
        "bundle": made.bundle_digest,
        "variant": made.variant,
        "engine": f"{made.backend} {made.backend_version}",
        **{f"{stage}_ms": round(took, 3) for stage, took in prediction.timings_ms.items()},
    }
