"""A `Prediction` as JSON and back, exactly; the schema is `prediction.schema.json`, version 1."""

from __future__ import annotations

import base64
import binascii
import math
import re
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.acquisition import Exposure
from hipnet_edge.collimation import Box
from hipnet_edge.errors import UsageError
from hipnet_edge.fields import Fields
from hipnet_edge.geometry import Geometry
from hipnet_edge.prediction import InputRecord, Prediction, Provenance
from hipnet_edge.radiograph import PixelSpacing
from hipnet_edge.views import Anatomy
from hipnet_edge.vocabulary import CAUSES, VIEWS, Cause, Flag, Laterality, View

SCHEMA = 1

_MAP_ENCODING = "base64 of zlib of little-endian float32"
_LARGEST_SIDE = 4096
_LARGEST_IMAGE = 1 << 16
_LARGEST_BOX = 4 * _LARGEST_IMAGE
_SHA256 = re.compile(r"[0-9a-f]{64}")
# The derived numbers are written for the reader; they must agree with what they derive from.
_ROUNDING = 1e-9


def to_dict(prediction: Prediction, *, maps: bool) -> dict[str, object]:
    """The JSON object of a prediction."""
    value: dict[str, object] = {
        "schema": SCHEMA,
        "leading_cause": prediction.leading_cause.value,
        "probabilities": _write_probabilities(prediction.probabilities),
        "pji_risk": prediction.pji_risk,
        "disagreement": prediction.disagreement,
        "member_probabilities": {
            name: _write_probabilities(member)
            for name, member in prediction.member_probabilities.items()
        },
        "plausible_causes": [cause.value for cause in prediction.plausible_causes],
        "novelty": prediction.novelty,
        "sign_of_failure": prediction.sign_of_failure,
        "flags": [flag.value for flag in prediction.flags],
        "inputs": {view.value: _write_input(record) for view, record in prediction.inputs.items()},
        "timings_ms": dict(prediction.timings_ms),
        "provenance": _write_provenance(prediction.provenance),
    }
    if maps and prediction.maps:
        value["maps"] = {view.value: _write_map(stack) for view, stack in prediction.maps.items()}
    return value


def from_dict(value: Mapping[str, object]) -> Prediction:
    """The prediction that gave a JSON object.

    Raises:
        UsageError: the object does not follow the schema; the field is named.
    """
    fields = Fields(value, "", _complain)
    fields.only(
        "schema", "leading_cause", "probabilities", "pji_risk", "disagreement",
        "member_probabilities", "plausible_causes", "novelty", "sign_of_failure", "flags",
        "inputs", "timings_ms", "provenance", "maps",
    )  # fmt: skip
    if fields.integer("schema", 0, 10**6) != SCHEMA:
        raise fields.wrong("schema", f"is not {SCHEMA}, the only one this version reads")
    members = fields.child("member_probabilities")
    if not list(members):
        raise fields.wrong("member_probabilities", "names no backbone")
    prediction = Prediction(
        probabilities=_read_probabilities(fields, "probabilities"),
        member_probabilities={name: _read_probabilities(members, name) for name in members},
        maps=_read_maps(fields.child("maps")) if "maps" in fields else {},
        plausible_causes=_read_plausible_causes(fields),
        novelty=fields.number_or_none("novelty", 0),
        sign_of_failure=fields.number_or_none("sign_of_failure", 0, 1),
        flags=_read_flags(fields),
        inputs={view: _read_input(fields.child("inputs"), view) for view in VIEWS},
        timings_ms=_read_timings(fields.child("timings_ms")),
        provenance=_read_provenance(fields.child("provenance")),
    )
    fields.child("inputs").only(*(view.value for view in VIEWS))
    if fields.member("leading_cause", Cause) is not prediction.leading_cause:
        raise fields.wrong("leading_cause", "is not the most probable cause")
    if prediction.leading_cause not in (prediction.plausible_causes or CAUSES):
        raise fields.wrong("plausible_causes", "lacks the leading cause")
    for key in ("pji_risk", "disagreement"):
        if not math.isclose(fields.number(key, 0, 1), getattr(prediction, key), abs_tol=_ROUNDING):
            raise fields.wrong(key, "does not agree with the probabilities")
    return prediction


def _complain(what: str) -> UsageError:
    return UsageError(f"This is not a prediction as JSON: {what}")


def _write_probabilities(probabilities: Mapping[Cause, float]) -> dict[str, float]:
    return {cause.value: probabilities[cause] for cause in CAUSES}


