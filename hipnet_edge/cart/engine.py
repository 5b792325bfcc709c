"""The one warm predictor of a cart: exactly the pinned one, or another only where that is allowed.

A result must come from the model, the variant and the engine that somebody chose and checked. What
is pinned and cannot be had is therefore a refusal to start, not a reason to take something else.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from hipnet_edge.errors import (
    BundleUnusable,
    EngineUnusable,
    HipNetError,
    OverlayUnusable,
    Reason,
)
from hipnet_edge.vocabulary import Flag

if TYPE_CHECKING:
    from hipnet_edge.bundle import Bundle
    from hipnet_edge.cart.settings import Predict
    from hipnet_edge.overlay import Overlay
    from hipnet_edge.prediction import Prediction
    from hipnet_edge.predictor import Predictor

logger = logging.getLogger(__name__)


class Engine:
    """The predictor that a configuration pins, loaded again when it fails.

    Args:
        pinned: `[predict]` of the configuration.
        loaded: told of every predictor that was loaded.

    Attributes:
        trusted: False while the self-test fails; then nothing is to be read (`SelfCheck`).
    """

    def __init__(self, pinned: Predict, loaded: Callable[[Predictor], None] | None = None) -> None:
        self._pinned, self._loaded = pinned, loaded
        self._predictor: Predictor | None = None
        self._is_fallback = False
        self.trusted = True
        self._lock = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether a warm predictor is there."""
        return self._predictor is not None

    @property
    def predictor(self) -> Predictor:
        """The predictor.

        Raises:
            EngineUnusable: none is loaded.
        """
        predictor = self._predictor
        if predictor is None:
            raise EngineUnusable("The predictor is not loaded.")
        return predictor

    def load(self) -> None:
        """Load and warm up what is pinned.

        Raises:
            BundleUnusable, EngineUnusable: it cannot be had, and nothing else is allowed.
        """
        with self._lock:
            if self._predictor is not None:
                return
            predictor, self._is_fallback = open_pinned(self._pinned)
            self._predictor = predictor
        made_by = predictor.provenance
        facts = {
            "backend": made_by.backend,
            "variant": made_by.variant,
            "bundle": made_by.bundle_digest,
            "overlay": made_by.overlay_digest,
        }
        if self._is_fallback:
            logger.warning("not the pinned predictor: a fallback, as allowed", extra=facts)
        else:
            logger.info("predictor is warm", extra=facts)
        if self._loaded is not None:
            self._loaded(predictor)

    def predict(self, ap: bytes, lateral: bytes, modalities: Collection[str] = ()) -> Prediction:
        """Read one pair of DICOM files; a result of a fallback says so.

        Args:
            ap: the file of the AP radiograph.
            lateral: likewise the lateral.
            modalities: which others than those of radiography are accepted.

        Raises:
            InputRefused, EngineUnusable: as `Predictor.predict`.
        """
        from hipnet_edge.encoded import EncodedRadiograph

        pair = (EncodedRadiograph.from_dicom(f, allow_modalities=modalities) for f in (ap, lateral))
        prediction = self.predictor.predict(*pair)
        if not self._is_fallback:
            return prediction
        flags = {*prediction.flags, Flag.ENGINE_FALLBACK}
        return replace(prediction, flags=tuple(flag for flag in Flag if flag in flags))

    def check(self) -> bool:
        """Whether the engine itself still answers; one that does not is thrown away."""
        try:
            backend = self.predictor.backend
            backend.infer(backend.signature.test_pattern())
        except HipNetError:
            self.close()
            return False
        return True

    def close(self) -> None:
        """Release the predictor."""
        with self._lock:
            predictor, self._predictor = self._predictor, None
        if predictor is not None:
            with suppress(HipNetError):  # a broken engine may not close either
                predictor.close()


def open_pinned(pinned: Predict) -> tuple[Predictor, bool]:
    """A predictor as pinned, and whether it is another than that.

    A site's calibration is never left out: a fallback that it was not fitted with is refused.

    Raises:
        BundleUnusable, EngineUnusable: what is pinned cannot be had, and nothing else is allowed.
        MissingExtra: the overlay's signature cannot be checked.
    """
    from hipnet_edge.predictor import Predictor

    bundle, overlay = open_bundle(pinned), open_overlay(pinned)
    fallback = bundle.digest != pinned.bundle_digest
    if fallback and not pinned.allow_fallback:
        raise BundleUnusable(
            f"The bundle has the digest {bundle.digest}, but {pinned.bundle_digest} is pinned.",
            Reason.BUNDLE_DIGEST_MISMATCH,
        )
    open_predictor = partial(
        Predictor, bundle, threads=pinned.threads, exact=pinned.exact, overlay=overlay
    )
    try:
        precision = _precision(pinned)
        return open_predictor(backend=pinned.backend, precision=precision), fallback
    except EngineUnusable as error:
        if not pinned.allow_fallback:
            raise
        logger.warning("pinned engine cannot be had", extra={"reason": error.code.value})
    return open_predictor(), True


def open_bundle(pinned: Predict) -> Bundle:
    """The bundle that is named, whatever its digest.

    Raises:
        BundleUnusable: it is missing, damaged or of another schema.
    """
    from hipnet_edge.bundle import Bundle

    folder = pinned.bundle_folder
    return Bundle.reference() if folder is None else Bundle.load(folder)


def open_overlay(pinned: Predict) -> Overlay | None:
    """The site's calibration, if one is named: exactly the pinned one.

    Raises:
        OverlayUnusable: it is damaged, another than the pinned one, or not signed with the key.
        MissingExtra: its signature cannot be checked.
    """
    from hipnet_edge.overlay import Overlay

    if pinned.overlay is None:
        return None
    overlay = Overlay.load(pinned.overlay, pinned.overlay_key)
    if overlay.digest != pinned.overlay_digest:
        raise OverlayUnusable(
            f"The overlay has the digest {overlay.digest}, but {pinned.overlay_digest} is pinned.",
            Reason.OVERLAY_DIGEST_MISMATCH,
        )
    return overlay


def _precision(pinned: Predict) -> str:
    """The precision by which the pinned backend knows the pinned variant."""
    from hipnet_edge.backends.choice import BACKENDS

    backend = BACKENDS.get(pinned.backend)
    for precision, variant in {} if backend is None else backend.variants.items():
        if variant == pinned.variant:
            return precision
    raise EngineUnusable(
        f"No backend {pinned.backend} of this version runs the variant {pinned.variant}.",
        Reason.ENGINE_UNAVAILABLE,
    )
