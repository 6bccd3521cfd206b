"""A plan in TensorRT: shapes and addresses set for each run, or recorded once and replayed.

Nothing here has run on a GPU yet (docs/gpu.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engines.backends.cuda import Buffer, Graph, Stream
from engines.backends.gpu_session import DeviceArray
from engines.backends.tensorrt_library import load_tensorrt, new_logger
from engines.errors import EngineIncompatible, RunFailed


@dataclass(slots=True)
class PlanBinding:
    """What a run reads and writes, the profile that takes its shapes, and what was recorded."""

    inputs: dict[str, DeviceArray]
    outputs: dict[str, DeviceArray]
    profile: int
    num_runs: int = 0
    context: Any = None  # of its own, once it is recorded
    graph: Graph | None = field(default=None)


class TensorRTSession:
    """Implements `GpuSession`.

    Runs follow each other on one stream, so that all contexts share one work space. A context
    belongs to a profile, or to what was recorded with it, whose shapes must not change.
    """

    def __init__(self, plan: Path, stream: Stream) -> None:
        tensorrt = load_tensorrt()
        self._stream = stream
        self._runtime = tensorrt.Runtime(new_logger(tensorrt))
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise EngineIncompatible(
                f"TensorRT {tensorrt.__version__} cannot load {plan}: build it anew with --rebuild"
            )
        self._strategy = tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._input_mode = tensorrt.TensorIOMode.INPUT
        self._scratch = Buffer(int(self._engine.device_memory_size_v2))
        self._contexts: dict[int, Any] = {}  # by profile
        self._names = [
            self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)
        ]

    def bind(
        self,
        inputs: Mapping[str, DeviceArray],
        host_inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, DeviceArray],
    ) -> PlanBinding:
        if host_inputs:
            raise RunFailed(f"a plan takes no inputs on the host, but {', '.join(host_inputs)}")
        missing = set(self._names) ^ (inputs.keys() | outputs.keys())
        if missing:
            raise RunFailed(f"the plan and the runner disagree about {', '.join(sorted(missing))}")
        return PlanBinding(dict(inputs), dict(outputs), self._find_profile(inputs))

    def run(self, binding: PlanBinding, graph_key: int | None) -> None:
        if binding.graph is not None:
            self._stream.launch(binding.graph)
        elif graph_key is None or binding.num_runs == 0:
            self._enqueue(self._context(binding.profile), binding)
        else:  # what TensorRT sets up lazily was set up by the first run of its own context
            binding.context = self._new_context(binding.profile)
            self._enqueue(binding.context, binding)
            self._stream.synchronize()
            self._stream.capture()
            try:
                self._execute(binding.context)
            finally:
                binding.graph = self._stream.end_capture()
        binding.num_runs += 1

    def close(self) -> None:
        self._contexts.clear()
        self._scratch.close()
        del self._engine, self._runtime

    def _find_profile(self, inputs: Mapping[str, DeviceArray]) -> int:
        for profile in range(self._engine.num_optimization_profiles):
            if all(self._takes(profile, name, array.shape) for name, array in inputs.items()):
                return profile
        shapes = {name: array.shape for name, array in inputs.items() if len(array.shape) < 3}
        raise RunFailed(f"no profile of the plan takes the shapes {shapes}")

    def _takes(self, profile: int, name: str, shape: tuple[int, ...]) -> bool:
        least, _, largest = self._engine.get_tensor_profile_shape(name, profile)
        return len(shape) == len(least) and all(
            low <= size <= high for low, size, high in zip(least, shape, largest, strict=True)
        )

    def _context(self, profile: int) -> Any:
        if profile not in self._contexts:
            self._contexts[profile] = self._new_context(profile)
        return self._contexts[profile]

    def _new_context(self, profile: int) -> Any:
        context = self._engine.create_execution_context(self._strategy)
        if context is None:
            raise RunFailed("TensorRT could not make an execution context")
        context.set_device_memory(self._scratch.pointer, self._scratch.num_bytes)
        if not context.set_optimization_profile_async(profile, self._stream.handle):
            raise RunFailed(f"TensorRT could not choose profile {profile}")
        self._stream.synchronize()
        return context

    def _enqueue(self, context: Any, binding: PlanBinding) -> None:
        for name, array in binding.inputs.items():
            if not context.set_input_shape(name, array.shape):
                raise RunFailed(f"TensorRT refused the shape {array.shape} of {name}")
        for name, array in (*binding.inputs.items(), *binding.outputs.items()):
            context.set_tensor_address(name, array.pointer)
        self._execute(context)

    def _execute(self, context: Any) -> None:
        if not context.execute_async_v3(self._stream.handle):
            raise RunFailed("TensorRT could not run the plan: its log says why")
