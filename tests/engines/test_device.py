"""Devices as they are asked for, and what stands where a GPU or a library is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engines.device import CPU, Device, choose_device, parse_device
from engines.errors import EngineIncompatible
from engines.load import EngineOptions


@pytest.mark.parametrize(
    ("text", "device"),
    [("auto", None), ("cpu", CPU), ("cuda", Device("cuda", 0)), ("cuda:3", Device("cuda", 3))],
)
def test_a_device_is_read_as_it_is_written(text, device):
    assert parse_device(text) == device
    assert device is None or parse_device(str(device)) == device


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:-1", "cuda:x", "", "CPU"])
def test_another_word_is_refused_with_the_choices(text):
    with pytest.raises(ValueError, match="must be auto, cpu, cuda or cuda:N"):
        EngineOptions(device=text)


def test_an_engine_runs_on_what_it_was_built_for():
    assert choose_device("ort-cpu", None) == CPU
    assert choose_device("cuda", None) == Device("cuda", 0)
    assert choose_device("tensorrt", Device("cuda", 1)) == Device("cuda", 1)


def test_the_other_kind_of_device_is_refused_with_the_target_that_would_do():
    with pytest.raises(EngineIncompatible, match=r"built for cuda.* is cpu: .*--target ort-cpu"):
        choose_device("cuda", CPU)
    with pytest.raises(EngineIncompatible, match=r"for ort-cpu.* is cuda:0: .*--target cuda"):
        choose_device("ort-cpu", Device("cuda"))


def find_gpu(preamble: str) -> str:
    """What `find_gpu` says in a process of its own."""
    code = (
        f"{preamble}\n"
        "from engines.backends.cuda import find_gpu\n"
        "from engines.device import Device\n"
        "from engines.errors import EngineIncompatible\n"
        "try: find_gpu(Device('cuda', 1))\n"
        "except EngineIncompatible as error: print(error)\n"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


FAKE_RUNTIME = """
import enum, sys, types
class Status(enum.IntEnum): cudaSuccess = 0; cudaErrorInsufficientDriver = 35
runtime = types.ModuleType("cuda.bindings.runtime")
runtime.cudaError_t = Status
runtime.cudaGetErrorString = lambda status: (Status.cudaSuccess, b"the driver is too old")
runtime.cudaGetDeviceCount = lambda: {count}
package, bindings = types.ModuleType("cuda"), types.ModuleType("cuda.bindings")
package.bindings, bindings.runtime = bindings, runtime
sys.modules |= {{"cuda": package, "cuda.bindings": bindings, "cuda.bindings.runtime": runtime}}
"""


def test_a_missing_library_is_one_sentence_that_says_what_to_install():
    said = find_gpu("import sys; sys.modules['cuda'] = None")
    assert said.count("\n") == 1
    assert "needs cuda-bindings" in said
    assert "pip install 'enginery[gpu]'" in said


def test_a_missing_driver_or_gpu_is_one_sentence():
    too_old = FAKE_RUNTIME.format(count="(Status.cudaErrorInsufficientDriver, None)")
    assert "but the driver is too old: install the driver" in find_gpu(too_old)
    none = FAKE_RUNTIME.format(count="(Status.cudaSuccess, 0)")
    assert "but none is visible" in find_gpu(none)
    one = FAKE_RUNTIME.format(count="(Status.cudaSuccess, 1)")
    assert "the device is cuda:1, but this machine has 1 GPUs" in find_gpu(one)
