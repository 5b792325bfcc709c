"""The way in: read two radiographs, check the pair, preprocess, infer, answer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from hipnet_edge import __version__
from hipnet_edge.backends import Backend, Choice, Outputs, choose_backend
from hipnet_edge.backends.backend import Progress
from hipnet_edge.bundle import Bundle
from hipnet_edge.decision import Decision
from hipnet_edge.errors import Fault, HipNetError, InputRefused, Reason, UsageError
from hipnet_edge.prediction import (
    InputRecord,
    Prediction,
    Provenance,
    distribution,
    view_maps,
)
from hipnet_edge.preprocessing import StudyInput, preprocess_study
from hipnet_edge.radiograph import Radiograph
from hipnet_edge.study import Study
from hipnet_edge.vocabulary import VIEWS, Flag, Laterality, View

if TYPE_CHECKING:
    from types import TracebackType

    from hipnet_edge.dicom_reader import DicomSource

    Source: TypeAlias = Radiograph | DicomSource
    """A radiograph, or a DICOM object as path, bytes, open binary file or dataset."""


class Predictor:
    """A loaded and warm model. Make one, share it between threads, close it at the end.

    Args:
        bundle: the model, as a folder or already loaded.
        backend: "auto" or a backend's name.
        precision: "auto", "int8", "fp16" or "fp32".
        threads: how many threads share one inference; None for all cores this process may use.
        progress: told in one line, now and then, how far a long loading is: a plan for a GPU is
            built where there is none, which takes minutes.

    Raises:
        BundleUnusable: the bundle is missing, damaged or of another schema.
        EngineUnusable: no engine can run it here; MissingExtra if a package is not installed.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle,
        *,
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        started = time.perf_counter()
        self._bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        choice = choose_backend(self._bundle, backend, precision, threads, progress)
        self._backend, self._reason, self._flags = choice.backend, choice.reason, choice.flags
        self._provenance = _provenance(self._bundle, choice)
        loaded = time.perf_counter()
        # The first run allocates and is slow: it belongs to loading, not to the first patient.
        self._backend.infer(self._backend.signature.test_pattern())
        self._load_ms = 1e3 * (loaded - started)
        self._warm_up_ms = 1e3 * (time.perf_counter() - loaded)
        self._closed = False

    @classmethod
    def reference(
        cls,
        *,
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Predictor:
        """A predictor with the bundle that comes with the package."""
        return cls(
            Bundle.reference(),
            backend=backend,
            precision=precision,
            threads=threads,
            progress=progress,
        )

    @property
    def bundle(self) -> Bundle:
        """The model that answers."""
        return self._bundle

    @property
    def backend(self) -> Backend:
        """The engine that runs it."""
        return self._backend

    @property
    def provenance(self) -> Provenance:
        """What every result of this predictor says of its making."""
        return self._provenance

    def predict(
        self,
        ap: Study | Source,
        lateral: Source | None = None,
        *,
        laterality: Laterality | None = None,
    ) -> Prediction:
        """Answer for one study. Safe from many threads.

        Args:
            ap: a study, or its AP radiograph. A path, bytes, an open file or a dataset are read
                as DICOM; other images go through `Radiograph.from_image` or `from_array` first.
            lateral: the lateral radiograph, unless a study was given.
            laterality: the hip to read, where the headers do not say or show both.

        Raises:
            InputRefused: the radiographs cannot be read safely; the code says why.
            EngineUnusable: the engine failed or gave no finite numbers.
            UsageError: the predictor was closed (CLOSED), or the arguments are wrong.
        """
        if self._closed:
            raise UsageError("The predictor was closed.", Reason.CLOSED)
        stages = _Stages()
        with _one_hierarchy(), stages.measure("total"):
            if isinstance(ap, Study):
                study = _given(ap, lateral, laterality)
            else:
                with stages.measure("read"):
                    study = _read(ap, lateral, laterality)
            with stages.measure("preprocess"):
                prepared = preprocess_study(study, self._bundle.manifest.input)
            with stages.measure("inference"):
                outputs = self._backend.infer(prepared.radiographs[np.newaxis])
        return self._answer(study, prepared, outputs, stages.ms)

    def predict_batch(
        self, studies: Iterable[Study | tuple[Source, Source]]
    ) -> list[Prediction | InputRefused]:
        """Answer for many studies.

        Args:
            studies: studies, or pairs of AP and lateral as `predict` takes them.

        Returns:
            One entry for each study, in order: its prediction, or the refusal in its place, so
            that one unreadable study does not cost the others their answers.

        Raises:
            EngineUnusable, UsageError: as `predict`; no study could be answered.
        """
        return [self._predict_or_refuse(study) for study in studies]

    def info(self) -> dict[str, object]:
        """What answers here and how it was started, as a JSON object."""
        manifest, backend = self._bundle.manifest, self._backend
        return {
            "package_version": __version__,
            "bundle": {
                "name": manifest.name,
                "version": manifest.version,
                "digest": manifest.digest,
                "intended_use": manifest.intended_use,
                "simulated": manifest.simulated,
                "backbones": [backbone.name for backbone in manifest.backbones],
            },
            "variant": self._provenance.variant,
            "backend": {
                "name": backend.name,
                "version": backend.version,
                "device": backend.device,
                "settings": dict(backend.settings),
                "reason": self._reason,
                "flags": [flag.value for flag in Flag if flag in self._flags],
            },
            "input": manifest.input.to_dict(),
            "load_ms": self._load_ms,
            "warm_up_ms": self._warm_up_ms,
            "closed": self._closed,
        }

    def close(self) -> None:
        """Release the engine; predictions already made stay valid. May be called again."""
        self._closed = True
        self._backend.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _predict_or_refuse(self, study: Study | tuple[Source, Source]) -> Prediction | InputRefused:
        try:
            return self.predict(study) if isinstance(study, Study) else self.predict(*study)
        except InputRefused as refusal:
            return refusal

    def _answer(
        self,
        study: Study,
        prepared: StudyInput,
        outputs: Outputs,
        timings_ms: Mapping[str, float],
    ) -> Prediction:
        manifest = self._bundle.manifest
        names = [backbone.name for backbone in manifest.backbones]
        probabilities, maps = distribution(outputs.probabilities[0]), outputs.maps[0]
        novelty = None if outputs.novelty is None else float(outputs.novelty[0])
        decision = manifest.decision
        curve = None if decision is None else decision.sign_of_failure
        sign_of_failure = None if curve is None else curve.probability(maps)
        found = set(prepared.flags) | self._flags | _findings(decision, novelty, sign_of_failure)
        if study.overrides:
            found.add(Flag.OPERATOR_OVERRIDE)
        if manifest.simulated:
            found.add(Flag.MODEL_TRAINED_ON_SIMULATION)
        return Prediction(
            probabilities=probabilities,
            member_probabilities={
                name: distribution(member)
                for name, member in zip(names, outputs.member_probabilities[0], strict=True)
            },
            maps=view_maps(maps),
            plausible_causes=() if decision is None else decision.plausible_causes(probabilities),
            novelty=novelty,
            sign_of_failure=sign_of_failure,
            flags=tuple(flag for flag in Flag if flag in found),
            inputs={view: _record(study, prepared, view) for view in VIEWS},
            timings_ms=timings_ms,
            provenance=replace(self._provenance, overrides=study.overrides),
        )


def _findings(
    decision: Decision | None, novelty: float | None, sign_of_failure: float | None
) -> set[Flag]:
    """What the bundle's calibration says of an answer, as flags."""
    found = set()
    if decision is None or decision.sign_of_failure is None:
        found.add(Flag.NOT_CALIBRATED)
    elif sign_of_failure is not None and sign_of_failure < decision.sign_of_failure.threshold:
        found.add(Flag.NO_SIGN_OF_FAILURE)
    if decision is not None and novelty is not None and novelty > decision.novelty_threshold:
        found.add(Flag.OUT_OF_DISTRIBUTION)
    return found


def _provenance(bundle: Bundle, choice: Choice) -> Provenance:
    manifest, backend = bundle.manifest, choice.backend
    return Provenance(
        package_version=__version__,
        bundle_name=manifest.name,
        bundle_version=manifest.version,
        bundle_digest=manifest.digest,
        variant=choice.variant,
        backend=backend.name,
        backend_version=backend.version,
        device=backend.device,
        settings=backend.settings,
        overrides={},
        intended_use=manifest.intended_use,
    )


class _Stages:
    """Milliseconds that each stage of one call took."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.ms[stage] = 1e3 * (time.perf_counter() - started)


@contextmanager
def _one_hierarchy() -> Iterator[None]:
    """Whatever a library raises that none of our checks foresaw leaves as our own fault."""
    try:
        yield
    except HipNetError:
        raise
    except Exception as error:
        name = type(error).__name__
        raise Fault(f"A fault of hipnet_edge ({name}); please report it.") from error


def _given(study: Study, lateral: Source | None, laterality: Laterality | None) -> Study:
    if lateral is not None or laterality is not None:
        raise UsageError("A study already holds its lateral and its side; give it alone.")
    return study


def _read(ap: Source, lateral: Source | None, laterality: Laterality | None) -> Study:
    if lateral is None:
        raise UsageError("A prediction needs an AP and a lateral radiograph, or a Study.")
    first, second = (
        source if isinstance(source, Radiograph) else Radiograph.from_dicom(source)
        for source in (ap, lateral)
    )
    return Study(first, second, laterality=laterality)


def _record(study: Study, prepared: StudyInput, view: View) -> InputRecord:
    radiograph = study.views[view]
    return InputRecord(
        view=view,
        view_source=radiograph.view.source,
        laterality=prepared.laterality,
        laterality_source=prepared.laterality_source,
        anatomy=radiograph.anatomy.value,
        anatomy_source=radiograph.anatomy.source,
        sop_instance_uid=radiograph.sop_instance_uid,
        study_instance_uid=radiograph.study_instance_uid,
        pixel_sha256=radiograph.pixel_sha256,
        pixel_spacing=radiograph.pixel_spacing,
        voi=radiograph.voi,
        geometry=prepared.views[view].geometry,
    )
