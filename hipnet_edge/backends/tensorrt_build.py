"""From an ONNX file to a TensorRT plan, by one strongly typed way for every version.

The file already says in which type everything is computed (FP16 tensors, explicit Q/DQ), so the
builder is told to keep to it; flags and calibrators, which TensorRT 11 has no more, are not needed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hipnet_edge.backends.backend import Progress, Signature
from hipnet_edge.backends.build_log import (
    Layer,
    convolution_types,
    read_layers,
    require_precision,
    summary,
)
from hipnet_edge.backends.tensorrt_flavour import Flavour, make_logger
from hipnet_edge.errors import EngineUnusable, Reason, UsageError
from hipnet_edge.fields import Fields

WHOLE, TAIL = "network", "tail"
"""The parts that are no backbone: all of a bundle's network, and what joins four backbones."""

HARDWARE = ("none", "same_compute_capability", "ampere_plus")
"""Which other GPUs a plan of the full TensorRT may run on."""


@dataclass(frozen=True)
class BuildOptions:
    """How a plan is built; part of its key in the cache."""

    compute_capabilities: tuple[str, ...] = ()
    """For which GPUs, such as "8.6", without having them: TensorRT-RTX alone; empty: this one."""
    workspace_mib: int | None = None
    """Memory that a layer may use while it runs; None for the builder's own limit."""
    max_aux_streams: int | None = None
    """Streams beside the first; None for the builder's own choice."""
    hardware: str = "none"
    """Out of `HARDWARE`."""
    dla_core: int | None = None
    """The DLA core that takes what it can; the GPU takes the rest."""

    def to_key(self, signature: Signature) -> dict[str, object]:
        """What of it stands in a plan's key: not the GPUs, which have fields of their own."""
        options = asdict(self)
        del options["compute_capabilities"], options["hardware"]
        shape = "x".join(str(size) for size in signature.input_shape())
        return {"input": f"{signature.input_type} {shape}", **options}

    def to_dict(self) -> dict[str, object]:
        """The options as JSON; `options_from` reads them."""
        return {**asdict(self), "compute_capabilities": list(self.compute_capabilities)}


def options_from(text: bytes) -> BuildOptions:
    """Options that were kept as JSON; the builder's own choices where nothing was kept.

    Raises:
        EngineUnusable: they are none (PLAN_CORRUPT).
    """
    if not text:
        return BuildOptions()
    try:
        fields = Fields(json.loads(text), "", _complain)
    except ValueError as error:
        raise _complain("the file is not JSON.") from error
    fields.only(*BuildOptions.__dataclass_fields__)

    def count(name: str, high: int) -> int | None:
        return None if fields.raw(name) is None else fields.integer(name, 0, high)

    return BuildOptions(
        compute_capabilities=fields.texts("compute_capabilities"),
        workspace_mib=count("workspace_mib", 1 << 20),
        max_aux_streams=count("max_aux_streams", 64),
        hardware=fields.text("hardware"),
        dla_core=count("dla_core", 8),
    )


def _complain(what: str) -> EngineUnusable:
    return EngineUnusable(f"The kept build options are unusable: {what}", Reason.PLAN_CORRUPT)


@dataclass(frozen=True)
class Built:
    """A plan that was built and whose layers are as the ONNX file asks."""

    plan: bytes
    seconds: float
    layers: tuple[Layer, ...]
    convolutions: Mapping[str, str | None]
    """The type in which each convolution of the file runs."""
    kept_float: tuple[str, ...]
    """Convolutions that the file itself keeps out of INT8."""
    timing_cache: bytes
    log: tuple[str, ...] = field(repr=False)

    def to_dict(self) -> dict[str, object]:
        """What a report and the cache's index say of the build."""
        return {
            "seconds": round(self.seconds, 2),
            "bytes": len(self.plan),
            **summary(self.layers),
            "convolutions": dict(self.convolutions),
            "kept_float": list(self.kept_float),
            "not_in_log": [name for name, found in self.convolutions.items() if found is None],
        }

    def layer_list(self) -> list[dict[str, object]]:
        """Every layer with its type, for a report: what a person compares when one is slow."""
        return [
            {"name": x.name, "kind": x.kind, "precision": x.precision, "stream": x.stream}
            for x in self.layers
        ]


