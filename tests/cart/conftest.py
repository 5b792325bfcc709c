from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from leaks import leaks


@pytest.fixture(scope="session", autouse=True)
def no_patient_data_outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end of all tests: no file of any cart, but database and objects, names a patient."""
    yield
    assert not leaks(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that predicts in milliseconds."""
    from small_bundle import write_bundle

    return write_bundle(tmp_path_factory.mktemp("bundle") / "small")
