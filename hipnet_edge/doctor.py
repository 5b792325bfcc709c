"""What this machine has and what works on it: engines, decoders, the bundle, and why not.

Nothing is taken from a list of what ought to work: every engine runs the reference network once,
every decoder decodes a small file that comes with the package and is compared with its values.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge import __version__
from hipnet_edge.errors import HipNetError, MissingExtra
from hipnet_edge.machine import Fact, Machine
from hipnet_edge.machine import examine as examine_machine

if TYPE_CHECKING:
    from hipnet_edge.bundle import Bundle

SCHEMA = 1
"""Of the JSON report."""

PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "pydicom",
    "imagecodecs",
    "onnxruntime",
    "openvino",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "cuda-python",
    "pycuda",
    "highdicom",
    "pynetdicom",
)
"""Whose versions are reported: the core's, then those that the extras bring."""


@dataclass(frozen=True)
class Sample:
    """A file with which a decoder is tried; lossy ones may be `tolerance` stored values away."""

    name: str
    label: str
    bits: int = 12
    tolerance: int = 0


SAMPLES = (
    Sample("rle", "RLE"),
    Sample("jpeg-baseline", "JPEG baseline, 8 bit", bits=8, tolerance=8),
    Sample("jpeg-extended", "JPEG extended, 12 bit", tolerance=128),
    Sample("jpeg-lossless", "JPEG lossless"),
    Sample("jpeg-ls", "JPEG-LS"),
    Sample("jpeg-2000", "JPEG 2000"),
    Sample("htj2k", "High-throughput JPEG 2000"),
)


def sample_pixels(bits: int) -> NDArray[np.uint8 | np.uint16]:
    """The stored values of every sample, [64, 64]: steps of 8 pixels that rise to the corner."""
    rows, columns = np.mgrid[:64, :64] // 8
    levels = (rows + columns) << (bits - 4)
    return np.asarray(levels, dtype=np.uint8 if bits == 8 else np.uint16)


@dataclass(frozen=True)
class Check:
    """Whether something works here.

    Attributes:
        name: what was tried.
        works: whether it does.
        detail: what was found, or why it does not work.
        remedy: how to get it; None when it works or nothing is known to help.
    """

    name: str
    works: bool
    detail: str
    remedy: str | None = None


@dataclass(frozen=True)
class Report:
    """The doctor's report."""

    python: str
    packages: dict[str, Fact[str]]
    machine: Machine
    bundle: Check
    backends: tuple[Check, ...]
    choice: Check
    """What this machine remembers of which engine is the fastest on its CPU."""
    gpu: tuple[Check, ...]
    """What the engines on a GPU need: each by itself, to see which of them is missing."""
    decoders: tuple[Check, ...]

    @property
    def can_predict(self) -> bool:
        """Whether there is a verified bundle and an engine that runs it."""
        return self.bundle.works and any(check.works for check in self.backends)

    def to_dict(self) -> dict[str, object]:
        """The report as a JSON object; what is not known is null, with a reason beside it."""
        return {
            "schema": SCHEMA,
            "can_predict": self.can_predict,
            "hipnet_edge": __version__,
            "python": self.python,
            "packages": {name: fact.to_dict() for name, fact in self.packages.items()},
            "machine": self.machine.to_dict(),
            "bundle": asdict(self.bundle),
            "backends": [asdict(check) for check in self.backends],
            "choice": asdict(self.choice),
            "gpu": [asdict(check) for check in self.gpu],
            "decoders": [asdict(check) for check in self.decoders],
        }

    def table(self) -> str:
        """The report as lines for a person."""
        machine = self.machine
        lines = [
            f"hipnet-edge {__version__}, Python {self.python}, {machine.system} "
            f"{machine.architecture}",
            "",
            "Machine",
            _row("processor", machine.processor),
            _row("cores", machine.cores),
            _row("usable cores", machine.usable_cores),
            _row("core quota", machine.core_quota),
            _row("memory, MiB", machine.memory_mib),
            _row("available, MiB", machine.available_memory_mib),
            _row("memory limit, MiB", machine.memory_limit_mib),
            _row("instructions", machine.instructions, _instructions),
            _row("NVIDIA GPU", machine.gpus, _gpus),
            _row("Jetson", machine.jetson),
            "",
            "Packages",
            *(_row(name, fact) for name, fact in self.packages.items()),
        ]
        for title, checks in (
            ("Reference bundle", (self.bundle,)),
            ("Backends", (*self.backends, self.choice)),
            ("For engines on a GPU", self.gpu),
            ("Decoders", self.decoders),
        ):
            lines += ["", title]
            for check in checks:
                lines.append(
                    f"  {check.name:<26} {'works' if check.works else 'NO':<6} {check.detail}"
                )
                if check.remedy is not None:
                    lines.append(f"  {'':<26} {'':<6} {check.remedy}")
        can = "This machine can predict." if self.can_predict else "This machine CANNOT predict."
        return "\n".join([*lines, "", can])


def examine() -> Report:
    """Examine this machine. Raises nothing: whatever fails stands in the report."""
    bundle, loaded = _bundle()
    return Report(
        python=platform.python_version(),
        packages={name: _package(name) for name in PACKAGES},
        machine=examine_machine(),
        bundle=bundle,
        backends=_backends(loaded),
        choice=_try("remembered choice", _remembered),
        gpu=_gpu(),
        decoders=tuple(_try(sample.label, partial(_decode, sample)) for sample in SAMPLES),
    )


def _package(name: str) -> Fact[str]:
    try:
        return Fact(version(name))
    except PackageNotFoundError:
        return Fact(None, "not installed")


