"""Tests that need a GPU; without one they are skipped with the sentence that says what is missing.

They need no torch: the demo's checkpoint is trained, and its engine in fp32 is the reference.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.backends.cuda import Gpu, find_gpu
from engines.device import Device
from engines.errors import EngineIncompatible


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    """The first GPU."""
    try:
        return find_gpu(Device("cuda"))
    except EngineIncompatible as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tensorrt(gpu: Gpu) -> Gpu:
    """The same where TensorRT is installed."""
    from engines.backends.tensorrt_library import load_tensorrt

    try:
        load_tensorrt()
    except EngineIncompatible as error:
        pytest.skip(str(error))
    return gpu


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for engines, which are compiled once a session."""
    return tmp_path_factory.mktemp("device")
