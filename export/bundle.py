"""Write a bundle: the folder that `hipnet_edge.bundle` reads, with the digest of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hipnet_edge.bundle import Bundle
from hipnet_edge.manifest import SCHEMA
from hipnet_edge.selftest import SELFTEST_FILE
from hipnet_edge.verdict import REFERENCE, Gate
from hipnet_edge.vocabulary import CAUSES, VIEWS

_SIMULATED = "Trained on simulated radiographs only. "
_USE = (
    "Research and development of edge inference. {}Never validated on patients. "
    "Not for clinical use."
)


def write_bundle(
    directory: Path, files: Mapping[str, bytes], manifest_fields: Mapping[str, Any]
) -> Bundle:
    """Write files and manifest, and read the bundle back as a runtime would.

    Args:
        directory: made if missing; files of a bundle that lay there before are removed.
        files: content by file name. A self-test is added afterwards, by
            `hipnet_edge.selftest.write_selftest`.
        manifest_fields: `name`, `version`, `created`, `input`, `map_stride`, `backbones`,
            `fusion`, `decision`, `variants`, `training`, `simulated`; the rest follows.

    Raises:
        BundleUnusable: what was written is no bundle; the message says why.
        FileExistsError: the directory holds something else than a bundle.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _remove_old(directory)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    manifest = {
        "schema": SCHEMA,
        **manifest_fields,
        "causes": [cause.value for cause in CAUSES],
        "views": [view.value for view in VIEWS],
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files.items()
        },
        "intended_use": _USE.format(_SIMULATED if manifest_fields.get("simulated") else ""),
    }
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return Bundle.load(directory)


def add_variants(
    source: Path,
    directory: Path,
    variants: Mapping[str, bytes],
    gate: Gate,
) -> Bundle:
    """A copy of a bundle with further variants of its network, `cpu-bf16` among them.

    Args:
        source: the bundle that has the reference; its files are verified and copied.
        directory: where the new one goes.
        variants: the ONNX file of each, by the variant's name; one of the same name goes, and its
            answers in the self-test.
        gate: limits, and the verdicts made so far.

    Raises:
        BundleUnusable: the source is no bundle, or what was written is none.
        FileExistsError: the directory holds something else than a bundle.
    """
    bundle = Bundle.load(source)
    manifest = json.loads((source / "manifest.json").read_text())
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    dynamic = bundle.manifest.variants[REFERENCE].dynamic_batch
    # BF16 is a matter of the engine alone: it reads the reference's own file.
    manifest["variants"]["cpu-bf16"] = manifest["variants"][REFERENCE]
    for name, content in variants.items():
        files[f"{name}.onnx"] = content
        manifest["variants"][name] = {"file": f"{name}.onnx", "dynamic_batch": dynamic}
    if SELFTEST_FILE in files:
        files[SELFTEST_FILE] = _without(files[SELFTEST_FILE], variants)
    return write_bundle(directory, files, {**manifest, "gate": gate.to_dict()})


def _without(selftest: bytes, variants: Mapping[str, bytes]) -> bytes:
    """A self-test without the answers of variants that were exchanged."""
    stored = json.loads(selftest)
    stored["answers"] = {
        n: answers for n, answers in stored["answers"].items() if n not in variants
    }
    return (json.dumps(stored, indent=1) + "\n").encode()


def write_gate(directory: Path, gate: Gate) -> Bundle:
    """Exchange limits and verdicts of a bundle; that gives it another digest.

    Raises:
        BundleUnusable: it is no bundle.
    """
    Bundle.load(directory)
    path = directory / "manifest.json"
    manifest = {**json.loads(path.read_text()), "gate": gate.to_dict()}
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    return Bundle.load(directory)


def _remove_old(directory: Path) -> None:
    """Remove the files that an old manifest lists, and nothing else."""
    manifest = directory / "manifest.json"
    if manifest.exists():
        for name in json.loads(manifest.read_text())["files"]:
            (directory / Path(name).name).unlink(missing_ok=True)
        manifest.unlink()
    left = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    if left:
        raise FileExistsError(f"{directory} holds {left[0]!r}, which is no part of a bundle")
