"""Which values of an activation are kept, by each of the usual methods."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("tqdm", reason="tqdm is not installed")

from export.ranges import Histogram


def test_ranges_keep_all_cut_the_rare_or_cut_what_quantises_badly() -> None:
    random = np.random.default_rng(0)
    histogram = Histogram()
    for _ in range(4):
        histogram.add(random.normal(size=(100_000, 1)).astype(np.float32))
    histogram.add(np.array([[-40.0], [90.0]], np.float32))
    assert histogram.range("minmax") == (-40.0, 90.0)
    low, high = histogram.range("percentile")
    assert -5 < low < -3
    assert 3 < high < 5
    low, high = histogram.range("entropy")
    assert low == -high
    assert 3 < high < 10
    assert histogram.range("halfway") == pytest.approx((-((40 * high) ** 0.5), (90 * high) ** 0.5))


def test_a_histogram_forgets_nothing_when_it_widens() -> None:
    histogram = Histogram()
    histogram.add(np.zeros((2, 1, 3, 1), np.float32))
    assert histogram.range("entropy") == (0.0, 0.0)
    for size in (0.5, 1.0, 3.0, 100.0):
        histogram.add(np.linspace(-size, size, 1000, dtype=np.float32).reshape(2, 1, 5, 100))
    assert histogram._counts.sum() == 4000
    assert histogram.range("minmax") == (-100.0, 100.0)
