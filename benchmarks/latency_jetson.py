"""What a Jetson Orin could reach at best, by arithmetic alone: an estimate, nothing is measured.

The same sum over layers as the floor of this machine, with published peaks in the place of
measured ones. Peaks are dense, of the GPU alone: half of the sparse INT8 figure that NVIDIA
publishes for it, and half of that again for FP16. Memory is the module's LPDDR5, as if no cache
held anything.

Sources: NVIDIA Jetson AGX Orin Series Technical Brief v1.2 (170 sparse INT8 TOPS of the GPU),
Jetson Orin NX Series data sheet, Jetson Orin Nano Super data sheet (67 sparse INT8 TOPS, 102 GB/s).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.roofline import Peaks, floor
from hipnet_edge import Bundle

SPARSE_INT8_TOPS_AND_GBS: Mapping[str, tuple[float, float]] = {
    "Jetson AGX Orin 64 GB": (170.0, 204.8),
    "Jetson Orin NX 16 GB": (60.0, 102.4),
    "Jetson Orin Nano 8 GB, Super": (67.0, 102.0),
}
"""Of the GPU at its highest clock, and of the memory."""

VARIANTS: Mapping[str, str] = {"trt-int8": "int8", "trt-fp16": "bf16"}
"""The variants that TensorRT runs; FP16 has the peak and the bytes of BF16."""


def estimates(bundle: Bundle) -> dict[str, dict[str, float]]:
    """The shortest milliseconds of one study's inference, by module and variant."""
    found: dict[str, dict[str, float]] = {}
    for module, (tops, bandwidth) in SPARSE_INT8_TOPS_AND_GBS.items():
        int8 = 1e3 * tops / 2
        peaks = Peaks(
            gops={"int8": int8, "bf16": int8 / 2, "fp32": int8 / 16},
            reached_by=dict.fromkeys(("int8", "bf16", "fp32"), "published"),
            stream_gbs=bandwidth,
            cache_gbs=bandwidth,
            threads=1,
        )
        found[module] = {
            variant: round(floor(bundle.model(variant), peaks, precision).ms, 3)
            for variant, precision in VARIANTS.items()
            if variant in bundle.manifest.variants
        }
    return found


def as_report(bundle: Bundle) -> dict[str, Any]:
    """The estimates with what they rest on, for the report."""
    return {
        "estimate": "not measured: published peaks in the place of measured ones",
        "published": {
            name: {"sparse_int8_tops_of_the_gpu": tops, "memory_gbs": bandwidth}
            for name, (tops, bandwidth) in SPARSE_INT8_TOPS_AND_GBS.items()
        },
        "shortest_ms": estimates(bundle),
    }
