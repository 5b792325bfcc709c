"""TensorRT: a plan from the cache, or built on the spot, run on the first GPU."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.backends.backend import Backend, Identity, Outputs, Progress
from hipnet_edge.backends.device import open_device
from hipnet_edge.backends.plan_cache import Plan, PlanCache, PlanKey
from hipnet_edge.backends.tensorrt_build import (
    TAIL,
    WHOLE,
    BuildOptions,
    build_plan,
    options_from,
)
from hipnet_edge.backends.tensorrt_flavour import Flavour, load_tensorrt, require_driver
from hipnet_edge.errors import EngineUnusable, Reason, UsageError

if TYPE_CHECKING:
    from hipnet_edge.backends.device import Device
    from hipnet_edge.backends.tensorrt_execution import Execution
    from hipnet_edge.bundle import Bundle

OPTIONS_FILE = "options.json"
"""In the folder of plans: how this device builds, where `export.build_engines` was told so."""

_LOG = logging.getLogger(__name__)


class TensorRtBackend(Backend):
    """TensorRT or TensorRT for RTX with one plan for the whole network.

    Args:
        execution: the plans, bound to a device.
        device: that device.
        flavour: the TensorRT that built them.
        plans: what was loaded, by part.
    """

    name: ClassVar = "tensorrt"
    variants: ClassVar = {"int8": "trt-int8", "fp16": "trt-fp16"}
    on_gpu: ClassVar = True
    proven: ClassVar = False

    def __init__(
        self, execution: Execution, device: Device, flavour: Flavour, plans: dict[str, Plan]
    ) -> None:
        super().__init__(
            execution.signature,
            version=f"{flavour.name} {flavour.version}",
            device=device.describe(),
            settings={
                "layout": "merged" if list(plans) == [WHOLE] else "parts",
                "plans": {part: plan.sha256 for part, plan in plans.items()},
                "graph": execution.graph,
                "aux_streams": execution.aux_streams,
                "device_library": device.library,
                "driver": device.driver,
                "shared_memory": device.integrated,
            },
        )
        self._execution: Execution | None = execution
        self._turn = threading.Lock()

    @classmethod
    def identify(cls, variant: str) -> Identity:
        """TensorRT's flavour and version, and the first GPU."""
        require_driver()
        flavour = load_tensorrt()
        device = open_device()
        try:
            return Identity(f"{flavour.name} {flavour.version}", device.describe())
        finally:
            device.close()

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        variant: str,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> TensorRtBackend:
        """Take the plans from the cache, build what is missing, load them on the GPU.

        Raises:
            EngineUnusable: DRIVER_MISSING and its like, a plan that is refused, or a build that
                fails; MissingExtra if TensorRT or a library for the device is not installed.
        """
        # Without a driver TensorRT's own answers are None, or a crash: it is looked for first.
        require_driver()
        flavour, device = load_tensorrt(), open_device()
        try:
            from hipnet_edge.backends.tensorrt_execution import Execution

            cache = PlanCache()
            here = (device.name, device.compute_capability)
            plans = cls.find_plans(bundle, variant, flavour, here, cache, progress)
            contents = {part: plan.content for part, plan in plans.items()}
            execution = Execution(flavour, device, contents, bundle.signature(variant))
        except BaseException:
            device.close()
            raise
        return cls(execution, device, flavour, plans)

    @classmethod
    def parts(cls, bundle: Bundle) -> Sequence[str]:
        """What the network is built as."""
        return (WHOLE,)

    @classmethod
    def find_plans(
        cls,
        bundle: Bundle,
        variant: str,
        flavour: Flavour,
        device: tuple[str, str],
        cache: PlanCache,
        progress: Progress | None = None,
    ) -> dict[str, Plan]:
        """Each part's plan: the cached one where it is right, else a new one.

        Args:
            bundle: the verified bundle.
            variant: "trt-int8" or "trt-fp16".
            flavour: the TensorRT that will run them.
            device: the GPU's name and compute capability.
            cache: where they lie.
            progress: told how far a build is.

        Raises:
            EngineUnusable: PLAN_UNTRUSTED, nothing is loaded from such a folder or built into it;
                or the build fails.
        """
        options = options_from(cache.read(OPTIONS_FILE))
        signature = bundle.signature(variant)
        found = {}
        for part in cls.parts(bundle):
            key = PlanKey(
                network=bundle.network(variant),
                part=part,
                variant=variant,
                flavour=flavour.name,
                version=flavour.version,
                device=device[0],
                compute_capability=device[1],
                options=options.to_key(signature),
            )
            found[part] = cls._find_plan(bundle, key, flavour, options, cache, progress)
        return found

    @classmethod
    def _find_plan(
        cls,
        bundle: Bundle,
        key: PlanKey,
        flavour: Flavour,
        options: BuildOptions,
        cache: PlanCache,
        progress: Progress | None,
    ) -> Plan:
        try:
            return cache.load(key)
        except EngineUnusable as error:
            # What another user could have changed is not mended by writing beside it.
            if error.code is Reason.PLAN_UNTRUSTED or key.part != WHOLE:
                raise
            _LOG.info("A plan is built: %s", error.message)
            if progress is not None:
                progress(f"{error.message} It is built now, which takes a minute or more.")
        if key.compute_capability not in options.compute_capabilities:
            # The options were kept from a factory that built for other GPUs.
            options = replace(options, compute_capabilities=())
        timing = timing_file(flavour)
        built = build_plan(
            bundle.model(key.variant),
            key.variant,
            flavour,
            options,
            timing_cache=cache.read(timing),
            progress=progress,
        )
        if built.timing_cache:
            cache.keep(timing, built.timing_cache)
        return cache.store(key, built.plan, built.to_dict())

    def infer_impl(self, radiographs: NDArray[np.floating]) -> Outputs:
        """One study at a time: the plan has one set of buffers."""
        with self._turn:
            if self._execution is None:
                raise UsageError("The backend was closed.", Reason.CLOSED)
            return Outputs(**self._execution.run(radiographs))

    def close(self) -> None:
        """Give the GPU's memory back once the call that is under way has ended."""
        with self._turn:
            execution, self._execution = self._execution, None
        if execution is not None:
            execution.close()


class TensorRtPartsBackend(TensorRtBackend):
    """The same with a plan for each backbone and one that joins them: to swap or share one.

    Its plans are built by `python -m export.build_engines --layout parts` alone: cutting a network
    needs more than a runtime has.
    """

    name: ClassVar = "tensorrt-parts"

    @classmethod
    def parts(cls, bundle: Bundle) -> Sequence[str]:
        """The four backbones, and what joins them."""
        return (*(backbone.name for backbone in bundle.manifest.backbones), TAIL)


def timing_file(flavour: Flavour) -> str:
    """Where the folder of plans keeps what the builder measured: it makes rebuilds short."""
    return f"timing-{flavour.name}-{flavour.version}.cache"


def keep_options(cache: PlanCache, options: BuildOptions) -> None:
    """Let this device build with these options from now on, also when it builds by itself."""
    cache.keep(OPTIONS_FILE, (json.dumps(options.to_dict(), indent=1) + "\n").encode())
