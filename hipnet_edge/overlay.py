"""A site's own calibration of a bundle, in a file beside it: the bundle stays untouched.

An overlay changes temperatures, decision thresholds and the conformal set, and nothing else: what
the network says beside its probabilities (maps, novelty) and the limits of those stay the bundle's.
It names the bundle and the variant it was fitted with and is refused with any other. Its digest is
the sha256 of its content as canonical JSON; a site may sign that with its own Ed25519 key.
`hipnet_edge.evaluation.recalibration` fits it; the format is described in `docs/recalibration.md`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.errors import InputRefused, OverlayUnusable, Reason, UsageError
from hipnet_edge.fields import Fields
from hipnet_edge.manifest import canonical_digest
from hipnet_edge.overlay_signature import check_signature, signed
from hipnet_edge.vocabulary import CAUSES, Cause

if TYPE_CHECKING:
    from hipnet_edge.bundle import Bundle
    from hipnet_edge.decision import Decision
    from hipnet_edge.prediction import InputRecord, Prediction

SCHEMA = 1
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 100.0
"""Of a backbone, relative to the bundle's."""

_LARGEST_FILE = 64 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SMALLEST = float(np.finfo(np.float32).tiny)
"""A probability that float32 has lost counts as this one, the smallest that it keeps in full."""


