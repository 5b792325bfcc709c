"""Edge inference for paired hip radiographs: five causes of arthroplasty failure, with maps.

`Predictor` is the way in: two radiographs go in, a frozen `Prediction` comes out.
Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hipnet_edge.errors import (
    BundleUnusable,
    EngineUnusable,
    Fault,
    HipNetError,
    InputRefused,
    MissingExtra,
    OverlayUnusable,
    Reason,
    UsageError,
)
from hipnet_edge.vocabulary import CAUSES, VIEWS, Cause, Flag, Laterality, View

if TYPE_CHECKING:
    from hipnet_edge.bundle import Bundle
    from hipnet_edge.overlay import Overlay
    from hipnet_edge.prediction import InputRecord, Prediction, Provenance
    from hipnet_edge.predictor import Predictor
    from hipnet_edge.radiograph import PixelSpacing, Radiograph
    from hipnet_edge.selftest import SelftestReport
    from hipnet_edge.study import Study
    from hipnet_edge.views import Anatomy

__version__ = "0.1.0"

__all__ = [
    "CAUSES",
    "VIEWS",
    "Anatomy",
    "Bundle",
    "BundleUnusable",
    "Cause",
    "EngineUnusable",
    "Fault",
    "Flag",
    "HipNetError",
    "InputRecord",
    "InputRefused",
    "Laterality",
    "MissingExtra",
    "Overlay",
    "OverlayUnusable",
    "PixelSpacing",
    "Prediction",
    "Predictor",
    "Provenance",
    "Radiograph",
    "Reason",
    "SelftestReport",
    "Study",
    "UsageError",
    "View",
    "__version__",
]

_HOME = {
    "Anatomy": "views",
    "Bundle": "bundle",
    "InputRecord": "prediction",
    "Overlay": "overlay",
    "PixelSpacing": "radiograph",
    "Prediction": "prediction",
    "Predictor": "predictor",
    "Provenance": "prediction",
    "Radiograph": "radiograph",
    "SelftestReport": "selftest",
    "Study": "study",
}


def __getattr__(name: str) -> object:
    """Import what is named from the module it lives in (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
