"""What every measurement says of its making, and how it is written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hipnet_edge
from hipnet_edge.machine import examine


def made_here(*packages: str) -> dict[str, Any]:
    """Date, versions and machine, as entries of a report.

    Args:
        packages: names of distributions that shape the figures, beside this one.
    """
    return {
        "date": today(),
        "versions": {
            "hipnet-edge": hipnet_edge.__version__,
            **{name: version(name) for name in packages},
        },
        "machine": examine().to_dict(),
    }


def today() -> str:
    """The date in UTC, such as 2026-01-31."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")


def write(report: Mapping[str, Any], out: Path) -> None:
    """Write a report as JSON; its folder is made if missing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
