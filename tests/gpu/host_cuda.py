"""CUDA's runtime over the host's memory, as far as `engines.backends.cuda` calls it.

Pointers are addresses of this process, copies are copies, a stream runs everything at once. A
recorded graph holds what was queued while it was recorded, and does it again at each launch.
"""

from __future__ import annotations

import ctypes
import enum
import types
from collections.abc import Callable
from dataclasses import dataclass, field


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2


class CopyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class CaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


OK = Status.cudaSuccess


@dataclass
class Properties:
    name: bytes = b"Host GPU"
    major: int = 9
    minor: int = 0
    totalGlobalMem: int = 1 << 30


@dataclass
class HostCuda:
    """One device. `blocks` holds what is allocated, by address."""

    total_memory: int = 1 << 30
    name: str = "Host GPU"
    blocks: dict[int, ctypes.Array] = field(default_factory=dict)
    recording: list[Callable[[], None]] | None = None
    num_launches: int = 0

    @property
    def used(self) -> int:
        return sum(len(block) for block in self.blocks.values())

    def queue(self, work: Callable[[], None]) -> None:
        """Do something on the only stream, or record it."""
        if self.recording is not None:
            self.recording.append(work)
        else:
            work()

    def module(self) -> types.ModuleType:
        runtime = types.ModuleType("cuda.bindings.runtime")
        runtime.cudaError_t = Status
        runtime.cudaMemcpyKind = CopyKind
        runtime.cudaStreamCaptureMode = CaptureMode
        for name in dir(self):
            if name.startswith("cuda"):
                setattr(runtime, name, getattr(self, name))
        return runtime

    def modules(self) -> dict[str, types.ModuleType]:
        """What `sys.modules` has to hold."""
        runtime = self.module()
        package, bindings = types.ModuleType("cuda"), types.ModuleType("cuda.bindings")
        package.bindings, bindings.runtime = bindings, runtime
        return {"cuda": package, "cuda.bindings": bindings, "cuda.bindings.runtime": runtime}

    def cudaGetDeviceCount(self):
        return OK, 1

    def cudaSetDevice(self, index):
        return (OK,)

    def cudaGetDeviceProperties(self, index):
        return OK, Properties(name=self.name.encode(), totalGlobalMem=self.total_memory)

    def cudaGetErrorString(self, status):
        return OK, status.name.encode()

    def cudaMemGetInfo(self):
        return OK, self.total_memory - self.used, self.total_memory

    def cudaMalloc(self, size):
        if self.used + size > self.total_memory:
            return Status.cudaErrorMemoryAllocation, None
        block = (ctypes.c_byte * size)()
        ctypes.memset(block, 0x7F, size)  # whoever reads what nobody wrote shall see it
        self.blocks[ctypes.addressof(block)] = block
        return OK, ctypes.addressof(block)

    def cudaFree(self, pointer):
        if self.blocks.pop(pointer, None) is None:
            return (Status.cudaErrorInvalidValue,)
        return (OK,)

    def cudaMemset(self, pointer, value, size):
        self._check(pointer, size)
        ctypes.memset(pointer, value, size)
        return (OK,)

    def cudaStreamCreate(self):
        return OK, 1

    def cudaStreamDestroy(self, stream):
        return (OK,)

    def cudaStreamSynchronize(self, stream):
        assert self.recording is None, "a recorded stream cannot be waited for"
        return (OK,)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        if kind is not CopyKind.cudaMemcpyHostToDevice:
            self._check(source, size)
        if kind is not CopyKind.cudaMemcpyDeviceToHost:
            self._check(target, size)
        self.queue(lambda: ctypes.memmove(target, source, size))
        return (OK,)

    def cudaMemcpy2DAsync(self, target, target_pitch, source, pitch, width, height, kind, stream):
        for row in range(height):
            self._check(source + row * pitch, width)
            self._check(target + row * target_pitch, width)
            ctypes.memmove(target + row * target_pitch, source + row * pitch, width)
        return (OK,)

    def cudaStreamBeginCapture(self, stream, mode):
        self.recording = []
        return (OK,)

    def cudaStreamEndCapture(self, stream):
        graph, self.recording = self.recording, None
        return OK, graph

    def cudaGraphInstantiate(self, graph, flags):
        return OK, graph

    def cudaGraphDestroy(self, graph):
        return (OK,)

    def cudaGraphLaunch(self, graph, stream):
        self.num_launches += 1
        for work in graph:
            work()
        return (OK,)

    def _check(self, pointer, size):
        inside = any(
            start <= pointer and pointer + size <= start + len(block)
            for start, block in self.blocks.items()
        )
        assert inside or not size, "a copy leaves the memory of the device"
