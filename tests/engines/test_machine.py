"""What a process may use: cores by affinity and quota, in both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import machine


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ({}, "0::/\n", None),
        ({"cpu.max": "max 100000"}, "0::/\n", None),
        ({"cpu.max": "150000 100000"}, "0::/\n", 1.5),
        ({"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b\n", 4.0),
        ({"a/cpu.max": "400000 100000", "a/b/cpu.max": "50000 100000"}, "0::/a/b\n", 0.5),
        ({"cpu.max": "200000 100000"}, "0::/kubepods/of/the/host\n", 2.0),
        (
            {"cpu/x/cpu.cfs_quota_us": "300000", "cpu/x/cpu.cfs_period_us": "100000"},
            "4:memory:/x\n1:cpu:/x\n0::/\n",
            3.0,
        ),
        (
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            "1:cpu,cpuacct:/\n",
            None,
        ),
    ],
)
def test_the_tightest_quota_of_a_group_and_those_above_it_counts(
    tmp_path: Path, files: dict[str, str], own: str, expected: float | None
):
    for name, text in files.items():
        write(tmp_path / "cgroups" / name, text)
    write(tmp_path / "own", own)
    assert machine.cpu_quota(tmp_path / "cgroups", tmp_path / "own") == expected


@pytest.mark.parametrize(
    ("cores", "quota", "expected"), [(8, None, 8), (8, 2.0, 2), (8, 1.6, 2), (8, 0.2, 1), (2, 9, 2)]
)
def test_threads_are_the_physical_cores_within_the_quota(
    monkeypatch: pytest.MonkeyPatch, cores: int, quota: float | None, expected: int
):
    monkeypatch.setattr(machine, "physical_cores", lambda: cores)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert machine.usable_cores() == expected


def test_a_limit_on_memory_leaves_what_it_does_not_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path / "g" / "memory.max", "3000\n")
    write(tmp_path / "g" / "memory.current", "1000\n")
    write(tmp_path / "own", "0::/g\n")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "_OWN_CGROUP", tmp_path / "own")
    assert machine.available_memory() == 2000


@pytest.mark.parametrize(
    ("architecture", "flags", "expected"),
    [
        ("x86_64", "flags : fpu avx2 fma", False),
        ("x86_64", "flags : fpu avx2 avx512f avx512_vnni", True),
        ("AMD64", "flags : fpu avx2 avx_vnni", True),
        ("x86_64", None, False),
        ("aarch64", "Features : fp asimd", True),
    ],
)
def test_sums_of_int8_are_fast_with_vnni_and_off_x86(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    flags: str | None,
    expected: bool,
):
    monkeypatch.setattr(machine.platform, "machine", lambda: architecture)
    if flags is not None:
        write(tmp_path / "cpuinfo", flags)
    assert machine.has_fast_int8(tmp_path / "cpuinfo") is expected
