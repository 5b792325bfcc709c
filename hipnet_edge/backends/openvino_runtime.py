"""OpenVINO itself: found, imported without its telemetry, and asked to compile a network."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from hipnet_edge.errors import EngineUnusable, MissingExtra, Reason

if TYPE_CHECKING:
    import openvino

_TELEMETRY = "openvino_telemetry"


@dataclass(frozen=True)
class Setup:
    """On what, and how, OpenVINO is to compute."""

    device: str
    """"CPU" or "GPU", as OpenVINO calls it."""
    hint: str
    """The type of everything that is not INT8 in the file: "f32", "bf16" or "f16"."""
    threads: int
    """That share one inference; the CPU's."""
    streams: int
    """How many inferences run at once, each with its own threads."""
    properties: Mapping[str, object] = field(default_factory=dict)
    """Further properties of OpenVINO, by name."""

    def to_openvino(self) -> dict[str, object]:
        """The properties under which a network is compiled or taken from a cache."""
        asked: dict[str, object] = {
            # Without it OpenVINO computes FP32 networks in BF16 or FP16 wherever it can.
            "INFERENCE_PRECISION_HINT": self.hint,
            "NUM_STREAMS": self.streams,
            **self.properties,
        }
        if self.device == "CPU":
            asked |= {
                "INFERENCE_NUM_THREADS": self.threads * self.streams,
                # Pinned threads of two models, or of the integrator's own work, meet on one core.
                "ENABLE_CPU_PINNING": False,
            }
        return asked


def import_openvino() -> ModuleType:
    """OpenVINO, if it is installed and loads; importing it sends nothing.

    Raises:
        MissingExtra: it is not installed.
        EngineUnusable: it does not load here (ENGINE_UNAVAILABLE).
    """
    try:
        with _silent():
            return import_module("openvino")
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise EngineUnusable(
                f"OpenVINO is installed, but its module {error.name} is missing.",
                Reason.ENGINE_UNAVAILABLE,
            ) from error
        raise MissingExtra("openvino", "The OpenVINO backend") from error
    except ImportError as error:
        raise EngineUnusable(
            "OpenVINO is installed but does not load on this machine.", Reason.ENGINE_UNAVAILABLE
        ) from error


def core() -> openvino.Core:
    """A core that keeps no cache of its own: ours knows what it was made from."""
    opened: openvino.Core = import_openvino().Core()
    return opened


def compile_network(model: bytes, setup: Setup) -> openvino.CompiledModel:
    """Compile an ONNX file.

    Raises:
        EngineUnusable: OpenVINO refuses it (ENGINE_FAILED).
    """
    engine = core()
    try:
        network = engine.read_model(model)
        return engine.compile_model(network, setup.device, setup.to_openvino())
    except Exception as error:  # OpenVINO's exceptions share no base but Exception
        raise EngineUnusable("OpenVINO refuses the bundle's network.") from error


def import_network(compiled: bytes, setup: Setup) -> openvino.CompiledModel:
    """Take a network that was compiled and exported before.

    Raises:
        EngineUnusable: OpenVINO refuses it (ENGINE_FAILED).
    """
    try:
        return core().import_model(compiled, setup.device, setup.to_openvino())
    except Exception as error:  # see compile_network
        raise EngineUnusable("OpenVINO refuses the network from the cache.") from error


def export_network(compiled: openvino.CompiledModel) -> bytes:
    """A compiled network as `import_network` takes it."""
    stream = io.BytesIO()
    compiled.export_model(stream)
    return stream.getvalue()


@contextmanager
def _silent() -> Iterator[None]:
    """Make OpenVINO's telemetry look as if it were not installed while OpenVINO is imported.

    Importing `openvino` otherwise reports that to a server and writes into the home folder. With
    the package absent it takes a stub in its place, and nothing else changes.
    """
    absent = _TELEMETRY not in sys.modules
    if absent:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[_TELEMETRY]
