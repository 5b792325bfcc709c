"""How far a study is from those the backbones were trained on: the output `novelty`.

Mean and standard deviation of each channel of a backbone's features, for each view, form one
vector. Its squared Mahalanobis distance from the training studies, divided by their median, is 1
for a study as usual as half of them; the output is the mean over the four backbones. A fixed
projection does it all: plain products and sums inside the merged graph, at home on every engine.

The Gaussian is fitted to *augmented* training studies: what exposure, noise and sharpness change
is then no novelty, while a turned or exchanged picture is one. Of its axes only the widest are
kept, the rest share one width: a full covariance would weigh more than a backbone.

Sources: Lee et al., A simple unified framework for detecting out-of-distribution samples, NeurIPS
2018, with one Gaussian; Tipping and Bishop, Probabilistic principal component analysis, 1999;
shrinkage after Ledoit and Wolf, 2004.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from torch import Tensor, nn

Array = NDArray[Any]

AXES = 64
"""Axes of the Gaussian with a width of their own."""


def pooled(features: Tensor) -> Tensor:
    """Features [B, 2, C, h, w] to one vector a study [B, 4 * C].

    The views stay apart: an AP where a lateral belongs is a stranger too.
    """
    mean = features.mean((3, 4), keepdim=True)
    # Not the mean of squares less the square of the mean: that cancels in low precision.
    off = features - mean
    spread = (off * off).mean((3, 4)).add(1e-6).sqrt()
    return torch.cat([mean.flatten(1), spread.flatten(1)], dim=1)


class Distance(nn.Module):
    """Squared distance of vectors [B, P] from a Gaussian, in units of the fitted ones' median.

    Args:
        size: P.
        axes: K, how many axes have a width of their own.
    """

    centre: Tensor
    scale: Tensor
    axes: Tensor
    stretch: Tensor
    rest: Tensor

    def __init__(self, size: int, axes: int) -> None:
        super().__init__()
        for name, shape in (
            ("centre", (size,)),
            ("scale", (size,)),
            ("axes", (size, axes)),
            ("stretch", (axes,)),
            ("rest", (1,)),
        ):
            self.register_buffer(name, torch.zeros(shape))

    @classmethod
    def fit(cls, vectors: Array) -> Distance:
        """The Gaussian of vectors [N, P]."""
        vectors = vectors.astype(np.float64)
        centre = vectors.mean(axis=0)
        # Channels differ in scale by orders; shrinkage towards a sphere needs them alike.
        scale = 1.0 / np.maximum(vectors.std(axis=0), 1e-6)
        covariance, _ = ledoit_wolf((vectors - centre) * scale)
        widths, axes = np.linalg.eigh(covariance)
        kept = min(AXES, len(widths) - 1)
        wide, rest = widths[: -kept - 1 : -1], widths[:-kept].mean()
        distance = cls(len(centre), kept)
        found = {
            "centre": centre,
            "scale": scale,
            "axes": axes[:, : -kept - 1 : -1].copy(),
            "stretch": 1.0 / np.sqrt(wide),
            "rest": np.array([1.0 / np.sqrt(rest)]),
        }
        distance.load_state_dict({k: torch.from_numpy(v).float() for k, v in found.items()})
        unit = distance(torch.from_numpy(vectors).float()).median().sqrt()
        distance.stretch /= unit
        distance.rest /= unit
        return distance

    def forward(self, vectors: Tensor) -> Tensor:
        """The distances [B]."""
        standard = (vectors - self.centre) * self.scale
        along = standard @ self.axes
        beside = (standard - along @ self.axes.T) * self.rest
        along = along * self.stretch
        return (along * along).sum(1) + (beside * beside).sum(1)


class Novelty(nn.Module):
    """The mean distance over the backbones: features 4 x [B, 2, C, h, w] to a score [B]."""

    def __init__(self, distances: Sequence[Distance]) -> None:
        super().__init__()
        self.distances = nn.ModuleList(distances)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The score of B studies."""
        found = [distance(pooled(f)) for distance, f in zip(self.distances, features, strict=True)]
        return torch.stack(found).mean(0)


def fit_novelty(vectors: Sequence[Array]) -> Novelty:
    """The statistics of novelty from each backbone's vectors [N, P] of training studies."""
    return Novelty([Distance.fit(one) for one in vectors])


@torch.no_grad()
def novelty_if_unseen(
    fitted_on: Sequence[Array], families: Array, vectors: Sequence[Array], own: Array
) -> Array:
    """The score of each study by statistics that never met its implant's family.

    An implant nobody trained on is a common patient, not a stranger; how far such a one lies from
    the rest is what a limit must allow for.

    Args:
        fitted_on: each backbone's vectors [N, P] of training studies.
        families: [N], their implants' families.
        vectors: each backbone's vectors [M, P] of other studies.
        own: [M], their implants' families.
    """
    scores = np.empty(len(own))
    for family in np.unique(own):
        others, these = families != family, own == family
        # Without any other family there is nothing to be measured by but all of them.
        kept = others if others.any() else np.ones_like(others)
        distances = fit_novelty([one[kept] for one in fitted_on]).distances
        found = [
            distance(torch.from_numpy(one[these]))
            for distance, one in zip(distances, vectors, strict=True)
        ]
        scores[these] = torch.stack(found).mean(0).numpy()
    return scores
