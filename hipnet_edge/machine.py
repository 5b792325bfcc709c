"""What this machine is: processor, cores it may use, memory, GPU, Jetson.

A thing that cannot be found out is `None` with the reason, never 0 and never a guess.
"""

from __future__ import annotations

import csv
import os
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

_INT8_DEVICES = {
    "cpu-vnni": ("avx512_vnni", "avx_vnni", "amx_int8"),
    "cpu-avx512": ("avx512f",),
    "cpu-avx2": ("avx2",),
    "cpu-i8mm": ("i8mm",),
    "cpu-dotprod": ("asimddp",),
}
"""Which instructions decide how INT8 is computed, the strongest of a family first."""

X86_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""What decides the speed of FP32 (AVX2, AVX-512), INT8 (VNNI, AMX) and BF16 on x86."""

ARM_FLAGS = ("asimd", "asimddp", "i8mm", "bf16", "sve")
"""The same on 64-bit ARM: Neon, its dot product, the 8-bit matrix product, BF16."""


@dataclass(frozen=True)
class Fact(Generic[T]):
    """Something about the machine: its value, or None and the reason why it is not known."""

    value: T | None
    reason: str | None = None

    @classmethod
    def find(cls, finder: Callable[[], T]) -> Fact[T]:
        """What `finder` returns; whatever it raises becomes the reason."""
        try:
            return cls(finder())
        except Exception as error:  # a doctor reports what it cannot find and goes on
            return cls(None, str(error) or type(error).__name__)

    def to_dict(self) -> dict[str, object]:
        """`{"value": …}`, with `"reason"` where there is one."""
        return {"value": self.value} | ({"reason": self.reason} if self.reason else {})


class NotFoundOut(Exception):
    """Why something about the machine is not known."""


@dataclass(frozen=True)
class Machine:
    """The machine this process runs on."""

    system: str
    architecture: str
    processor: Fact[str]
    cores: Fact[int]
    """Logical cores of the machine."""
    usable_cores: Fact[int]
    """Cores this process may keep busy: affinity and quota considered."""
    core_quota: Fact[float]
    """Cores' worth of time the container may use."""
    instructions: Fact[dict[str, bool]]
    """The vector instructions that decide an engine's speed, and whether they are there."""
    memory_mib: Fact[int]
    available_memory_mib: Fact[int]
    memory_limit_mib: Fact[int]
    """Memory the container may use."""
    gpus: Fact[list[dict[str, str | None]]]
    """Name, memory and driver of each NVIDIA GPU; None inside where the driver does not say."""
    jetson: Fact[str]

    def to_dict(self) -> dict[str, object]:
        """The machine as a JSON object; each fact with its value or its reason."""
        return {
            name: fact.to_dict() if isinstance(fact, Fact) else fact
            for name, fact in vars(self).items()
        }


