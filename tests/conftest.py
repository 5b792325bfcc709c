from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file


@pytest.fixture(scope="session")
def real_radiograph() -> Callable[[str], Path]:
    """The path of a radiograph from the pydicom-data package, by name; nothing is downloaded."""

    def path_of(name: str) -> Path:
        found = get_testdata_file(name, download=False)
        if found is None:
            pytest.skip(f"pydicom-data with {name} is not installed")
        return Path(str(found))

    return path_of
