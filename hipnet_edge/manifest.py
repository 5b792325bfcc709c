"""A bundle's manifest, schema 1: what the model is, and the digest of every file it consists of."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hipnet_edge.backends.backend import MEMBERS
from hipnet_edge.decision import Decision, read_decision
from hipnet_edge.errors import BundleUnusable, HipNetError
from hipnet_edge.fields import Fields
from hipnet_edge.preprocessing import InputSpec
from hipnet_edge.verdict import Gate, read_gate
from hipnet_edge.vocabulary import CAUSES, VIEWS

SCHEMA = 1

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# A serialised ONNX file, like every protocol buffer message, ends at 2 GiB.
_LARGEST_FILE = 2**31 - 1


@dataclass(frozen=True)
class Backbone:
    """One of the four networks of the ensemble."""

    name: str
    family: str
    parameters: int
    temperature: float
    """Divides its logits before the softmax; already inside the ONNX file."""


@dataclass(frozen=True)
class Variant:
    """One form of the same network, such as FP32."""

    name: str
    file: str
    dynamic_batch: bool
    """Whether it takes any number of studies at once instead of exactly one."""

    @property
    def input_type(self) -> str:
        """The type of `radiographs`: float16 for TensorRT's variants, else float32.

        It loses nothing that matters of an input of order 1 and halves what is sent to a device.
        """
        return "float16" if self.name.startswith("trt-") else "float32"


@dataclass(frozen=True)
class FileEntry:
    """What a file of the bundle must be."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself. Everything a prediction depends on stands here.

    `digest` is the sha256 of the manifest as canonical JSON (keys sorted, no white space, UTF-8).
    As the manifest holds the sha256 of every file, it names the bundle as a whole.
    """

    digest: str
    name: str
    version: str
    created: str
    input: InputSpec
    map_stride: int
    backbones: tuple[Backbone, ...]
    fusion_weights: tuple[float, ...]
    """The weight of each backbone; already inside the ONNX file."""
    variants: Mapping[str, Variant]
    files: Mapping[str, FileEntry]
    training: Mapping[str, object]
    intended_use: str
    simulated: bool
    """Whether the model was trained on simulated studies."""
    decision: Decision | None
    """Calibration; a bundle that brings it has the output `novelty`."""
    gate: Gate | None
    """What a variant may lose, and which engines passed before the bundle shipped."""

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """Read and check a manifest.

        Raises:
            BundleUnusable: no JSON, another schema, or a field missing or wrong (it is named).
        """
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
            digest = canonical_digest(value)
        except (ValueError, RecursionError) as error:
            raise BundleUnusable("The bundle's manifest.json is not JSON.") from error
        fields = Fields(value, "", _complain)
        schema = fields.raw("schema")
        if schema is True or schema != SCHEMA:
            raise BundleUnusable(
                f"The bundle's manifest has schema {schema!r}; this version of hipnet-edge "
                f"reads schema {SCHEMA}."
            )
        files = {name: _file(fields.child("files"), name) for name in fields.child("files")}
        manifest = cls(
            digest=digest,
            name=fields.text("name"),
            version=fields.text("version"),
            created=fields.text("created"),
            input=_input_spec(fields),
            map_stride=fields.integer("map_stride", 1, 64),
            backbones=tuple(_backbone(item) for item in fields.children("backbones")),
            fusion_weights=fields.child("fusion").numbers("weights", MEMBERS),
            variants=MappingProxyType(_variants(fields.child("variants"), files)),
            files=MappingProxyType(files),
            training=MappingProxyType(fields.mapping("training")),
            intended_use=fields.text("intended_use"),
            simulated=fields.boolean("simulated"),
            decision=read_decision(fields.child("decision")) if "decision" in fields else None,
            gate=read_gate(fields.child("gate")) if "gate" in fields else None,
        )
        _check_ensemble(fields, manifest)
        return manifest


def canonical_digest(value: object) -> str:
    """The sha256 (hex) of a JSON value in canonical form: spacing and order of keys are nothing."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _complain(what: str) -> BundleUnusable:
    return BundleUnusable(f"The bundle's manifest is unusable: {what}")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _check_ensemble(fields: Fields, manifest: Manifest) -> None:
    for key, expected in (("causes", CAUSES), ("views", VIEWS)):
        if fields.texts(key) != tuple(item.value for item in expected):
            raise fields.wrong(key, f"is not {[item.value for item in expected]}, in this order")
    names = {backbone.name for backbone in manifest.backbones}
    if len(manifest.backbones) != MEMBERS or len(names) != MEMBERS:
        raise fields.wrong("backbones", f"does not list {MEMBERS} backbones of different names")
    if manifest.input.rows % manifest.map_stride or manifest.input.columns % manifest.map_stride:
        raise fields.wrong("map_stride", "does not divide the input's rows and columns")


def _input_spec(fields: Fields) -> InputSpec:
    try:
        return InputSpec.from_dict(fields.mapping("input"))
    except (HipNetError, KeyError, TypeError, ValueError) as error:
        raise fields.wrong("input", "is not an input specification") from error


def _backbone(fields: Fields) -> Backbone:
    return Backbone(
        name=fields.text("name"),
        family=fields.text("family"),
        parameters=fields.integer("parameters", 1, 10**12),
        temperature=fields.number("temperature", 1e-3, 1e3),
    )


def _file(files: Fields, name: str) -> FileEntry:
    if not _FILE_NAME.fullmatch(name) or name == "manifest.json":
        raise files.wrong(name, "is not a file name a bundle may use")
    fields = files.child(name)
    sha256 = fields.text("sha256")
    if not _SHA256.fullmatch(sha256):
        raise fields.wrong("sha256", "is not 64 hexadecimal digits in lower case")
    return FileEntry(sha256, fields.integer("bytes", 0, _LARGEST_FILE))


def _variants(variants: Fields, files: Mapping[str, FileEntry]) -> dict[str, Variant]:
    found = {}
    for name in variants:
        fields = variants.child(name)
        file = fields.text("file")
        if file not in files or not file.endswith(".onnx"):
            raise fields.wrong("file", "is not an ONNX file listed in files")
        found[name] = Variant(name, file, fields.boolean("dynamic_batch"))
    return found
