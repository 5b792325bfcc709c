"""ONNX Runtime's providers for NVIDIA GPUs, where a build of it that has them is installed.

They need onnxruntime-gpu in the place of onnxruntime: two packages of one module, of which no extra
of this package brings the second. No test has seen them compute on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hipnet_edge.backends.backend import Identity
from hipnet_edge.backends.onnxruntime_backend import OnnxRuntimeBackend, import_onnxruntime
from hipnet_edge.backends.tensorrt_flavour import require_driver
from hipnet_edge.errors import EngineUnusable, Reason
from hipnet_edge.machine import first_gpu


class OnnxRuntimeCudaBackend(OnnxRuntimeBackend):
    """ONNX Runtime's CUDA provider."""

    name: ClassVar = "onnxruntime-cuda"
    variants: ClassVar = {"fp16": "trt-fp16", "fp32": "fp32"}
    provider: ClassVar = "CUDAExecutionProvider"
    on_gpu: ClassVar = True
    proven: ClassVar = False

    @classmethod
    def identify(cls, variant: str) -> Identity:
        """ONNX Runtime's version and the first GPU.

        Raises:
            EngineUnusable: DRIVER_MISSING, or ENGINE_UNAVAILABLE if it lacks the provider.
        """
        runtime = import_onnxruntime()
        if cls.provider not in runtime.get_available_providers():
            raise EngineUnusable(
                f"This build of ONNX Runtime has no {cls.provider}; onnxruntime-gpu in the place "
                "of onnxruntime has it.",
                Reason.ENGINE_UNAVAILABLE,
            )
        require_driver()
        return Identity(runtime.__version__, first_gpu())

    @classmethod
    def provider_options(cls) -> Mapping[str, str]:
        """The search for the fastest convolution is made once, at the first inference."""
        return {"cudnn_conv_algo_search": "EXHAUSTIVE"}


class OnnxRuntimeTensorRtBackend(OnnxRuntimeCudaBackend):
    """ONNX Runtime's TensorRT provider. Its own engine cache stays off: it is keyed by names."""

    name: ClassVar = "onnxruntime-tensorrt"
    variants: ClassVar = {"int8": "trt-int8", "fp16": "trt-fp16"}
    provider: ClassVar = "TensorrtExecutionProvider"

    @classmethod
    def provider_options(cls) -> Mapping[str, str]:
        """The files carry their types; the provider wants to be told of them all the same."""
        return {"trt_fp16_enable": "1", "trt_int8_enable": "1", "trt_engine_cache_enable": "0"}
