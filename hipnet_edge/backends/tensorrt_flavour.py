"""Which TensorRT is installed: the full one, or TensorRT for RTX, behind one face.

Only names that TensorRT 10.3 to 11 and TensorRT-RTX 1.7 have in common are used, and nothing is
looked up when this module is imported: attributes come and go between these versions.
"""

from __future__ import annotations

import ctypes
import logging
import os
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from hipnet_edge.errors import EngineUnusable, MissingExtra, Reason

FLAVOURS = ("tensorrt", "tensorrt_rtx")
"""The modules, the preferred one first."""

_CHOICE = "HIPNET_EDGE_TENSORRT"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flavour:
    """An installed TensorRT."""

    name: str
    module: Any
    """`tensorrt` or `tensorrt_rtx`."""
    version: str

    @property
    def rtx(self) -> bool:
        """Whether it is TensorRT for RTX, which builds for several GPUs without having one."""
        return self.name == "tensorrt_rtx"


def load_tensorrt() -> Flavour:
    """The TensorRT of this machine; HIPNET_EDGE_TENSORRT names one where both are installed.

    Raises:
        MissingExtra: there is none.
        EngineUnusable: there is one, and it does not load (ENGINE_UNAVAILABLE).
    """
    named = os.environ.get(_CHOICE)
    if named and named not in FLAVOURS:
        raise EngineUnusable(
            f"{_CHOICE} says {named!r}; it can say {' or '.join(FLAVOURS)}.",
            Reason.ENGINE_UNAVAILABLE,
        )
    for name in (named,) if named else FLAVOURS:
        if (module := _import(name)) is not None:
            return Flavour(name, module, str(module.__version__))
    raise MissingExtra("tensorrt", "TensorRT")


def require_driver() -> None:
    """Look for the NVIDIA driver, before anything asks TensorRT for what only a driver has.

    Raises:
        EngineUnusable: there is none (DRIVER_MISSING).
    """
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise EngineUnusable(
            "There is no NVIDIA driver on this machine (libcuda.so.1 does not load): engines can "
            "be built ahead of time here, but not run.",
            Reason.DRIVER_MISSING,
        ) from error


def make_logger(flavour: Flavour, lines: list[str] | None = None) -> Any:
    """A TensorRT logger: errors and warnings go to Python's log, everything into `lines`.

    Args:
        flavour: the TensorRT that will use it.
        lines: where every message is kept, or None to keep none.
    """
    base = flavour.module.ILogger
    loud = {
        str(base.INTERNAL_ERROR): logging.ERROR,
        str(base.ERROR): logging.ERROR,
        str(base.WARNING): logging.DEBUG,
    }

    class Lines(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            """Keep a message; TensorRT calls this from threads of its own."""
            if lines is not None:
                lines.append(message)
            if (level := loud.get(str(severity))) is not None:
                _LOG.log(level, "%s", message)

    return Lines()


def _import(name: str) -> Any | None:
    """The module, or None if it is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise _does_not_load(name) from error
    except Exception as error:  # missing libraries raise OSError, stubs RuntimeError
        raise _does_not_load(name) from error


def _does_not_load(name: str) -> EngineUnusable:
    return EngineUnusable(
        f"{name} is installed but does not load on this machine.", Reason.ENGINE_UNAVAILABLE
    )
