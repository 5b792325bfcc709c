"""The values that a network's activations take over a cohort: seen once, read in four ways.

Each study goes through the network once, with every activation of interest as an output, and into
one histogram a tensor. From that the range to quantise follows by any of the usual methods:
`minmax` keeps the largest value ever seen, `percentile` cuts what is rarer than one in ten
thousand, `entropy` cuts where the distribution of the quantised values is nearest to the original.
The rarest values can be what a decision hangs on, and keeping them makes all steps coarse;
`halfway` is the geometric mean of what `minmax` and `entropy` keep.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

Array = NDArray[Any]
Ranges = Mapping[str, tuple[float, float]]
"""The lowest and the highest value of each tensor that shall be told apart."""

METHODS = ("minmax", "percentile", "entropy", "halfway")
BINS = 4096
KEPT = 0.9999
"""The part of the values that `percentile` keeps."""
_LEVELS = 128
_STEP = 32


class Histogram:
    """Values seen so far: exact extremes, counts in bins that widen as values grow, means."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self._sums: Array = np.zeros(1)
        self._studies = 0
        self._width = 0.0
        self._counts = np.zeros(BINS, np.int64)

    @property
    def channel_means(self) -> Array:
        """The mean of each channel [C]."""
        return np.asarray(self._sums / self._studies)

    def add(self, values: Array) -> None:
        """Count the values of one study, channels along the second axis."""
        others = (0, *range(2, values.ndim))
        self._sums = self._sums + values.mean(axis=others, dtype=np.float64)
        self._studies += 1
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        self._widen(max(abs(self.low), abs(self.high)))
        if self._width:
            scaled = values.ravel() * np.float32(BINS / (2.0 * self._width))
            scaled += np.float32(BINS / 2)
            counts = np.bincount(scaled.astype(np.int32), minlength=BINS + 1)
            # The largest value of all lies on the last edge, and belongs into the last bin.
            counts[BINS - 1] += counts[BINS]
            self._counts += counts[:BINS]

    def _widen(self, largest: float) -> None:
        """Double the width until `largest` has a bin; two bins become one each time."""
        if self._width == 0.0:
            self._width = largest
        while self._width < largest:
            pairs = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.zeros(BINS, np.int64)
            self._counts[BINS // 4 : BINS // 4 * 3] = pairs
            self._width *= 2.0

    def range(self, method: str) -> tuple[float, float]:
        """The lowest and highest value to keep, by one of `METHODS`."""
        if method == "minmax" or self._width == 0.0:
            return self.low, self.high
        if method == "percentile":
            low, high = self._percentile()
        else:
            high = self._entropy()
            low = -high
        low, high = max(low, self.low), min(high, self.high)
        if method == "halfway":
            low = math.copysign(math.sqrt(abs(low * self.low)), self.low)
            high = math.copysign(math.sqrt(abs(high * self.high)), self.high)
        return low, high

    def _percentile(self) -> tuple[float, float]:
        edges = np.linspace(-self._width, self._width, BINS + 1)
        below = np.cumsum(self._counts) / self._counts.sum()
        cut = (1.0 - KEPT) / 2.0
        first, last = np.searchsorted(below, (cut, 1.0 - cut))
        return float(edges[first]), float(edges[min(last + 1, BINS)])

    def _entropy(self) -> float:
        """The threshold with the least divergence of the clipped and quantised magnitudes.

        Source: Migacz, 8-bit inference with TensorRT, GTC 2017.
        """
        half = BINS // 2
        sizes = (self._counts[half:] + self._counts[:half][::-1]).astype(np.float64)
        # Exact zeros (what a ReLU cut) lie in no bin that clipping could move.
        sizes[0] = sizes[1]
        ends = np.arange(_LEVELS, half + 1, _STEP)
        divergences = [_divergence(sizes, int(end)) for end in ends]
        return float(self._width * ends[int(np.argmin(divergences))] / half)


def _divergence(sizes: Array, end: int) -> float:
    """Kullback and Leibler's divergence of bins up to `end` from the same in 128 levels."""
    kept = sizes[:end]
    clipped = kept.copy()
    clipped[-1] += sizes[end:].sum()
    starts = np.linspace(0, end, _LEVELS, endpoint=False).astype(int)
    level = np.searchsorted(starts, np.arange(end), side="right") - 1
    filled = kept > 0
    share = np.add.reduceat(kept, starts) / np.maximum(np.add.reduceat(filled * 1.0, starts), 1.0)
    quantised = np.where(filled, share[level], 0.0)
    # Where nothing falls after quantising, the smallest share stands for "never".
    p, q = clipped / clipped.sum(), np.maximum(quantised / quantised.sum(), 1e-12)
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())


def observe(
    model: onnx.ModelProto, tensors: Sequence[str], studies: Iterable[Array], count: int
) -> dict[str, Histogram]:
    """Run studies through a network and count what each tensor takes on.

    Args:
        model: float32.
        tensors: which; float32 activations or inputs of the network.
        studies: float32 [1, 2, H, W] each.
        count: how many studies, for the progress bar.
    """
    import onnxruntime

    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    given = {value.name for value in whole.graph.input}
    known = given | {value.name for value in whole.graph.output}
    asked = [name for name in tensors if name not in given]
    whole.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in asked if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        whole.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = {name: Histogram() for name in tensors}
    (entry,) = given
    for study in tqdm(studies, desc="calibration", unit="study", total=count, mininterval=5):
        for name, values in zip(asked, session.run(asked, {entry: study}), strict=True):
            found[name].add(values)
        if entry in found:
            found[entry].add(study)
    return found


def ranges_by(method: str, seen: Mapping[str, Histogram]) -> Ranges:
    """Every tensor's range by one of `METHODS`."""
    return {name: histogram.range(method) for name, histogram in seen.items()}
