"""Looks for patient data where there must be none: logs, metrics, audit, a cart's other files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from small_study import BIRTH_DATE, PATIENT, PATIENT_ID

SECRETS = tuple(
    secret.encode().lower()
    for secret in (
        *(PATIENT, *PATIENT.split("^"), PATIENT_ID),
        *(BIRTH_DATE, f"{BIRTH_DATE[:4]}-{BIRTH_DATE[4:6]}-{BIRTH_DATE[6:]}"),
        *("Simulated^Study", "SIM-D-", "SIM-S-"),  # of hipnet_edge.simulation
    )
)
"""Names, identifiers and birth dates of the synthetic patients; three letters are too few."""

_BESIDE = {".log", ".txt", ".jsonl", ".prom"}
_MAY_HOLD = ("cart.sqlite3", "cart.sqlite3-wal", "cart.sqlite3-shm")


def leaks(folder: Path) -> list[str]:
    """The files under a folder that name a patient, but for carts' databases and `objects/`."""
    return [str(path) for path in _searched(folder) if _names_a_patient(path)]


def _searched(folder: Path) -> Iterator[Path]:
    for database in folder.rglob("cart.sqlite3"):
        data = database.parent
        for path in data.rglob("*"):
            kept = "objects" in path.relative_to(data).parts or path.name in _MAY_HOLD
            if path.is_file() and not kept:
                yield path
        for path in data.parent.iterdir():
            if path.is_file() and path.suffix in _BESIDE:
                yield path


def _names_a_patient(path: Path) -> bool:
    content = path.read_bytes().lower()
    return any(secret in content for secret in SECRETS if len(secret) > 3)
