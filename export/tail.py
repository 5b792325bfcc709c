"""What belongs to one set of four backbones: map head, fusion and novelty, in plain PyTorch.

Each backbone gives `logits` [B, 5] and `features` [B, 2, C, H/16, W/16]; the tail makes of them
the outputs of the merged network. Exchange one backbone and all of this is fitted anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from export.network import FEATURE_STRIDE, MAP_STRIDE, ConvBN
from export.novelty import Distance, Novelty
from hipnet_edge.vocabulary import CAUSES, VIEWS


class NetworkOutputs(NamedTuple):
    """What the whole network gives for B studies; the outputs of the merged ONNX file."""

    probabilities: Tensor
    """[B, 5]"""
    member_probabilities: Tensor
    """[B, 4, 5]"""
    maps: Tensor
    """[B, 2, 5, H/8, W/8], 0 to 1."""
    novelty: Tensor
    """[B], about 1 for a study like those of the training, more for a stranger."""


class MapHead(nn.Module):
    """The interpretive subnetwork: four `features` to map logits [B, 2, 5, H/8, W/8]."""

    def __init__(self, channels: Sequence[int], width: int = 32) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(ConvBN(c, width, 1) for c in channels)
        self.mix = nn.Sequential(
            ConvBN(width * len(channels), 96, 3), nn.Conv2d(96, 4 * len(CAUSES), 1)
        )
        nn.init.constant_(self.mix[-1].bias, -4.0)  # type: ignore[arg-type]  # most cells are sound
        self.shuffle = nn.PixelShuffle(FEATURE_STRIDE // MAP_STRIDE)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map logits from the backbones' features, each [B, 2, C, h, w]."""
        reduced = [
            layer(f.reshape(-1, *f.shape[2:]))
            for layer, f in zip(self.reduce, features, strict=True)
        ]
        maps: Tensor = self.shuffle(self.mix(torch.cat(reduced, dim=1)))
        return maps.reshape(-1, len(VIEWS), *maps.shape[1:])


class Fusion(nn.Module):
    """Softmax of each backbone's logits at its temperature, and their weighted mean."""

    temperatures: Tensor
    weights: Tensor

    def __init__(self, temperatures: Sequence[float], weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("temperatures", torch.tensor(temperatures).reshape(1, -1, 1))
        self.register_buffer("weights", torch.tensor(weights).reshape(1, -1, 1))

    def forward(self, logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits 4 x [B, 5] to probabilities [B, 5] and member probabilities [B, 4, 5]."""
        members = torch.softmax(torch.stack(list(logits), dim=1) / self.temperatures, dim=2)
        return (members * self.weights).sum(1), members


class Tail(nn.Module):
    """Map head, fusion and novelty of one set of backbones."""

    def __init__(self, map_head: MapHead, fusion: Fusion, novelty: Novelty) -> None:
        super().__init__()
        self.map_head = map_head
        self.fusion = fusion
        self.novelty = novelty

    @classmethod
    def like(cls, state: dict[str, Tensor]) -> Tail:
        """A tail with a stored state, whatever its sizes are."""
        count = state["fusion.temperatures"].numel()
        channels = [state[f"map_head.reduce.{i}.conv.weight"].shape[1] for i in range(count)]
        axes = [state[f"novelty.distances.{i}.axes"].shape for i in range(count)]
        tail = cls(
            MapHead(channels),
            Fusion([1.0] * count, [1.0] * count),
            Novelty([Distance(*shape) for shape in axes]),
        )
        tail.load_state_dict(state)
        return tail.eval()

    def forward(self, logits: Sequence[Tensor], features: Sequence[Tensor]) -> NetworkOutputs:
        """Answer for B studies from 4 x [B, 5] and 4 x [B, 2, C, h, w]."""
        probabilities, members = self.fusion(logits)
        maps = torch.sigmoid(self.map_head(features))
        return NetworkOutputs(probabilities, members, maps, self.novelty(features))
