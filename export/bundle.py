"""Write a bundle: the folder that `hipnet_edge.bundle` reads, with the digest of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hipnet_edge.bundle import Bundle
from hipnet_edge.manifest import SCHEMA
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
