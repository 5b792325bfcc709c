"""How many cores this process may really use: affinity and container limits, not the machine's."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Cores that this process may keep busy: at least 1.

    The smallest of what the machine has, what the affinity mask allows (`taskset`, cpusets) and
    what the container's quota pays for (`docker run --cpus`), a part of a core counted as one.
    An engine with more threads than that is slower, not faster.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = core_quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def core_quota(root: Path = _CGROUP, own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Cores' worth of time that the container may use; None where no limit is set.

    Args:
        root: where the control groups are mounted.
        own: the file that says in which groups this process is.
    """
    quotas = []
    for hierarchy, group in _groups(root, own):
        # A limit on any of the groups above binds as well.
        for folder in (group, *group.parents):
            if not folder.is_relative_to(hierarchy):
                break
            quota = _quota(folder)
            if quota is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _groups(root: Path, own: Path) -> list[tuple[Path, Path]]:
    """The mounted hierarchies that limit time, and this process's group in each."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    groups = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":  # version 2
            hierarchy = root
        elif "cpu" in controllers.split(","):  # version 1
            hierarchy = root / "cpu"
        else:
            continue
        group = hierarchy / path.lstrip("/")
        # Inside a container the path is the host's, and only the container's own group is there.
        groups.append((hierarchy, group if group.is_dir() else hierarchy))
    return groups


def _quota(group: Path) -> float | None:
    """The limit set on one group, in cores (cgroup version 2, then 1)."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return None if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return None
