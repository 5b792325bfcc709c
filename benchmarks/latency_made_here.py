"""What shapes the figures: machine, clocks, power mode, versions, bundle."""

from __future__ import annotations

import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from export.provenance import made_here
from hipnet_edge import Bundle

PACKAGES = (
    *("numpy", "opencv-python-headless", "pydicom", "imagecodecs", "onnxruntime", "openvino"),
    *("torch", "onnx", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle"),
    *("pyjpegls", "psutil", "tensorrt", "onnxruntime-gpu"),
)
"""Distributions whose versions a report states where they are installed."""


def provenance(bundle: Bundle) -> dict[str, Any]:
    """Date, versions, machine with its clocks, and bundle, as entries of a report."""
    made = made_here(*filter(installed, PACKAGES))
    manifest = bundle.manifest
    return {
        **made,
        "versions": {"python": platform.python_version(), **made["versions"]},
        "machine": {**made["machine"], "flags": _flags(), **clocks(), "power_mode": power_mode()},
        "bundle": {
            "name": manifest.name,
            "version": manifest.version,
            "digest": bundle.digest,
        },
    }


def clocks() -> dict[str, Any]:
    """Present clock of each core in MHz, and the governor that sets it."""
    found = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _text("/proc/cpuinfo"), re.MULTILINE)
    governor = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    return {
        "clocks_mhz": _fact([float(mhz) for mhz in found] or None, "/proc/cpuinfo has no clocks"),
        "governor": _fact(governor or None, "the kernel offers none"),
    }


def power_mode() -> dict[str, Any]:
    """The power mode of a Jetson."""
    try:
        ran = subprocess.run(
            ["nvpmodel", "-q"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return _fact(None, "nvpmodel is not there or does not answer: not a Jetson")
    return _fact(" ".join(ran.stdout.split()), "")


def _flags() -> dict[str, Any]:
    """All flags of the processor, in one string."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return _fact(found and found.group(1), "/proc/cpuinfo lists no flags")


def _fact(value: object, reason: str) -> dict[str, Any]:
    return {"value": value} if value is not None else {"value": None, "reason": reason}


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def installed(name: str) -> bool:
    """Whether there is a distribution of that name."""
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False
