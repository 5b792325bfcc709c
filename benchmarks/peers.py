"""What a user could take instead of this package, written as its own users would write it.

Equal inputs and equal outputs: `inference_peers` take the network's input, float32 [1, 2, rows,
columns], `end_to_end_peers` the bytes of two DICOM files, and all of them give `Outputs`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from hipnet_edge.bundle import Bundle


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


class NotHere(Exception):
    """Why a peer cannot be measured here, in words."""


Loader = Callable[[Bundle, "int | None"], Peer]
"""Loads a peer for so many threads; raises `NotHere`."""


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
    from benchmarks import peers_engines, peers_torch

    return _load({**peers_torch.PEERS, **peers_engines.PEERS}, bundle, threads, only)


def end_to_end_peers(
    bundle: Bundle, threads: int | None = None, only: Collection[str] | None = None
) -> list[Peer | MissingPeer]:
    """From two DICOM files to the network's outputs, by other means; arguments as above."""
    from benchmarks import peers_end_to_end

    return _load(peers_end_to_end.PEERS, bundle, threads, only)


def yardstick(threads: int | None = 2) -> Peer | MissingPeer:
    """ResNet-50 FP32 in ONNX Runtime: float32 `peers_yardstick.SHAPE`, two views of 384 x 384."""
    from benchmarks import peers_yardstick

    try:
        return peers_yardstick.load(threads)
    except NotHere as missing:
        return MissingPeer(peers_yardstick.NAME, str(missing))


def _load(
    loaders: dict[str, Loader], bundle: Bundle, threads: int | None, only: Collection[str] | None
) -> list[Peer | MissingPeer]:
    if unknown := set(only or ()) - loaders.keys():
        raise ValueError(f"there is no peer {sorted(unknown)[0]!r}, only {', '.join(loaders)}")
    loaded: list[Peer | MissingPeer] = []
    for name, load in loaders.items():
        if only is not None and name not in only:
            continue
        try:
            loaded.append(load(bundle, threads))
        except NotHere as missing:
            loaded.append(MissingPeer(name, str(missing)))
    return loaded


def versions(*packages: str) -> dict[str, str]:
    """The versions of installed packages."""
    return {package: version(package) for package in packages}


def require(*modules: str) -> None:
    """Go on only where all these modules are installed.

    Raises:
        NotHere: one is not.
    """
    for module in modules:
        if find_spec(module) is None:
            raise NotHere(f"{module} is not installed")
