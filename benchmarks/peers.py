"""What a user could take instead of this package, written as its own users would write it.

Equal inputs and equal outputs: `inference_peers` take the network's input, float32 [1, 2, rows,
columns], `end_to_end_peers` the bytes of two DICOM files, and all of them give `Outputs`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from hipnet_edge.bundle import Bundle

YARDSTICK_SHAPE = (2, 1, 384, 384)
"""What the yardstick takes, float32: two views of one channel."""


@dataclass(frozen=True)
class Peer:
    """One peer, loaded and warm.

    Attributes:
        name: such as "pytorch-eager".
        description: how a user would write it, in words.
        precision: "fp32", "bf16" or "int8".
        versions: of the packages that it rests on.
        run: one inference (input array to `Outputs`), one study (bytes of AP and lateral to
            `Outputs`), or for the yardstick one batch (array to array).
        close: releases it.
    """

    name: str
    description: str
    precision: str
    versions: dict[str, str]
    run: Callable[[Any], Any]
    close: Callable[[], None]


@dataclass(frozen=True)
class MissingPeer:
    """A peer that cannot be measured here, and why."""

    name: str
    reason: str


def inference_peers(
    bundle: Bundle, threads: int | None = None, only: Collection[str] | None = None
) -> list[Peer | MissingPeer]:
    """The bundle's network in other engines.

    Thread pools of libraries go on spinning for some milliseconds after a call: rest between
    the calls of different peers.

    Args:
        bundle: the bundle whose network they run.
        threads: how many each may use; None for each library's default.
        only: names of the peers that are wanted; None for all.
    """
    raise NotImplementedError


def end_to_end_peers(
    bundle: Bundle, threads: int | None = None, only: Collection[str] | None = None
) -> list[Peer | MissingPeer]:
    """From two DICOM files to the network's outputs, by other means; arguments as above."""
    raise NotImplementedError


def yardstick(threads: int | None = 2) -> Peer | MissingPeer:
    """ResNet-50 FP32 in ONNX Runtime on two views of 384 x 384: float32 `YARDSTICK_SHAPE`."""
    raise NotImplementedError
