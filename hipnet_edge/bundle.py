"""A model bundle: a folder that holds everything a prediction depends on, and its digests.

`manifest.json` lists every other file with its size and sha256. A bundle is used only when all
of them match and nothing else lies in the folder. Files that begin with a dot are ignored:
they are what desktops and file servers leave behind.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from hipnet_edge.backends.backend import Signature
from hipnet_edge.errors import BundleUnusable, Reason
from hipnet_edge.manifest import FileEntry, Manifest
from hipnet_edge.onnx_file import points_elsewhere

_MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 1 << 20


class Bundle:
    """A verified bundle. It never changes; files are read when they are asked for.

    Attributes:
        path: the folder.
        manifest: what the bundle says of itself.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    def __repr__(self) -> str:
        return f"Bundle({self.manifest.name} {self.manifest.version}, {self.digest[:12]})"

    @property
    def digest(self) -> str:
        """The sha256 (hex) that names this bundle, all its files included."""
        return self.manifest.digest

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle and verify every file of it.

        Args:
            path: the folder that holds `manifest.json`.

        Raises:
            BundleUnusable: BUNDLE_NOT_FOUND, BUNDLE_INVALID (manifest or folder are not as they
                must be) or BUNDLE_DIGEST_MISMATCH (a file is not the one the manifest lists).
        """
        folder = Path(path)
        entries = _entries(folder)
        if _MANIFEST not in entries:
            raise BundleUnusable(
                f"{folder} is not a bundle: it holds no {_MANIFEST}.", Reason.BUNDLE_NOT_FOUND
            )
        manifest = Manifest.from_json(_read_at_most(folder, _MANIFEST, _LARGEST_MANIFEST))
        _refuse_undeclared(entries, manifest)
        bundle = cls(folder, manifest)
        for name in manifest.files:
            content = bundle.read(name)
            if name.endswith(".onnx"):
                _require_self_contained(name, content)
        return bundle

    @classmethod
    def reference(cls) -> Bundle:
        """The bundle that comes with the package, verified like any other."""
        return cls.load(cls.reference_path())

    @staticmethod
    def reference_path() -> Path:
        """Where the reference bundle is: inside an installed wheel, else in the checkout."""
        package = Path(__file__).resolve().parent
        installed = package / "engines" / "reference"
        return installed if installed.is_dir() else package.parent / "engines" / "reference"

    def read(self, name: str) -> bytes:
        """The bytes of a file of the bundle.

        They are read once and verified as they are in memory: what is returned is what was
        verified, even if somebody exchanges the file at that moment.

        Raises:
            BundleUnusable: the manifest does not list the file, or it does not match.
        """
        if name not in self.manifest.files:
            raise BundleUnusable(f"The bundle {self.manifest.name} holds no {name}.")
        return _read_verified(self.path, name, self.manifest.files[name])

    def model(self, variant: str) -> bytes:
        """The ONNX file of a variant, verified, for an engine to load.

        Raises:
            BundleUnusable: the bundle has no such variant, or its file does not match.
        """
        if variant not in self.manifest.variants:
            raise BundleUnusable(f"The bundle {self.manifest.name} has no variant {variant}.")
        return self.read(self.manifest.variants[variant].file)

    def network(self, variant: str) -> str:
        """The sha256 (hex) of a variant's ONNX file, by which plans and verdicts name it."""
        return self.manifest.files[self.manifest.variants[variant].file].sha256

    def signature(self, variant: str) -> Signature:
        """The shapes that a variant's inputs and outputs must have."""
        spec, stride = self.manifest.input, self.manifest.map_stride
        return Signature(
            rows=spec.rows,
            columns=spec.columns,
            map_rows=spec.rows // stride,
            map_columns=spec.columns // stride,
            dynamic_batch=self.manifest.variants[variant].dynamic_batch,
            novelty=self.manifest.decision is not None,
            input_type=self.manifest.variants[variant].input_type,
        )


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError as error:
        raise BundleUnusable(f"There is no bundle at {folder}.", Reason.BUNDLE_NOT_FOUND) from error
    except NotADirectoryError as error:
        raise BundleUnusable(f"{folder} is a file; a bundle is a folder.") from error
    except (OSError, ValueError) as error:  # ValueError: no path at all
        raise BundleUnusable(f"The bundle at {folder} cannot be read.") from error


def _refuse_undeclared(entries: list[str], manifest: Manifest) -> None:
    for entry in entries:
        if entry != _MANIFEST and entry not in manifest.files and not entry.startswith("."):
            raise BundleUnusable(
                f"The bundle holds {entry!r}, which its manifest does not list: remove it, or use "
                "an untouched copy of the bundle."
            )


def _read_verified(folder: Path, name: str, entry: FileEntry) -> bytes:
    content = _read_at_most(folder, name, entry.bytes)
    if len(content) != entry.bytes or hashlib.sha256(content).hexdigest() != entry.sha256:
        raise _mismatch(name)
    return content


def _read_at_most(folder: Path, name: str, limit: int) -> bytes:
    """The content of a regular file inside `folder`; larger ones are refused before reading."""
    path = folder / name
    try:
        # A link may be followed within the bundle, never out of it.
        if not path.resolve(strict=True).is_relative_to(folder.resolve(strict=True)):
            raise BundleUnusable(f"The bundle's {name} is a link that leads out of the bundle.")
        if not stat.S_ISREG(path.stat().st_mode):
            raise BundleUnusable(f"The bundle's {name} is not a regular file.")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > limit:
                raise _mismatch(name)
            return file.read(limit)
    except FileNotFoundError as error:
        raise BundleUnusable(f"The bundle lacks {name}, which its manifest lists.") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, Python before 3.13
        raise BundleUnusable(f"The bundle's {name} cannot be read.") from error


def _mismatch(name: str) -> BundleUnusable:
    if name == _MANIFEST:
        return BundleUnusable(f"The bundle's {name} is too large.")
    return BundleUnusable(
        f"The bundle's {name} is not the file its manifest lists: it is damaged or was exchanged. "
        "Install the bundle again.",
        Reason.BUNDLE_DIGEST_MISMATCH,
    )


def _require_self_contained(name: str, model: bytes) -> None:
    try:
        elsewhere = points_elsewhere(model)
    except ValueError as error:
        raise BundleUnusable(f"The bundle's {name} is not an ONNX file.") from error
    if elsewhere:
        raise BundleUnusable(
            f"The bundle's {name} keeps weights in other files (external data), which no digest "
            "covers: export it with everything in one file."
        )
