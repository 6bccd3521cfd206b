"""The stand-in for CUDA's runtime, held against NVIDIA's own bindings, which need no GPU."""

from __future__ import annotations

import inspect
from dataclasses import fields
from types import ModuleType

import pytest

from tests.gpu import host_cuda


@pytest.fixture(scope="module")
def runtime() -> ModuleType:
    return pytest.importorskip("cuda.bindings.runtime")


def test_every_call_takes_the_arguments_that_cuda_takes(runtime):
    names = [name for name in dir(host_cuda.HostCuda) if name.startswith("cuda")]
    assert len(names) > 15
    for name in names:
        theirs = inspect.signature(getattr(runtime, name)).parameters
        ours = inspect.signature(getattr(host_cuda.HostCuda, name)).parameters
        assert len(theirs) == len(ours) - 1, (name, list(theirs))  # ours has self


def test_names_of_enumerations_and_properties_are_cudas(runtime):
    for ours, theirs in (
        (host_cuda.Status, runtime.cudaError_t),
        (host_cuda.CopyKind, runtime.cudaMemcpyKind),
        (host_cuda.CaptureMode, runtime.cudaStreamCaptureMode),
    ):
        assert {one.name: one.value for one in ours}.items() <= {
            name: int(value) for name, value in theirs.__members__.items()
        }.items()
    properties = runtime.cudaDeviceProp()
    assert all(hasattr(properties, field.name) for field in fields(host_cuda.Properties))
