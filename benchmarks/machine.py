"""What a measurement ran on: processor, memory, versions, and who else was using the machine."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path

MIB = 1 << 20


def processor() -> str:
    """The processor's name with the cores that this process may use."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
                break
    return f"{name}, {num_cores()} cores"


def instruction_sets() -> list[str]:
    """Those extensions that decide which integer kernels run."""
    wanted = ["avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm"]
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set[str]()
    return [name for name in wanted if name in flags]


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_machine(*packages: str) -> dict[str, str]:
    """Processor, system and the versions of Python and of `packages` that are installed."""
    facts = {
        "processor": processor(),
        "instruction sets": " ".join(instruction_sets()) or "not known",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    return facts | {name: version for name in packages if (version := installed_version(name))}


def installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def resident_bytes() -> tuple[int, int]:
    """Resident memory of this process now, and its peak, in bytes.

    The peak is of this program only (`ru_maxrss` would start at the parent's). Linux only:
    elsewhere both are 0.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return 0, 0
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    now, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def busy_share(seconds: float) -> float | None:
    """The share of all cores (0 to 1) that was in use during the next `seconds`; None if unknown.

    Called before a measurement it says how quiet the machine is.
    """
    before = cpu_times()
    time.sleep(seconds)
    after = cpu_times()
    if before is None or after is None or after[1] <= before[1]:
        return None
    return 1 - (after[0] - before[0]) / (after[1] - before[1])


class OthersMeter:
    """How much of the machine others use while this process and its children work."""

    def __init__(self) -> None:
        self._start = (cpu_times(), _own_cpu_seconds())

    def share(self) -> float | None:
        """Others' share of all cores (0 to 1) since the start; None if unknown.

        Children count as our own once they have ended.
        """
        (before, own_before), after = self._start, cpu_times()
        if before is None or after is None or after[1] <= before[1]:
            return None
        total = after[1] - before[1]
        busy = total - (after[0] - before[0])
        own = (_own_cpu_seconds() - own_before) * os.sysconf("SC_CLK_TCK")
        return min(max((busy - own) / total, 0.0), 1.0)


def _own_cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def cpu_times() -> tuple[int, int] | None:
    """Idle and total time of all cores, in ticks."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    ticks = [int(value) for value in stat.read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
