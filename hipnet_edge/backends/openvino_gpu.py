"""OpenVINO on an integrated or discrete GPU of Intel's. No test has seen it compute on one."""

from __future__ import annotations

from typing import ClassVar

from hipnet_edge.backends.backend import Identity
from hipnet_edge.backends.openvino_backend import OpenVinoBackend, release_of
from hipnet_edge.backends.openvino_runtime import Setup, core, import_openvino
from hipnet_edge.errors import EngineUnusable, Reason


class OpenVinoGpuBackend(OpenVinoBackend):
    """OpenVINO's GPU plugin, on the first GPU that it finds."""

    name: ClassVar = "openvino-gpu"
    variants: ClassVar = {"int8": "cpu-int8", "fp32": "fp32"}
    on_gpu: ClassVar = True
    proven: ClassVar = False

    @classmethod
    def identify(cls, variant: str) -> Identity:
        """OpenVINO's version and the GPU's name.

        Raises:
            EngineUnusable: OpenVINO finds no GPU (ENGINE_UNAVAILABLE); MissingExtra if it is not
                installed.
        """
        engine = core()
        if not any(device.startswith("GPU") for device in engine.available_devices):
            raise EngineUnusable(
                "OpenVINO finds no GPU: it takes Intel's, with Intel's compute runtime installed.",
                Reason.ENGINE_UNAVAILABLE,
            )
        name = str(engine.get_property("GPU", "FULL_DEVICE_NAME"))
        return Identity(release_of(import_openvino().get_version()), name)

    @classmethod
    def setup(cls, variant: str, threads: int | None) -> Setup:
        """What is not INT8 runs in FP32, as on a CPU without BF16."""
        return Setup("GPU", "f32", 1, 1)