def _read_probabilities(fields: Fields, key: str) -> dict[Cause, float]:
    values = fields.child(key)
    values.only(*(cause.value for cause in CAUSES))
    probabilities = {cause: values.number(cause.value, 0, 1) for cause in CAUSES}
    if not math.isclose(sum(probabilities.values()), 1.0, abs_tol=1e-6):
        raise fields.wrong(key, "does not sum to 1")
    return probabilities


def _read_plausible_causes(fields: Fields) -> tuple[Cause, ...]:
    named = fields.texts("plausible_causes")
    causes = tuple(cause for cause in CAUSES if cause.value in named)
    if tuple(cause.value for cause in causes) != named:
        raise fields.wrong("plausible_causes", "is not a list of causes in their order")
    return causes


def _read_flags(fields: Fields) -> tuple[Flag, ...]:
    try:
        return tuple(Flag(flag) for flag in fields.texts("flags"))
    except ValueError as error:
        raise fields.wrong("flags", "holds a flag that this version does not know") from error


def _read_timings(fields: Fields) -> dict[str, float]:
    fields.only("read", "decode", "preprocess", "inference", "total")
    for required in ("preprocess", "inference", "total"):
        fields.raw(required)
    return {stage: fields.number(stage, 0) for stage in fields}


def _write_input(record: InputRecord) -> dict[str, object]:
    spacing = record.pixel_spacing
    return {
        "view": record.view.value,
        "view_source": record.view_source,
        "laterality": record.laterality.value,
        "laterality_source": record.laterality_source,
        "anatomy": None if record.anatomy is None else record.anatomy.value,
        "anatomy_source": record.anatomy_source,
        "sop_instance_uid": record.sop_instance_uid,
        "study_instance_uid": record.study_instance_uid,
        "pixel_sha256": record.pixel_sha256,
        "encoded_sha256": record.encoded_sha256,
        "every_pixel": record.every_pixel,
        "pixel_spacing": None
        if spacing is None
        else {"row_mm": spacing.row_mm, "column_mm": spacing.column_mm, "source": spacing.source},
        "exposure": None if record.exposure is None else vars(record.exposure).copy(),
        "voi": record.voi,
        "shape": list(record.shape),
        "box": [record.box.top, record.box.left, record.box.bottom, record.box.right],
        "mirrored": record.mirrored,
        "network_shape": list(record.geometry.network_shape),
    }


def _read_input(inputs: Fields, view: View) -> InputRecord:
    fields = inputs.child(view.value)
    fields.only(
        "view", "view_source", "laterality", "laterality_source", "anatomy", "anatomy_source",
        "sop_instance_uid", "study_instance_uid", "pixel_sha256",
        "encoded_sha256", "every_pixel", "pixel_spacing", "exposure", "voi", "shape", "box",
        "mirrored", "network_shape",
    )  # fmt: skip
    if fields.member("view", View) is not view:
        raise fields.wrong("view", f"is not {view.value}")
    digests = {name: fields.text_or_none(name) for name in ("pixel_sha256", "encoded_sha256")}
    for name, digest in digests.items():
        if digest is not None and not _SHA256.fullmatch(digest):
            raise fields.wrong(name, "is not 64 hexadecimal digits in lower case")
    if not any(digests.values()):
        raise fields.wrong("pixel_sha256", "is null, and so is encoded_sha256")
    return InputRecord(
        view=view,
        view_source=fields.text("view_source"),
        laterality=fields.member("laterality", Laterality),
        laterality_source=fields.text("laterality_source"),
        anatomy=None if fields.raw("anatomy") is None else fields.member("anatomy", Anatomy),
        anatomy_source=fields.text("anatomy_source"),
        sop_instance_uid=fields.text_or_none("sop_instance_uid"),
        study_instance_uid=fields.text_or_none("study_instance_uid"),
        **digests,
        every_pixel=fields.boolean("every_pixel"),
        pixel_spacing=_read_spacing(fields),
        exposure=_read_exposure(fields),
        voi=fields.text("voi"),
        geometry=_read_geometry(fields),
    )


def _read_spacing(fields: Fields) -> PixelSpacing | None:
    if fields.raw("pixel_spacing") is None:
        return None
    spacing = fields.child("pixel_spacing")
    spacing.only("row_mm", "column_mm", "source")
    return PixelSpacing(
        row_mm=spacing.number("row_mm", 0),
        column_mm=spacing.number("column_mm", 0),
        source=spacing.text("source"),
    )


