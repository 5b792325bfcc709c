"""What four frozen backbones say of a cohort, run once and kept on disk while a tail is fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from export.augmentation import augment
from export.backbones import Backbone, open_session
from export.cohort import Cohort
from export.network import FEATURE_STRIDE
from export.parts import OUTPUTS
from export.train import Batch, read_batches
from hipnet_edge.vocabulary import CAUSES, VIEWS

Array = NDArray[Any]
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Answers:
    """What the backbones gave for N studies, and the studies' truth.

    Attributes:
        logits: float32 [4, N, 5].
        features: for each backbone float16 [N, 2, C, h, w], memory-mapped.
        occupancy: float32 [N, 2, H/8, W/8], as the backbones saw the studies.
        causes: int64 [N], -1 for a sound prosthesis.
    """

    logits: Array
    features: list[Array]
    occupancy: Array
    causes: Array

    def __len__(self) -> int:
        return len(self.causes)

    def read(self, indices: Array) -> tuple[list[Tensor], list[Tensor]]:
        """Logits 4 x [B, 5] and features 4 x [B, 2, C, h, w] in float32, as a tail takes them."""
        logits = [torch.from_numpy(member[indices]) for member in self.logits]
        features = [torch.from_numpy(f[indices]).float() for f in self.features]
        return logits, features

    def batches(self, size: int = 16) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """All studies in order."""
        for start in range(0, len(self), size):
            yield self.read(np.arange(start, min(start + size, len(self))))


def ask(
    backbones: Sequence[Backbone],
    cohort: Cohort,
    directory: Path,
    *,
    augmented: bool = False,
    threads: int = 0,
    seed: int = 0,
) -> Answers:
    """Run the backbones over a cohort.

    Args:
        backbones: the set.
        cohort: N studies.
        directory: where the features are kept; about 2 MB a study.
        augmented: vary each study once, as training does.
        threads: of ONNX Runtime; 0 is all cores.
        seed: of the augmentation.
    """
    directory.mkdir(parents=True)
    sessions = [open_session(backbone.model, threads) for backbone in backbones]
    spec, n = cohort.index["input"], len(cohort)
    rows, columns = spec["rows"] // FEATURE_STRIDE, spec["columns"] // FEATURE_STRIDE
    features = [
        np.lib.format.open_memmap(
            directory / f"{backbone.name}.npy",
            mode="w+",
            dtype=np.float16,
            shape=(n, len(VIEWS), backbone.channels, rows, columns),
        )
        for backbone in backbones
    ]
    logits = np.empty((len(backbones), n, len(CAUSES)), np.float32)
    occupancy = []
    bar = tqdm(_studies(cohort, augmented, seed), desc="backbones", total=n, mininterval=5)
    for i, batch in enumerate(bar):
        for k, session in enumerate(sessions):
            given, planes = session.run(list(OUTPUTS), {"radiographs": batch.radiographs.numpy()})
            logits[k, i] = given[0]
            features[k][i] = planes[0].clip(-_LARGEST, _LARGEST)
        occupancy.append(batch.occupancy.numpy())
    return Answers(logits, list(features), np.concatenate(occupancy), np.asarray(cohort.causes))


def _studies(cohort: Cohort, augmented: bool, seed: int) -> Iterator[Batch]:
    """One study at a time: a backbone may take no more."""
    generator = torch.Generator().manual_seed(seed)
    spec = cohort.index["input"]
    for batch in read_batches(cohort, np.arange(len(cohort)), 1, half=False):
        if augmented:
            radiographs, occupancy = augment(
                batch.radiographs, batch.occupancy, spec["mean"], spec["std"], generator
            )
            batch = Batch(radiographs, occupancy, batch.causes)
        yield batch