def _try(name: str, attempt: Callable[[], str]) -> Check:
    """One check: what the attempt says, or whatever it raises as the reason."""
    try:
        return Check(name, True, attempt())
    except MissingExtra as error:
        return Check(name, False, error.message, f'pip install "hipnet-edge[{error.extra}]"')
    except HipNetError as error:
        return Check(name, False, f"{error.message} [{error.code.value}]")
    except Exception as error:  # a broken library may raise anything; the doctor says so
        return Check(name, False, f"{type(error).__name__}: {error}")


def _bundle() -> tuple[Check, Bundle | None]:
    found: list[Bundle] = []

    def load() -> str:
        from hipnet_edge.bundle import Bundle

        found.append(Bundle.reference())
        manifest = found[0].manifest
        return (
            f"{manifest.name} {manifest.version}, sha256 {manifest.digest}, "
            f"variants {', '.join(manifest.variants)}, every file verified"
        )

    return _try("reference", load), next(iter(found), None)


def _backends(bundle: Bundle | None) -> tuple[Check, ...]:
    try:
        from hipnet_edge.backends import BACKENDS
    except Exception as error:  # see _try
        return (Check("all", False, f"{type(error).__name__}: {error}"),)
    offered = {} if bundle is None else bundle.manifest.variants
    checks = []
    for name, kind in BACKENDS.items():
        possible = [wanted for wanted, variant in kind.variants.items() if variant in offered]
        # Where the bundle offers nothing for it, the attempt says so by itself.
        for precision in possible or ["auto"]:
            label = f"{name} {precision}" if possible else name
            checks.append(_try(label, partial(_infer, name, precision, bundle)))
    return tuple(checks)


def _infer(name: str, precision: str, bundle: Bundle | None) -> str:
    """Load the network into a backend and run it twice, the second time with a clock."""
    from hipnet_edge.backends import choose_backend
    from hipnet_edge.bundle import Bundle

    choice = choose_backend(bundle or Bundle.reference(), name, precision)
    backend = choice.backend
    try:
        pattern = backend.signature.test_pattern()
        backend.infer(pattern)
        started = time.perf_counter()
        backend.infer(pattern)
        took = 1e3 * (time.perf_counter() - started)
    finally:
        backend.close()
    flags = "".join(f"; {flag.value}" for flag in sorted(choice.flags))
    return f"{backend.version} on {backend.device}, {choice.variant}: {took:.0f} ms a study{flags}"


def _remembered() -> str:
    """The latest race of the engines on the CPU, as `auto` found it."""
    from hipnet_edge.backends.race import label_of, remembered

    found = remembered()
    if not found:
        return "none yet: the first start with auto measures, where more than one engine may run"
    latest = found[-1]
    return f"{label_of(latest.backend, latest.variant)}: {latest.reason()}"


def _gpu() -> tuple[Check, ...]:
    """Driver, library for the device, TensorRT and the folder of plans; and what is not proven."""
    from hipnet_edge.backends.device import UNPROVEN

    proven = Check(
        "GPU code proven",
        False,
        f"no GPU has yet run {', '.join(UNPROVEN)} of this version; results say unproven_engine",
        "python -m benchmarks.gpu_check compares it with the CPU, on a machine with a GPU",
    )
    return (
        _try("NVIDIA driver", _driver),
        _try("device library", _device),
        _try("TensorRT", _tensorrt),
        _try("plans and verdicts", _plans),
        proven,
    )


def _driver() -> str:
    from hipnet_edge.backends.tensorrt_flavour import require_driver

    require_driver()
    return "loads"


def _device() -> str:
    from hipnet_edge.backends.device import open_device

    device = open_device()
    try:
        graphs = "with CUDA graphs" if device.graphs else "without CUDA graphs"
        return f"{device.library}, {graphs}: {device.describe()}, driver for CUDA {device.driver}"
    finally:
        device.close()


def _tensorrt() -> str:
    from hipnet_edge.backends.tensorrt_flavour import load_tensorrt

    flavour = load_tensorrt()
    return f"{flavour.name} {flavour.version}"


def _plans() -> str:
    from hipnet_edge.backends.plan_cache import PlanCache

    cache = PlanCache()
    entries = cache.entries()
    networks = {entry.key.network for entry in entries.values()}
    verdicts = sum(len(cache.verdicts(network)) for network in networks)
    return f"{cache.folder}: {len(entries)} plans, {verdicts} verdicts on their networks"


def _decode(sample: Sample) -> str:
    """Decode a sample and compare it with what it was made from."""
    from hipnet_edge.radiograph import Radiograph

    file = Path(__file__).parent / "decoder_samples" / f"{sample.name}.dcm"
    stored = Radiograph.from_dicom(file).stored.astype(np.int64)
    away = int(np.abs(stored - sample_pixels(sample.bits)).max())
    if away > sample.tolerance:
        raise ValueError(f"decoded values are up to {away} away from the right ones")
    return "decodes exactly" if sample.tolerance == 0 else f"decodes; lossy, at most {away} away"


def _row(name: str, fact: Fact[Any], show: Callable[..., str] = str) -> str:
    known = fact.value is not None
    return f"  {name:<26} {show(fact.value) if known else f'- ({fact.reason})'}"


def _instructions(found: dict[str, bool]) -> str:
    return ", ".join(name if there else f"no {name}" for name, there in found.items())


def _gpus(found: list[dict[str, str | None]]) -> str:
    return "; ".join(json.dumps(gpu) for gpu in found)