def build_plan(
    model: bytes,
    variant: str,
    flavour: Flavour,
    options: BuildOptions,
    *,
    timing_cache: bytes = b"",
    progress: Progress | None = None,
    part: str = WHOLE,
) -> Built:
    """Build a plan, and see from the build's own log that it is what was asked for.

    Args:
        model: an ONNX file of static shapes that carries its precision.
        variant: "trt-int8" or "trt-fp16".
        flavour: the TensorRT that builds.
        options: for which GPUs and how.
        timing_cache: what an earlier build left.
        progress: told now and then how far it is.
        part: which part of the bundle's network the file is; the tail alone may be all float.

    Raises:
        EngineUnusable: the network is refused or cannot be built (ENGINE_FAILED), or some of its
            convolutions are in another precision (WRONG_PRECISION).
        UsageError: the options are not possible with this TensorRT.
    """
    trt, log = flavour.module, list[str]()
    logger = make_logger(flavour, log)
    builder = trt.Builder(logger)
    if builder is None:
        raise _failed(f"{flavour.name} gives no builder on this machine", log)
    # The network's weights are the parser's: it must live until the plan is built.
    network, parser = _parse(trt, builder, logger, model)
    config = _configure(trt, builder, flavour, options)
    if not flavour.rtx:  # which times nothing while it builds
        config.set_timing_cache(config.create_timing_cache(timing_cache), True)
    if progress is not None:
        config.progress_monitor = _monitor(trt, progress)
    quantised, int8 = _convolutions(trt, network), variant == "trt-int8"
    started = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failed(f"{flavour.name} cannot build the network", log)
    del parser
    layers = read_layers(log)
    built = Built(
        plan=bytes(plan),
        seconds=time.perf_counter() - started,
        layers=layers,
        convolutions=convolution_types(layers, quantised),
        kept_float=tuple(name for name, is_so in quantised.items() if int8 and not is_so),
        timing_cache=b"" if flavour.rtx else bytes(config.get_timing_cache().serialize()),
        log=tuple(log),
    )
    # A file that keeps every convolution of a backbone in float is not the variant it says it is.
    all_float = len(built.kept_float) == len(quantised) and part != TAIL
    exempt = () if all_float else built.kept_float
    require_precision(built.convolutions, variant, exempt)
    return built


def _parse(trt: Any, builder: Any, logger: Any, model: bytes) -> tuple[Any, Any]:
    """The strongly typed network and the parser that made it."""
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        said = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise EngineUnusable(f"TensorRT refuses the bundle's network: {'; '.join(said[:3])}.")
    return network, parser


def _convolutions(trt: Any, network: Any) -> dict[str, bool]:
    """The ONNX nodes that are convolutions, and whether the file gives them quantised inputs."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    dequantised = {
        layer.get_output(0).name for layer in layers if layer.type == trt.LayerType.DEQUANTIZE
    }
    return {
        layer.name: layer.get_input(0).name in dequantised
        for layer in layers
        if layer.type == trt.LayerType.CONVOLUTION
    }


def _configure(trt: Any, builder: Any, flavour: Flavour, options: BuildOptions) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace_mib is not None:
        pool = trt.MemoryPoolType.WORKSPACE
        config.set_memory_pool_limit(pool, options.workspace_mib << 20)
    if options.max_aux_streams is not None:
        config.max_aux_streams = options.max_aux_streams
    if options.hardware != "none":
        if options.hardware not in HARDWARE:
            raise UsageError(f"hardware is one of {', '.join(HARDWARE)}.")
        level = getattr(trt.HardwareCompatibilityLevel, options.hardware.upper(), None)
        if level is None:
            raise UsageError(f"{flavour.name} {flavour.version} has no {options.hardware}.")
        config.hardware_compatibility_level = level
    if options.dla_core is not None:
        if builder.num_DLA_cores <= options.dla_core:
            raise UsageError(f"This machine has {builder.num_DLA_cores} DLA cores.")
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if options.compute_capabilities:
        _choose_capabilities(trt, config, flavour, options.compute_capabilities)
    return config


def _choose_capabilities(
    trt: Any, config: Any, flavour: Flavour, capabilities: tuple[str, ...]
) -> None:
    if not hasattr(config, "set_compute_capability"):
        raise UsageError(
            f"{flavour.name} {flavour.version} builds for the GPU it runs on alone; TensorRT-RTX "
            "builds for others."
        )
    members = trt.ComputeCapability.__members__
    known = {f"{name[2:-1]}.{name[-1]}": name for name in members if name.startswith("SM")}
    if unknown := [wanted for wanted in capabilities if wanted not in known]:
        raise UsageError(
            f"{flavour.name} {flavour.version} does not build for {', '.join(unknown)}; it builds "
            f"for {', '.join(known)}."
        )
    config.num_compute_capabilities = len(capabilities)
    for index, wanted in enumerate(capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, known[wanted]), index)


def _monitor(trt: Any, progress: Progress) -> Any:
    """What TensorRT tells of its phases, as lines of text: the first at once, then one a second."""
    base = trt.IProgressMonitor
    started = time.perf_counter()

    class Monitor(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)
            self._steps: dict[str, int] = {}
            self._said = started - 1.0

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            """A phase of so many steps begins."""
            self._steps[phase] = steps
            self._say(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            """A step ended; True lets the build go on."""
            self._say(phase, step + 1)
            return True

        def phase_finish(self, phase: str) -> None:
            """A phase ended."""
            self._steps.pop(phase, None)

        def _say(self, phase: str, step: int) -> None:
            now = time.perf_counter()
            if now - self._said >= 1.0:
                self._said = now
                steps = self._steps.get(phase, 0)
                progress(f"{now - started:.0f} s: {phase}, step {step} of {steps}")

    return Monitor()


def _failed(what: str, log: list[str]) -> EngineUnusable:
    """The error, with the last thing that the log complains of."""
    said = [line.strip() for line in log if "rror" in line]
    return EngineUnusable(f"{what}: {said[-1][:200] if said else 'its log says nothing'}")