def examine() -> Machine:
    """Look at this machine. Raises nothing: what is not known says why."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        processor=Fact.find(_processor),
        cores=Fact.find(_cores),
        usable_cores=Fact.find(_usable_cores),
        core_quota=Fact.find(_core_quota),
        instructions=Fact.find(_instructions),
        memory_mib=Fact.find(lambda: _meminfo("MemTotal")),
        available_memory_mib=Fact.find(lambda: _meminfo("MemAvailable")),
        memory_limit_mib=Fact.find(_memory_limit),
        gpus=Fact.find(_gpus),
        jetson=Fact.find(_jetson),
    )


def int8_device() -> str:
    """The CPU as a device that a verdict on INT8 names, such as "cpu-vnni" or "cpu-dotprod".

    Products of u8 and s8 saturate at 16 bit on x86 without VNNI, and ARM's dot product adds up in
    another order: the same file gives other answers there. "cpu" where the flags are not known.
    """
    present = Fact.find(_instructions).value or {}
    for device, flags in _INT8_DEVICES.items():
        if any(present.get(flag) for flag in flags):
            return device
    return "cpu"


def bf16_instructions() -> str | None:
    """The instructions that multiply BF16 here, "amx" or "avx512"; None where there are none.

    Engines that are asked for BF16 all the same compute it in FP32, slower than FP32 itself.
    """
    present = Fact.find(_instructions).value or {}
    found = {"amx": "amx_bf16", "avx512": "avx512_bf16"}
    return next((name for name, flag in found.items() if present.get(flag)), None)


def cpu_signature() -> dict[str, object]:
    """What of the CPU decides which code an engine runs on it, and how fast that is."""
    instructions = Fact.find(_instructions).value or {}
    return {
        "processor": Fact.find(_processor).value or platform.machine(),
        "instructions": sorted(name for name, there in instructions.items() if there),
        "usable_cores": _usable_cores(),
    }


def first_gpu() -> str:
    """The first GPU as verdicts name it, "NVIDIA A10 (8.6)"; "gpu" where nothing says which."""
    found = Fact.find(_gpus).value
    if not found or found[0]["name"] is None or found[0]["compute_cap"] is None:
        return "gpu"
    return f"{found[0]['name']} ({found[0]['compute_cap']})"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise NotFoundOut(f"{path} is not there") from error


def _processor() -> str:
    text = _read("/proc/cpuinfo")
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    if found is None:
        raise NotFoundOut("/proc/cpuinfo names no model")
    return found.group(1).strip()


def _cores() -> int:
    count = os.cpu_count()
    if count is None:
        raise NotFoundOut("the operating system does not say")
    return count


def _instructions() -> dict[str, bool]:
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    if found is None:
        raise NotFoundOut("/proc/cpuinfo lists no flags")
    present = set(found.group(1).split())
    wanted = ARM_FLAGS if platform.machine() in {"aarch64", "arm64"} else X86_FLAGS
    return {name: name in present for name in wanted}


def _usable_cores() -> int:
    # Imported here and below: the engines, whose package this is, ask this module for the CPU.
    from hipnet_edge.backends.cores import available_cores

    return available_cores()


def _core_quota() -> float:
    from hipnet_edge.backends.cores import core_quota

    quota = core_quota()
    if quota is None:
        raise NotFoundOut("no limit is set")
    return quota


def _memory_limit() -> int:
    if Path("/sys/fs/cgroup/memory.max").exists():
        limit = _read("/sys/fs/cgroup/memory.max").strip()
    else:
        limit = _read("/sys/fs/cgroup/memory/memory.limit_in_bytes").strip()
    # Version 1 writes "no limit" as the largest whole number of pages.
    if limit == "max" or int(limit) >= 1 << 60:
        raise NotFoundOut("no limit is set")
    return int(limit) >> 20


def _meminfo(field: str) -> int:
    found = re.search(rf"^{field}:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    if found is None:
        raise NotFoundOut(f"/proc/meminfo has no {field}")
    return int(found.group(1)) >> 10


def _gpus() -> list[dict[str, str | None]]:
    fields = ("name", "memory.total", "driver_version", "compute_cap")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        raise NotFoundOut("nvidia-smi is not installed") from None
    except subprocess.TimeoutExpired:
        raise NotFoundOut("nvidia-smi did not answer within ten seconds") from None
    if ran.returncode:
        said = (ran.stdout + ran.stderr).strip().splitlines()
        raise NotFoundOut(f"nvidia-smi failed: {said[0] if said else ran.returncode}")
    # On a Jetson the driver answers "[N/A]" or "[Not Supported]": unknown, not zero.
    return [
        {
            field: None if value.strip().startswith("[") else value.strip()
            for field, value in zip(fields, row, strict=False)
        }
        for row in csv.reader(ran.stdout.splitlines())
    ]


def _jetson() -> str:
    try:
        model = _read("/proc/device-tree/model").strip("\0\n ")
        release = _read("/etc/nv_tegra_release").splitlines()[0].strip("# ")
    except NotFoundOut:
        raise NotFoundOut("not a Jetson") from None
    return f"{model} ({release})"