def at_temperatures(
    members: NDArray[np.floating], temperatures: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Each backbone's probabilities at another temperature, as if its logits had been divided.

    A softmax leaves of its logits everything but a constant, which the next softmax would take away
    anyway: softmax(logits / T) is p ** (1 / T), made to sum to 1. So this is exact.

    Args:
        members: [..., 4, 5].
        temperatures: [4], relative to those that gave `members`.
    """
    logs = np.log(np.maximum(members.astype(np.float64), _SMALLEST)) / temperatures[:, np.newaxis]
    powers = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def fused(members: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ensemble's probabilities [..., 5]: the weighted mean of its backbones' [..., 4, 5]."""
    return np.asarray(np.einsum("m,...mk->...k", weights, members))


def image_names(record: InputRecord, salt: str) -> Iterator[str]:
    """Hashes (hex) by which an image is known again without its name being written anywhere.

    One for each thing that names it (UID, digest of the pixels or of the stream), so that it is
    known under a new UID and encoded anew.

    Args:
        record: of a prediction.
        salt: the overlay's own; two overlays share no hash.
    """
    for key in ("sop_instance_uid", "pixel_sha256", "encoded_sha256"):
        name = getattr(record, key)
        if name is not None:
            yield hashlib.sha256(f"{salt}/{key}/{name}".encode()).hexdigest()


@dataclass(frozen=True)
class Overlay:
    """A verified overlay. It never changes.

    Attributes:
        digest: the sha256 (hex) that names it.
        bundle_digest: of the bundle it belongs to.
        variant: of that bundle, which it was fitted with.
        backend: the engine it was fitted with; another one may use it.
        created: the date, ISO 8601.
        intended_use: for whom it is.
        temperatures: by backbone, relative to the bundle's.
        thresholds: as `Decision.thresholds`.
        coverage: as `Decision.coverage`.
        conformal_threshold: as `Decision.conformal_threshold`.
        salt: of the hashes of images.
        images: hashes of every image that it was fitted on.
        content: everything, as it stands in the file.
    """

    digest: str
    bundle_digest: str
    variant: str
    backend: str
    created: str
    intended_use: str
    temperatures: Mapping[str, float]
    thresholds: Mapping[Cause, float]
    coverage: float
    conformal_threshold: float
    salt: str
    images: frozenset[str]
    content: Mapping[str, object]

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], key: str | os.PathLike[str] | None = None
    ) -> Overlay:
        """Read and verify an overlay.

        Args:
            path: the file that `hipnet-edge calibrate` wrote.
            key: a PEM file with the Ed25519 public key of who must have signed it.

        Raises:
            OverlayUnusable: OVERLAY_INVALID (unreadable, or of another schema),
                OVERLAY_DIGEST_MISMATCH (damaged or changed), or OVERLAY_UNTRUSTED (not signed, or
                not by this key).
            MissingExtra: a key was given and the extra `sign` is not installed.
        """
        try:
            with Path(path).open("rb") as file:
                text = file.read(_LARGEST_FILE + 1)
        except (OSError, ValueError) as error:
            raise OverlayUnusable(f"The overlay {path} cannot be read.") from error
        if len(text) > _LARGEST_FILE:
            raise OverlayUnusable("The overlay is too large to be one.")
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise OverlayUnusable("The overlay is not JSON.") from error
        fields = Fields(value, "", _complain)
        fields.only("schema", "digest", "signature", "overlay")
        if fields.raw("schema") is True or fields.raw("schema") != SCHEMA:
            raise OverlayUnusable(
                f"The overlay has schema {fields.raw('schema')!r}; this version of hipnet-edge "
                f"reads schema {SCHEMA}."
            )
        content = fields.mapping("overlay")
        if canonical_digest(content) != fields.raw("digest"):
            raise OverlayUnusable(
                "The overlay's content is not the one that its digest names: it is damaged or was "
                "changed. Use an untouched copy.",
                Reason.OVERLAY_DIGEST_MISMATCH,
            )
        if key is not None:
            check_signature(fields, key)
        return cls.from_content(content)

    @classmethod
    def from_content(cls, content: Mapping[str, object]) -> Overlay:
        """An overlay from what it says, checked but for its digest and signature.

        Raises:
            OverlayUnusable: a field is missing or wrong; it is named.
        """
        fields = Fields(dict(content), "overlay", _complain)
        fields.only(
            "bundle", "variant", "engine", "package_version", "created", "intended_use",
            "temperatures", "thresholds", "conformal", "fitted_on", "figures", "notices",
        )  # fmt: skip
        temperatures, thresholds = fields.child("temperatures"), fields.child("thresholds")
        thresholds.only(*(cause.value for cause in CAUSES))
        conformal, fitted_on = fields.child("conformal"), fields.child("fitted_on")
        images = fitted_on.texts("images")
        bundle_digest = fields.child("bundle").text("digest")
        if not all(_SHA256.fullmatch(digest) for digest in (*images, bundle_digest)):
            raise _complain("it holds a digest that is not 64 hexadecimal digits in lower case")
        return cls(
            digest=canonical_digest(dict(content)),
            bundle_digest=bundle_digest,
            variant=fields.text("variant"),
            backend=fields.child("engine").text("name"),
            created=fields.text("created"),
            intended_use=fields.text("intended_use"),
            temperatures=MappingProxyType(
                {
                    name: temperatures.number(name, LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE)
                    for name in temperatures
                }
            ),
            thresholds=MappingProxyType(
                {cause: thresholds.number(cause.value, 0, 1) for cause in CAUSES}
            ),
            coverage=conformal.number("coverage", 0, 1),
            conformal_threshold=conformal.number("threshold", 0, 1),
            salt=fitted_on.text("salt"),
            images=frozenset(images),
            content=MappingProxyType(dict(content)),
        )

    def __repr__(self) -> str:
        return f"Overlay({self.digest[:12]} for bundle {self.bundle_digest[:12]}, {self.variant})"

    def save(
        self, path: str | os.PathLike[str], sign_with: str | os.PathLike[str] | None = None
    ) -> None:
        """Write the overlay, whole or not at all.

        Args:
            path: where to.
            sign_with: a PEM file with the site's Ed25519 private key.

        Raises:
            UsageError: the key cannot be read or is none.
            MissingExtra: a key was given and the extra `sign` is not installed.
        """
        value = {
            "schema": SCHEMA,
            "digest": self.digest,
            "signature": None if sign_with is None else signed(self.digest, sign_with),
            "overlay": dict(self.content),
        }
        part = Path(path).with_name(Path(path).name + ".part")
        part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        part.replace(path)

    def require_fits(self, bundle: Bundle, variant: str) -> None:
        """Refuse to be used with another bundle or variant than it was fitted with.

        Raises:
            OverlayUnusable: OVERLAY_MISMATCH.
        """
        if self.bundle_digest != bundle.digest:
            raise OverlayUnusable(
                f"The overlay belongs to the bundle {self.bundle_digest[:12]}; this one is "
                f"{bundle.digest[:12]}. Calibrate anew for this bundle.",
                Reason.OVERLAY_MISMATCH,
            )
        if self.variant != variant:
            raise OverlayUnusable(
                f"The overlay was fitted with the variant {self.variant}; here {variant} answers. "
                "Choose that precision and engine, or calibrate anew for this one.",
                Reason.OVERLAY_MISMATCH,
            )
        if bundle.manifest.decision is None:
            raise OverlayUnusable(
                "The bundle has no calibration that an overlay could stand in for.",
                Reason.OVERLAY_MISMATCH,
            )
        if set(self.temperatures) != {backbone.name for backbone in bundle.manifest.backbones}:
            raise OverlayUnusable(
                "The overlay's temperatures are not those of the bundle's backbones.",
                Reason.OVERLAY_MISMATCH,
            )

    def probabilities(
        self, bundle: Bundle, members: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the network would say at the site's temperatures.

        Args:
            bundle: whose network answered.
            members: `member_probabilities` [..., 4, 5] of its answers.

        Returns:
            The ensemble's probabilities [..., 5] and the members' [..., 4, 5].
        """
        manifest = bundle.manifest
        temperatures = np.array([self.temperatures[one.name] for one in manifest.backbones])
        tempered = at_temperatures(members, temperatures)
        return fused(tempered, np.array(manifest.fusion_weights)), tempered

    def decision(self, bundles: Decision) -> Decision:
        """The bundle's calibration with what the site has fitted anew."""
        return replace(
            bundles,
            thresholds=self.thresholds,
            coverage=self.coverage,
            conformal_threshold=self.conformal_threshold,
        )

    def require_unseen(self, prediction: Prediction) -> None:
        """Refuse a study that cannot say how well the overlay works, as it was fitted on it.

        Raises:
            InputRefused: FITTED_ON; one of the study's two images was among those.
        """
        names = (
            name for record in prediction.inputs.values() for name in image_names(record, self.salt)
        )
        if any(name in self.images for name in names):
            raise InputRefused(
                Reason.FITTED_ON,
                "The overlay was fitted on this study, so it cannot show how well the overlay "
                "works.",
            )


def _complain(what: str) -> OverlayUnusable:
    return OverlayUnusable(f"This is not an overlay: {what}")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def open_overlay(
    given: str | os.PathLike[str] | Overlay | None, key: str | os.PathLike[str] | None
) -> Overlay | None:
    """The overlay that a predictor was given, read from its file if it is one.

    Raises:
        OverlayUnusable: as `Overlay.load`.
        UsageError: a key was named, and no file that it could have signed.
    """
    if given is None and key is not None:
        raise UsageError("A key is for an overlay, and none was named.")
    if isinstance(given, Overlay) and key is not None:
        raise UsageError("A key is for an overlay's file; this one was loaded already.")
    return given if given is None or isinstance(given, Overlay) else Overlay.load(given, key)
