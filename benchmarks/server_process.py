"""The processes behind a port of this machine: their processor time and memory, by /proc."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.machine import cpu_times

_LOCAL = ("127.0.0.1", "localhost", "::1")
_LISTEN = "0A"  # the state in /proc/net/tcp


class ServerMeter:
    """How much of the machine others use while a server works, and its peak memory.

    Args:
        pids: The server's processes; none if it runs elsewhere or is not ours to see.
    """

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._start: tuple[tuple[int, int] | None, float] = (None, 0.0)

    @classmethod
    def of_url(cls, base_url: str) -> ServerMeter:
        """The server that listens at a URL."""
        parts = urlsplit(base_url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(listening_pids(port) if parts.hostname in _LOCAL else [])

    def start(self) -> None:
        self._start = (cpu_times(), self._own_ticks())

    def others_share(self) -> float | None:
        """Others' share of all cores (0 to 1) since the start; None if unknown.

        Our own process counts among the server's, being the load.
        """
        (before, own_before), after = self._start, cpu_times()
        if not self._pids or before is None or after is None or after[1] <= before[1]:
            return None
        total = after[1] - before[1]
        busy = total - (after[0] - before[0])
        return min(max((busy - (self._own_ticks() - own_before)) / total, 0.0), 1.0)

    def peak_rss_bytes(self) -> int | None:
        """The highest resident memory of all processes together; None if unknown."""
        peaks = [peak for pid in self._pids if (peak := peak_rss_bytes(pid)) is not None]
        return sum(peaks) if peaks else None

    def _own_ticks(self) -> float:
        used = os.times()
        own = (used.user + used.system) * os.sysconf("SC_CLK_TCK")
        return own + sum(_cpu_ticks(pid) for pid in self._pids)


def listening_pids(port: int) -> list[int]:
    """Processes that hold a socket listening on a port; empty where there is no /proc."""
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        lines = table.read_text().splitlines()[1:] if table.exists() else []
        for fields in (line.split() for line in lines):
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return []
    return [
        int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _has_open(folder, inodes)
    ]


def _has_open(process: Path, names: set[str]) -> bool:
    try:
        return any(str(entry.readlink()) in names for entry in (process / "fd").iterdir())
    except OSError:  # it has ended, or belongs to somebody else
        return False


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far; 0 where there is no /proc."""
    return _cpu_ticks(pid) / os.sysconf("SC_CLK_TCK")


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # utime and stime


def peak_rss_bytes(pid: int) -> int | None:
    """The highest resident memory of a process; None if it is not ours to see."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
