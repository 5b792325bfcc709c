from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cart_folder import CartFolder
from small_bundle import write_bundle

from hipnet_edge import Predictor


@pytest.fixture(scope="session")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predictor]:
    """The tiny bundle, warm."""
    bundle = write_bundle(tmp_path_factory.mktemp("page") / "bundle")
    with Predictor(bundle, backend="onnxruntime", threads=1) as predictor:
        yield predictor


@pytest.fixture
def make_cart(tmp_path: Path) -> Iterator[Callable[..., CartFolder]]:
    """Makes carts, each in a folder of its own."""
    carts: list[CartFolder] = []

    def make(**settings: Any) -> CartFolder:
        carts.append(CartFolder(tmp_path / f"data{len(carts)}", **settings))
        return carts[-1]

    yield make
    for cart in carts:
        cart.queue.close()
