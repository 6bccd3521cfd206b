"""TensorRT as far as it is called, over ONNX Runtime on the CPU and the memory of `HostCuda`.

A plan is the path of its graph and its profiles. A context runs the graph on the addresses that it
was given, and refuses shapes outside its profile and caches that are not updated in place.
"""

from __future__ import annotations

import ctypes
import json
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from tests.gpu.host_cuda import HostCuda

TYPES = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.INT64: np.int64,
}


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self):
        pass


class IProgressMonitor:
    def __init__(self):
        pass


class NetworkDefinitionCreationFlag:
    STRONGLY_TYPED = 1


class BuilderFlag:
    REFIT = 1


class ExecutionContextAllocationStrategy:
    USER_MANAGED = 2


class TensorIOMode:
    INPUT = 1


def sizes(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


class Network:
    def __init__(self):
        self.path = None
        self.inputs = []

    @property
    def num_inputs(self):
        return len(self.inputs)

    def get_input(self, index):
        return self.inputs[index]


class OnnxParser:
    def __init__(self, network, log):
        self._network = network
        self._errors = []

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]

    def parse_from_file(self, path):
        model = onnx.load(path, load_external_data=False)
        foreign = {node.op_type for node in model.graph.node if node.domain}
        if foreign:
            self._errors = [f"no importer for {name}" for name in sorted(foreign)]
            return False
        self._network.path = path
        self._network.inputs = [types.SimpleNamespace(name=v.name) for v in model.graph.input]
        return True


class OptimizationProfile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, least, usual, largest):
        assert all(a <= b <= c for a, b, c in zip(least, usual, largest, strict=True)), name
        self.shapes[name] = (list(least), list(usual), list(largest))


class TimingCache:
    def __init__(self, content):
        self.content = bytes(content)

    def serialize(self):
        return self.content + b"+"


class BuilderConfig:
    def __init__(self):
        self.profiles = []
        self.flags = set()
        self.progress_monitor = None
        self._cache = None

    def set_flag(self, flag):
        self.flags.add(flag)

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)

    def create_timing_cache(self, content):
        return TimingCache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        self._cache = cache

    def get_timing_cache(self):
        return self._cache


class Builder:
    def __init__(self, log):
        self._log = log

    def create_network(self, flags):
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return Network()

    def create_builder_config(self):
        return BuilderConfig()

    def create_optimization_profile(self):
        return OptimizationProfile()

    def build_serialized_network(self, network, config):
        monitor = config.progress_monitor
        monitor.phase_start("Building", None, 2)
        for step in range(2):
            if not monitor.step_complete("Building", step):
                return None
        monitor.phase_finish("Building")
        plan = {"graph": str(network.path), "profiles": [p.shapes for p in config.profiles]}
        return json.dumps(plan).encode()


class Context:
    def __init__(self, engine):
        self._engine = engine
        self._profile = None
        self._shapes = {}
        self._addresses = {}
        self._has_memory = False

    def set_device_memory(self, pointer, size):
        self._has_memory = bool(pointer) and size >= self._engine.device_memory_size_v2

    def set_optimization_profile_async(self, profile, stream):
        self._profile = profile
        return True

    def set_input_shape(self, name, shape):
        least, _, largest = self._engine.get_tensor_profile_shape(name, self._profile)
        self._shapes[name] = tuple(shape)
        return all(a <= b <= c for a, b, c in zip(least, shape, largest, strict=True))

    def set_tensor_address(self, name, pointer):
        self._addresses[name] = pointer

    def execute_async_v3(self, stream):
        assert self._has_memory
        for name, pointer in self._addresses.items():
            if name.startswith("present."):
                past = name.replace("present.", "past_key_values.")
                assert pointer == self._addresses[past], "a cache is not updated in place"
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        self._engine.cuda.queue(lambda: self._engine.run(shapes, addresses))
        return True


class Engine:
    device_memory_size_v2 = 4096

    def __init__(self, cuda, plan):
        content = json.loads(plan)
        self.cuda = cuda
        self._profiles = content["profiles"]
        graph = onnx.load(content["graph"], load_external_data=False).graph
        self._session = ort.InferenceSession(content["graph"], providers=["CPUExecutionProvider"])
        self._inputs = {value.name: value for value in graph.input}
        self._outputs = {value.name: value for value in graph.output}

    @property
    def num_io_tensors(self):
        return len(self._inputs) + len(self._outputs)

    @property
    def num_optimization_profiles(self):
        return len(self._profiles)

    def get_tensor_name(self, index):
        return [*self._inputs, *self._outputs][index]

    def get_tensor_profile_shape(self, name, profile):
        return self._profiles[profile][name]

    def create_execution_context(self, strategy):
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        return Context(self)

    def run(self, shapes, addresses):
        known = {}
        for name, shape in shapes.items():
            known |= dict(zip(sizes(self._inputs[name]), shape, strict=True))
        binding = self._session.io_binding()
        for name, shape in shapes.items():
            kind = self._inputs[name].type.tensor_type.elem_type
            binding.bind_input(name, "cpu", 0, TYPES[kind], shape, addresses[name])
        for name, value in self._outputs.items():
            shape = [known.get(size, size) for size in sizes(value)]
            kind = value.type.tensor_type.elem_type
            if all(isinstance(size, int) for size in shape):
                binding.bind_output(name, "cpu", 0, TYPES[kind], shape, addresses[name])
            else:  # a size that no input has: the runtime finds it
                binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        for name, found in zip(self._outputs, binding.get_outputs(), strict=True):
            if found.data_ptr() != addresses[name]:
                values = found.numpy()
                ctypes.memmove(addresses[name], values.ctypes.data, values.nbytes)


def host_tensorrt(cuda: HostCuda, version: str = "11.4.0.106") -> types.ModuleType:
    """The module that `sys.modules` has to hold."""
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    module.__spec__ = ModuleSpec("tensorrt", None)  # for those who look whether there is one
    for part in (
        ILogger,
        IProgressMonitor,
        NetworkDefinitionCreationFlag,
        BuilderFlag,
        ExecutionContextAllocationStrategy,
        TensorIOMode,
        OnnxParser,
        Builder,
    ):
        setattr(module, part.__name__, part)

    class Runtime:
        def __init__(self, log):
            pass

        def deserialize_cuda_engine(self, plan):
            path = json.loads(plan)["graph"]
            return Engine(cuda, plan) if Path(path).exists() else None

    module.Runtime = Runtime
    return module
