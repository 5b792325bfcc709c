"""The way in: read two radiographs, check the pair, preprocess, infer, answer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from hipnet_edge import __version__
from hipnet_edge.answer import answer, provenance_of
from hipnet_edge.backends import Backend, choose_backend
from hipnet_edge.backends.backend import Progress
from hipnet_edge.backends.cores import available_cores
from hipnet_edge.backends.memory import return_freed_memory
from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import Fault, HipNetError, InputRefused, Reason, UsageError
from hipnet_edge.intake import import_readers, own_bytes, read_study
from hipnet_edge.opencv import in_calling_thread
from hipnet_edge.overlay import Overlay, open_overlay
from hipnet_edge.pixels import SHORTCUT
from hipnet_edge.prediction import Prediction, Provenance
from hipnet_edge.preprocessing import Mapper, preprocess_study
from hipnet_edge.study import Study
from hipnet_edge.vocabulary import VIEWS, Flag, Laterality
from hipnet_edge.workers import Workers

if TYPE_CHECKING:
    from types import TracebackType

    from hipnet_edge.decision import Decision
    from hipnet_edge.intake import Source


class Predictor:
    """A loaded and warm model. Make one, share it between threads, close it at the end.

    Args:
        bundle: the model, as a folder or already loaded.
        backend: "auto" or a backend's name.
        precision: "auto", "int8", "bf16", "fp16" or "fp32".
        threads: how many threads work for one call; None for all cores this process may use. From
            two on the two views are read side by side, and a stream begins studies ahead.
        exact: no decoding shortcuts, not even those that the bundle's gate has passed.
        overlay: a site's own calibration of this bundle, as a file or already loaded.
        overlay_key: a PEM file with the Ed25519 public key of who must have signed that file.
        progress: told in one line, now and then, how far a long loading is: a plan for a GPU is
            built where there is none, which takes minutes.

    Make it after forking, not before: engines do not survive a fork.

    Raises:
        BundleUnusable: the bundle is missing, damaged or of another schema.
        OverlayUnusable: the overlay is damaged, not trusted, or of another bundle or variant.
        EngineUnusable: no engine can run it here; MissingExtra if a package is not installed.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle,
        *,
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        exact: bool = False,
        overlay: str | os.PathLike[str] | Overlay | None = None,
        overlay_key: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        started = time.perf_counter()
        self._threads = available_cores() if threads is None else threads
        with _beside(import_readers, self._threads):
            self._bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
            # Before an engine is loaded: an overlay that cannot be read costs no time.
            self._overlay = open_overlay(overlay, overlay_key)
            choice = choose_backend(self._bundle, backend, precision, threads, progress)
            self._backend, self._reason, self._flags = choice.backend, choice.reason, choice.flags
            if self._overlay is not None:
                self._overlay.require_fits(self._bundle, choice.variant)
            self._provenance = provenance_of(self._bundle, choice, self._overlay)
            loaded = time.perf_counter()
            # The first run allocates and is slow: it belongs to loading, not to the first patient.
            self._backend.infer(self._backend.signature.test_pattern())
        return_freed_memory()
        self._load_ms = 1e3 * (loaded - started)
        self._warm_up_ms = 1e3 * (time.perf_counter() - loaded)
        gate = self._bundle.manifest.gate
        self._exact = exact or gate is None or not gate.allows(SHORTCUT)
        self._workers = Workers(self._threads)
        self._closed = False

    @classmethod
    def reference(
        cls,
        *,
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        exact: bool = False,
        overlay: str | os.PathLike[str] | Overlay | None = None,
        overlay_key: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Predictor:
        """A predictor with the bundle that comes with the package."""
        return cls(
            Bundle.reference_path(),
            backend=backend,
            precision=precision,
            threads=threads,
            exact=exact,
            overlay=overlay,
            overlay_key=overlay_key,
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
    def overlay(self) -> Overlay | None:
        """The site's calibration that its answers follow, if there is one."""
        return self._overlay

    @property
    def decision(self) -> Decision | None:
        """The calibration that its answers follow: the bundle's, with what an overlay changes."""
        decision = self._bundle.manifest.decision
        if decision is None or self._overlay is None:
            return decision
        return self._overlay.decision(decision)

    @property
    def threads(self) -> int:
        """How many threads work for one call, and so many studies are under way in a stream."""
        return self._threads

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
        self._check_open()
        if isinstance(ap, Study):
            if lateral is not None or laterality is not None:
                raise UsageError("A study already holds its lateral and its side; give it alone.")
            return self._predict(ap)
        if lateral is None:
            raise UsageError("A prediction needs an AP and a lateral radiograph, or a Study.")
        return self._predict((ap, lateral), laterality)

    def predict_stream(
        self,
        studies: Iterable[Study | tuple[Source, Source]],
        *,
        look_ahead: int | None = None,
    ) -> Iterator[Prediction | InputRefused]:
        """Answer for studies one after another, the next ones begun before this one is answered.

        As many studies as the predictor has threads are under way at once and share the one engine:
        while one is inferred others are read and decoded. A single study takes longer so than in
        `predict`, many take less.

        Args:
            studies: studies, or pairs of AP and lateral as `predict` takes them. Taken in the
                caller's thread, and only when a result is asked for; where that may wait long,
                as for studies that arrive one by one, the result waits as long: call `predict`.
            look_ahead: how many studies may be taken beyond the one whose result comes next; as
                many as the predictor has threads if not given. What they hold is held in memory.
                0, as with one thread, works in the caller's thread alone.

        Returns:
            For each study, in order, its prediction, or the refusal in its place. Ended early
            (`close`, or no more references) it drops the studies that have not begun.

        Raises:
            EngineUnusable, UsageError: as `predict`; they end the stream. What the iterator of
                studies raises comes out in its place and ends the stream too.
        """
        self._check_open()
        alone = self._threads == 1
        ahead = (0 if alone else self._threads) if look_ahead is None else look_ahead
        if ahead < 0:
            raise UsageError("look_ahead must be 0 or more.")
        return self._workers.ahead(self._predict_or_refuse, map(_owned, studies), ahead)

    def predict_batch(
        self, studies: Iterable[Study | tuple[Source, Source]]
    ) -> list[Prediction | InputRefused]:
        """Answer for many studies: `predict_stream` with all its results in a list.

        Args:
            studies: studies, or pairs of AP and lateral as `predict` takes them.

        Returns:
            One entry for each study, in order: its prediction, or the refusal in its place, so
            that one unreadable study does not cost the others their answers.

        Raises:
            EngineUnusable, UsageError: as `predict`; no study could be answered.
        """
        return list(self.predict_stream(studies))

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
            "overlay": None if self._overlay is None else self._overlay.digest,
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
            "exact": self._exact,
            "load_ms": self._load_ms,
            "warm_up_ms": self._warm_up_ms,
            "closed": self._closed,
        }

    def close(self) -> None:
        """Release threads and engine; predictions already made stay valid. May be called again."""
        self._closed = True
        self._workers.close()
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

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("The predictor was closed.", Reason.CLOSED)

    def _predict(
        self,
        given: Study | tuple[Source, Source],
        laterality: Laterality | None = None,
        *,
        threads: int | None = None,
    ) -> Prediction:
        """From a study, or from AP and lateral, to the answer, with so many threads."""
        threads = self._threads if threads is None else threads
        mapper: Mapper = self._workers.side_by_side if threads > 1 else map
        stages = _Stages()
        with _one_hierarchy(), stages.measure("total"), in_calling_thread():
            if isinstance(given, Study):
                study = given
            else:
                with stages.measure("read"):
                    ap, lateral = map(own_bytes, given)
                study, spent = read_study(
                    ap,
                    lateral,
                    laterality,
                    exact=self._exact,
                    decode_threads=max(1, threads // len(VIEWS)),
                    mapper=mapper,
                )
                stages.add(spent)
            with stages.measure("preprocess"):
                prepared = preprocess_study(study, self._bundle.manifest.input, mapper=mapper)
            with stages.measure("inference"):
                outputs = self._backend.infer(prepared.radiographs[np.newaxis])
        return answer(
            self._bundle,
            self._overlay,
            self._provenance,
            self._flags,
            study,
            prepared,
            outputs,
            stages.ms,
        )

    def _predict_or_refuse(
        self, given: Study | tuple[Source, Source] | InputRefused
    ) -> Prediction | InputRefused:
        """One study of a stream, in a single thread."""
        self._check_open()
        if isinstance(given, InputRefused):
            return given
        try:
            return self._predict(given, threads=1)
        except InputRefused as refusal:
            return _without_frames(refusal)


class _Stages:
    """Milliseconds that each stage of one call took."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.add({stage: 1e3 * (time.perf_counter() - started)})

    def add(self, spent: Mapping[str, float]) -> None:
        for stage, milliseconds in spent.items():
            self.ms[stage] = self.ms.get(stage, 0.0) + milliseconds


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


@contextmanager
def _beside(work: Callable[[], None], threads: int) -> Iterator[None]:
    """Do some work while the block runs, in a thread if there may be two; after it if not."""
    if threads == 1:
        yield
        work()
        return
    thread = threading.Thread(target=work, name="hipnet-edge-import", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _owned(given: Study | tuple[Source, Source]) -> Study | tuple[Source, Source] | InputRefused:
    """A study of a stream as another thread may have it: open files are read in this one."""
    if isinstance(given, Study):
        return given
    try:
        ap, lateral = given
    except (TypeError, ValueError) as error:
        raise UsageError("A stream is of studies, or of pairs of AP and lateral.") from error
    try:
        return own_bytes(ap), own_bytes(lateral)
    except InputRefused as refusal:
        return _without_frames(refusal)


def _without_frames(refusal: InputRefused) -> InputRefused:
    """A refusal to be kept: its traceback, and that of what caused it, would keep the pixels."""
    error: BaseException | None = refusal
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
    return refusal
