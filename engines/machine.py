"""What this process may use of the machine: cores and memory, within its container's limits."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Threads that a runtime should compute with: physical cores, and no more than the CPU quota.

    Threads beyond a quota only make the kernel stop all of them for the rest of each period.
    """
    quota = cpu_quota()
    cores = physical_cores()
    return cores if quota is None else max(1, min(cores, math.floor(quota + 0.5)))


def physical_cores() -> int:
    """Physical cores that this process may run on; hyper-threads of one core count once."""
    cores = set()
    for cpu in os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ():
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            package = (topology / "physical_package_id").read_text()
            cores.add((package, (topology / "core_id").read_text()))
        except OSError:
            cores.add((str(cpu), ""))
    return len(cores) or os.cpu_count() or 1


def has_fast_int8(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the processor adds up products of 8 bits exactly at full speed.

    On x86 with VNNI, as Linux lists its features. Without it the sum of two products has 16 bits.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    features = (_read(cpuinfo) or "").split()
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(features)


def cpu_quota(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> float | None:
    """Cores' worth of time that the control groups of this process allow; None without a limit.

    Reads `cpu.max` (version 2) and `cpu.cfs_quota_us` (version 1) of its group and all above it.
    """
    limits = []
    for folder in _group_folders(cgroups, own, "cpu"):
        text = _read(folder / "cpu.max")
        if text is None:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
            text = f"{quota} {period}" if quota and period else ""
        words = text.split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def available_memory() -> int:
    """Bytes that can be used without swapping, within the limit of the container if it has one."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in (_read(Path("/proc/meminfo")) or "").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    return max(0, min([free, *_unused_memory(_CGROUPS, _OWN_CGROUP)]))


def _unused_memory(cgroups: Path, own: Path) -> list[int]:
    """What each limit on the memory of this process leaves, versions 2 and 1."""
    left = []
    for folder in _group_folders(cgroups, own, "memory"):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _read(folder / limit_name), _read(folder / used_name)
            if limit and used and limit.isdigit() and used.isdigit():
                left.append(int(limit) - int(used))
    return left


def _group_folders(cgroups: Path, own: Path, controller: str) -> list[Path]:
    """The folders that may limit this process: its group in each hierarchy, and those above it.

    In a container its own group is often mounted as the root, so that the path in `own` leads
    nowhere: the root then counts.
    """
    folders = []
    for line in (_read(own) or "0::/").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = cgroups / controller if controllers else cgroups
        group = root / path.lstrip("/")
        folders += [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]
    return folders


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
