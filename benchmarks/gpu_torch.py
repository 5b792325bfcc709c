"""The same network in PyTorch on the GPU, as a rival; and what the GPU can do at most.

The weights are random: how long it takes does not depend on them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.gpu_latency import latency
from export.network import MEMBERS, Member, channels_last, deploy
from export.novelty import AXES, Distance, Novelty
from export.tail import Fusion, MapHead, NetworkOutputs, Tail
from hipnet_edge.backends.backend import Signature
from hipnet_edge.preprocessing import InputSpec


class Whole(nn.Module):
    """Four backbones and their tail, as the merged ONNX file has them."""

    def __init__(self) -> None:
        super().__init__()
        members = [Member(name) for name in MEMBERS]
        self.members = nn.ModuleList(members)
        channels = [member.channels for member in members]
        novelty = Novelty([Distance(4 * count, AXES) for count in channels])
        self.tail = Tail(MapHead(channels), Fusion([1.0] * 4, [0.25] * 4), novelty)

    def forward(self, radiographs: torch.Tensor) -> NetworkOutputs:
        """Answer for [B, 2, H, W]."""
        answers = [member(radiographs) for member in self.members]
        outputs: NetworkOutputs = self.tail(
            [answer.logits for answer in answers], [answer.features for answer in answers]
        )
        return outputs


def rivals(spec: InputSpec, runs: int) -> dict[str, Any]:
    """Latency of PyTorch, eager and compiled with CUDA graphs: FP16, channels-last, transfers."""
    _require_gpu()
    network = deploy(Whole()).cuda().half()
    channels_last(network)
    shape = Signature(spec.rows, spec.columns, 1, 1).input_shape()
    host = torch.randn(shape).half().pin_memory()
    report: dict[str, Any] = {"torch": torch.__version__, "weights": "random"}
    compiled = torch.compile(network, mode="reduce-overhead")
    for name, module in (("eager", network), ("compiled_with_cuda_graphs", compiled)):

        def study(module: Any = module) -> None:
            with torch.inference_mode():
                for output in module(host.cuda(non_blocking=True)):
                    output.float().cpu()

        report[name] = latency(study, runs)
    report["largest_device_memory_mib"] = torch.cuda.max_memory_allocated() >> 20
    return report


def ceilings() -> dict[str, Any]:
    """Bytes and FP16 operations a second that this GPU reaches on a copy and a matrix product."""
    _require_gpu()
    size = 8192
    one = torch.randn(size, size, device="cuda", dtype=torch.float16)
    other, made = torch.randn_like(one), torch.empty_like(one)
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def product() -> None:
        torch.mm(one, other, out=made)
        torch.cuda.synchronize()

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize()

    seconds = latency(product, 20, 5)["p50_ms"] / 1e3
    copying = latency(copy, 20, 5)["p50_ms"] / 1e3
    return {
        "fp16_operations_per_second": 2 * size**3 / seconds,
        "bytes_per_second": 2 * source.nbytes / copying,
    }


def _require_gpu() -> None:
    if not torch.cuda.is_available():
        raise RuntimeError("PyTorch sees no GPU")
