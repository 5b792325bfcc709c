from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file


@pytest.fixture(scope="session", autouse=True)
def no_cache_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled networks and remembered choices of the tests lie in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIPNET_EDGE_PLANS", str(tmp_path_factory.mktemp("cache") / "plans"))
        yield


@pytest.fixture(scope="session")
def real_radiograph() -> Callable[[str], Path]:
    """The path of a radiograph from the pydicom-data package, by name; nothing is downloaded."""

    def path_of(name: str) -> Path:
        found = get_testdata_file(name, download=False)
        if found is None:
            pytest.skip(f"pydicom-data with {name} is not installed")
        return Path(str(found))

    return path_of
