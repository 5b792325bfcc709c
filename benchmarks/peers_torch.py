"""Peers: the bundle's network in PyTorch, eager and compiled, with the bundle's own weights.

The modules are those the network was trained as. Batch normalisation is folded and RepVGG's
branches are joined, as in the ONNX file: PyTorch is spared what its users often leave in.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import Loader, NotHere, Peer, require, versions
from hipnet_edge.backends import Outputs
from hipnet_edge.bundle import Bundle

EAGER, COMPILED = "pytorch-eager", "pytorch-compile"


class Torch:
    """Four backbones one after another, then map head, fusion and novelty."""

    def __init__(self, bundle: Bundle, threads: int | None) -> None:
        require("torch", "onnx", "sklearn")
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self._torch = torch
        self._example = bundle.signature("fp32").test_pattern()
        self._network: Any = network_of(bundle)
        self.layout = self._faster_layout()

    def compile(self) -> None:
        """Compile the network for this input."""
        compiled: Any = self._torch.compile(self._network)
        self._network = compiled

    def warm_up(self) -> None:
        """Run twice: a compiled network is made by its first run."""
        for _ in range(2):
            self.run(self._example)

    def run(self, radiographs: NDArray[np.float32]) -> Outputs:
        """One inference."""
        with self._torch.inference_mode():
            outputs = self._network(self._torch.from_numpy(radiographs))
        return Outputs(*(output.numpy() for output in outputs))

    def close(self) -> None:
        """Release the network."""
        self._network = None

    def _faster_layout(self) -> str:
        """Choose the layout of the weights that runs faster here: the default or channels-last."""
        from export.network import channels_last

        before = self._seconds()
        default = {name: value.clone() for name, value in self._network.state_dict().items()}
        channels_last(self._network)
        if self._seconds() < before:
            return "channels-last"
        for name, value in self._network.named_parameters():
            value.data = default[name]
        return "default layout"

    def _seconds(self) -> float:
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            self.run(self._example)
            taken.append(time.perf_counter() - started)
        return min(taken)


def network_of(bundle: Bundle) -> Any:
    """The bundle's FP32 network as modules of PyTorch.

    Raises:
        NotHere: its backbones are not those this project can rebuild.
    """
    import torch

    from benchmarks.gpu_torch import Whole
    from export.network import MEMBERS, deploy

    names = tuple(backbone.name for backbone in bundle.manifest.backbones)
    if names != MEMBERS:
        raise NotHere(f"the bundle's backbones are {names}, and only {MEMBERS} can be rebuilt")
    weights = weights_of(bundle.model("fp32"))
    network = deploy(Whole())
    state = {}
    for name in network.state_dict():
        path = name.split(".")
        known = ".".join([MEMBERS[int(path[1])], *path[2:]] if path[0] == "members" else path)
        if known not in weights:
            raise NotHere(f"the bundle's network holds no {known}")
        # A copy: PyTorch wants its own, aligned and writable.
        state[name] = torch.from_numpy(weights[known].copy())
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise NotHere("the bundle's network has other sizes than this version's") from error
    return network


def weights_of(model: bytes) -> dict[str, NDArray[np.float32]]:
    """The constants of an ONNX file by name; those that are stored in half precision, widened."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(model).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    widened = {
        node.output[0]: stored[node.input[0]].astype(np.float32)
        for node in graph.node
        if node.op_type == "Cast" and node.input[0] in stored
    }
    return {**stored, **widened}


def _eager(bundle: Bundle, threads: int | None) -> Peer:
    engine = Torch(bundle, threads)
    engine.warm_up()
    description = f"inference_mode, {engine.layout}, four models one after another, then the tail"
    return Peer(EAGER, description, "fp32", versions("torch"), engine.run, engine.close)


def _compiled(bundle: Bundle, threads: int | None) -> Peer:
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        raise NotHere("torch.compile needs a C++ compiler, and there is none")
    engine = Torch(bundle, threads)
    engine.compile()
    try:
        engine.warm_up()
    except Exception as error:  # whatever a tool chain may lack shows up as any exception
        raise NotHere(f"torch.compile failed: {type(error).__name__}") from error
    description = f"torch.compile with defaults, inference_mode, {engine.layout}"
    return Peer(COMPILED, description, "fp32", versions("torch"), engine.run, engine.close)


PEERS: dict[str, Loader] = {EAGER: _eager, COMPILED: _compiled}
"""By name, how each is loaded."""