def _read_exposure(fields: Fields) -> Exposure | None:
    if fields.raw("exposure") is None:
        return None
    exposure = fields.child("exposure")
    exposure.only("index", "target", "deviation")
    return Exposure(
        index=exposure.number_or_none("index", 0),
        target=exposure.number_or_none("target", 0),
        deviation=exposure.number_or_none("deviation"),
    )


def _read_geometry(fields: Fields) -> Geometry:
    rows, columns = _shape(fields, "shape", 2, _LARGEST_IMAGE)
    network_rows, network_columns = _shape(fields, "network_shape", 2, _LARGEST_SIDE)
    box = Box(*fields.integers("box", 4))
    if not (0 < box.height <= _LARGEST_BOX and 0 < box.width <= _LARGEST_BOX):
        raise fields.wrong("box", f"is not a box of 1 to {_LARGEST_BOX} pixels a side")
    return Geometry(
        image_shape=(rows, columns),
        box=box,
        mirrored=fields.boolean("mirrored"),
        network_shape=(network_rows, network_columns),
    )


def _shape(fields: Fields, key: str, count: int, largest: int) -> tuple[int, ...]:
    shape = fields.integers(key, count)
    if not all(1 <= side <= largest for side in shape):
        raise fields.wrong(key, f"is not a shape of at most {largest} a side")
    return shape


def _write_provenance(provenance: Provenance) -> dict[str, object]:
    return {
        "package_version": provenance.package_version,
        "bundle_name": provenance.bundle_name,
        "bundle_version": provenance.bundle_version,
        "bundle_digest": provenance.bundle_digest,
        "overlay_digest": provenance.overlay_digest,
        "variant": provenance.variant,
        "backend": provenance.backend,
        "backend_version": provenance.backend_version,
        "device": provenance.device,
        "settings": dict(provenance.settings),
        "overrides": dict(provenance.overrides),
        "intended_use": provenance.intended_use,
    }


def _read_provenance(fields: Fields) -> Provenance:
    texts = (
        "package_version", "bundle_name", "bundle_version", "bundle_digest", "variant",
        "backend", "backend_version", "device", "intended_use",
    )  # fmt: skip
    fields.only(*texts, "overlay_digest", "settings", "overrides")
    overrides, overlay = fields.child("overrides"), fields.text_or_none("overlay_digest")
    if overlay is not None and not _SHA256.fullmatch(overlay):
        raise fields.wrong("overlay_digest", "is not 64 hexadecimal digits in lower case")
    return Provenance(
        overlay_digest=overlay,
        settings=fields.mapping("settings"),
        overrides={key: overrides.text(key) for key in overrides},
        **{key: fields.text(key) for key in texts},
    )


def _write_map(stack: NDArray[np.float32]) -> dict[str, object]:
    packed = zlib.compress(stack.astype("<f4").tobytes())
    return {
        "shape": list(stack.shape),
        "encoding": _MAP_ENCODING,
        "data": base64.b64encode(packed).decode("ascii"),
    }


def _read_maps(maps: Fields) -> dict[View, NDArray[np.float32]]:
    maps.only(*(view.value for view in VIEWS))
    return {view: _read_map(maps.child(view.value)) for view in VIEWS}


def _read_map(fields: Fields) -> NDArray[np.float32]:
    fields.only("shape", "encoding", "data")
    if fields.text("encoding") != _MAP_ENCODING:
        raise fields.wrong("encoding", f"is not {_MAP_ENCODING!r}")
    shape = _shape(fields, "shape", 3, _LARGEST_SIDE)
    if shape[0] != len(CAUSES):
        raise fields.wrong("shape", f"does not have {len(CAUSES)} causes")
    size = 4 * math.prod(shape)
    try:
        # Bounded, so that a few bytes cannot unfold into gigabytes.
        values = zlib.decompressobj().decompress(
            base64.b64decode(fields.text("data"), validate=True), size + 1
        )
    except (binascii.Error, ValueError, zlib.error) as error:
        raise fields.wrong("data", "cannot be decoded") from error
    if len(values) != size:
        raise fields.wrong("data", "does not have the size its shape says")
    stack = np.frombuffer(values, "<f4").reshape(shape).astype(np.float32)
    if not (np.isfinite(stack).all() and stack.min() >= 0 and stack.max() <= 1):
        raise fields.wrong("data", "holds values that are no probabilities")
    return stack
