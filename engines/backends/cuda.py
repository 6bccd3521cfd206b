"""CUDA without torch: which GPU there is, memory on it, a stream and copies.

The only file that calls the CUDA runtime, through NVIDIA's `cuda-bindings`. Nothing here has run
on a GPU yet (docs/gpu.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engines.device import Device
from engines.errors import EngineIncompatible, RunFailed

INSTALL_HINT = "`pip install 'enginery[gpu]'` in an environment without onnxruntime"
_ALIGNMENT = 256  # of every array on the device, as cudaMalloc aligns


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device as the driver describes it; sizes in bytes."""

    index: int
    name: str
    compute_capability: str  # "9.0"
    total_memory: int

    @property
    def major(self) -> int:
        return int(self.compute_capability.split(".")[0])


def find_gpu(device: Device) -> Gpu:
    """The GPU of an index, made the current one of this thread.

    Raises:
        EngineIncompatible: A library or the driver is missing, or there is no such GPU.
    """
    runtime = _runtime()
    status, count = runtime.cudaGetDeviceCount()
    if status != runtime.cudaError_t.cudaSuccess or count == 0:
        reason = "none is visible" if count == 0 else _message(runtime, status)
        raise EngineIncompatible(
            f"the engine needs an NVIDIA GPU with a driver for CUDA 13 (release 580 or newer), but "
            f"{reason}: install the driver, or serve an engine that was exported for ort-cpu"
        )
    if device.index >= count:
        raise EngineIncompatible(
            f"the device is {device}, but this machine has {count} GPUs: cuda:0 is the first"
        )
    _check(runtime.cudaSetDevice(device.index))
    properties = _check(runtime.cudaGetDeviceProperties(device.index))
    return Gpu(
        index=device.index,
        name=_text(properties.name),
        compute_capability=f"{properties.major}.{properties.minor}",
        total_memory=int(properties.totalGlobalMem),
    )


def free_memory() -> int:
    """Bytes that are free on the current GPU."""
    free, _ = _check(_runtime().cudaMemGetInfo())
    return int(free)


class Buffer:
    """Bytes on the current GPU, filled with zeros; a context manager that frees them."""

    def __init__(self, num_bytes: int) -> None:
        runtime = _runtime()
        self.num_bytes = num_bytes
        self.pointer = int(_check(runtime.cudaMalloc(max(num_bytes, 1))))
        _check(runtime.cudaMemset(self.pointer, 0, num_bytes))

    def close(self) -> None:
        if self.pointer:
            _check(_runtime().cudaFree(self.pointer))
            self.pointer = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Stream:
    """A queue of work on the current GPU; `handle` is what runtimes take."""

    def __init__(self, device_index: int = 0) -> None:
        self._runtime = _runtime()
        self._device_index = device_index
        self.use()
        self._stream = _check(self._runtime.cudaStreamCreate())

    @property
    def handle(self) -> int:
        return int(self._stream)

    def use(self) -> None:
        """Make its GPU the current one: each thread has to say so before it takes memory."""
        _check(self._runtime.cudaSetDevice(self._device_index))

    def synchronize(self) -> None:
        """Wait for everything queued.

        Raises:
            RunFailed: Something queued failed; the device's memory is then undefined.
        """
        _check(self._runtime.cudaStreamSynchronize(self._stream))

    def upload(self, array: NDArray[Any], pointer: int) -> None:
        """Copy a contiguous array to the GPU. It may be changed when this returns."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(pointer, array.ctypes.data, array.nbytes, kind)

    def download(self, pointer: int, array: NDArray[Any]) -> None:
        """Copy from the GPU into a contiguous array, and wait for it."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(array.ctypes.data, pointer, array.nbytes, kind)
        self.synchronize()

    def copy(self, source: int, target: int, num_bytes: int) -> None:
        """Copy within the GPU."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._copy(target, source, num_bytes, kind)

    def copy_rows(self, source: int, target: int, pitch: int, width: int, num_rows: int) -> None:
        """Copy the first `width` bytes of `num_rows` rows that lie `pitch` bytes apart."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        _check(
            self._runtime.cudaMemcpy2DAsync(
                target, pitch, source, pitch, width, num_rows, kind, self._stream
            )
        )

    def capture(self) -> None:
        """Record what is queued from now on instead of running it; `end_capture` gives it back."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _check(self._runtime.cudaStreamBeginCapture(self._stream, mode))

    def end_capture(self) -> Graph:
        """What was recorded, to be launched any number of times."""
        graph = _check(self._runtime.cudaStreamEndCapture(self._stream))
        executable = _check(self._runtime.cudaGraphInstantiate(graph, 0))
        _check(self._runtime.cudaGraphDestroy(graph))
        return Graph(executable)

    def launch(self, graph: Graph) -> None:
        """Queue a recorded graph."""
        _check(self._runtime.cudaGraphLaunch(graph.executable, self._stream))

    def close(self) -> None:
        _check(self._runtime.cudaStreamDestroy(self._stream))

    def _copy(self, target: int, source: int, num_bytes: int, kind: Any) -> None:
        _check(self._runtime.cudaMemcpyAsync(target, source, num_bytes, kind, self._stream))


@dataclass(frozen=True, slots=True)
class Graph:
    """A recorded piece of work."""

    executable: Any


class Arena:
    """One region of the GPU that several small arrays are sent to in one transfer.

    The same dtypes and shapes in the same order land at the same addresses, which is what a
    recorded graph needs of its inputs.
    """

    def __init__(self, stream: Stream, num_bytes: int) -> None:
        self._stream = stream
        self._buffer = Buffer(num_bytes)
        self._staging = np.zeros(num_bytes, np.uint8)

    def send(self, arrays: Sequence[NDArray[Any]]) -> list[int]:
        """Copy the arrays to the GPU; where each one lies."""
        offsets, size = layout(arrays)
        if size > len(self._staging):
            raise RunFailed(f"the inputs of a step take {size} bytes, not {len(self._staging)}")
        for array, offset in zip(arrays, offsets, strict=True):
            flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            self._staging[offset : offset + flat.size] = flat
        self._stream.upload(self._staging[:size], self._buffer.pointer)
        return [self._buffer.pointer + offset for offset in offsets]

    def close(self) -> None:
        self._buffer.close()


def layout(arrays: Sequence[NDArray[Any]]) -> tuple[list[int], int]:
    """Where arrays start when they lie one behind the other, aligned; and the size of all."""
    offsets, size = [], 0
    for array in arrays:
        offsets.append(size)
        size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    return offsets, size


def _runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise EngineIncompatible(
            f"the engine runs on a GPU, which needs cuda-bindings ({error}): {INSTALL_HINT}"
        ) from None
    return runtime


def _check(result: tuple[Any, ...]) -> Any:
    """What a call returned behind its status.

    Raises:
        RunFailed: The status is an error.
    """
    runtime = _runtime()
    status, *values = result
    if status != runtime.cudaError_t.cudaSuccess:
        raise RunFailed(f"CUDA failed: {_message(runtime, status)}")
    if not values:
        return None
    return values[0] if len(values) == 1 else tuple(values)


def _message(runtime: Any, status: Any) -> str:
    _, text = runtime.cudaGetErrorString(status)
    return _text(text)


def _text(value: bytes | str) -> str:
    return value.decode().rstrip("\0") if isinstance(value, bytes) else value
