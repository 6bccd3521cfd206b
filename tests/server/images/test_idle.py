"""A server of image and chat engines that has nothing to do leaves the cores to others."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.conftest import PAINTER
from tests.server_process import ServerProcess

IDLE_S = 2.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def processor_seconds(pid: int) -> float:
    """What a process and all its threads have used, in user and in kernel mode."""
    behind_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, behind_name[11:13])) / TICKS_PER_S


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")
def test_no_thread_spins_once_a_picture_is_drawn(painter_engine, tiny_engine_dir, tmp_path):
    (tmp_path / "image").symlink_to(painter_engine)
    (tmp_path / "chat").symlink_to(tiny_engine_dir / "tiny")
    with ServerProcess(["--engine-dir", str(tmp_path), "--num-threads", "2"]) as server:
        with server.client() as client:
            drawn = client.post(
                "/v1/images/generations",
                json={"model": PAINTER, "prompt": "a red star", "num_inference_steps": 4},
            )
            assert drawn.status_code == 200
        before = processor_seconds(server.pid)
        assert before > 0.1, "it has loaded two engines and drawn"
        time.sleep(IDLE_S)
        assert processor_seconds(server.pid) - before < 0.05 * IDLE_S
