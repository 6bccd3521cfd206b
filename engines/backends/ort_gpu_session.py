"""A graph in ONNX Runtime on CUDA: one session, one stream, graphs recorded by the runtime."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engines.backends.gpu_session import DeviceArray
from engines.errors import EngineIncompatible, RunFailed

_PROVIDER = "CUDAExecutionProvider"
_PROVIDER_LIBRARY = "libonnxruntime_providers_cuda.so"
_BFLOAT16 = 16  # in ONNX's numbering of types; numpy has none
_NOT_RECORDED = "-1"


class OrtGpuSession:
    """Implements `GpuSession`.

    Args:
        graph: The graph's file.
        device_index: Which GPU.
        stream: Handle of the stream that everything runs on.
        records_graphs: Whether runs may be recorded and replayed.
        shapes_on_cpu: Whether nodes may run on the CPU. The provider leaves arithmetic with shapes
            there, which a graph for pictures of any size has.
        provider: The provider; tests take the CPU's, whose memory is the host's.
    """

    def __init__(
        self,
        graph: Path,
        device_index: int,
        stream: int,
        *,
        records_graphs: bool = True,
        shapes_on_cpu: bool = False,
        provider: str = _PROVIDER,
    ) -> None:
        self._device = ("cuda" if provider == _PROVIDER else "cpu", device_index)
        require_provider(provider)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # What cannot run on the GPU would run on the CPU, unseen and a hundred times slower.
        options.add_session_config_entry(
            "session.disable_cpu_ep_fallback", str(int(not shapes_on_cpu))
        )
        # Products of int4 weights without expanding them first; off by default.
        options.add_session_config_entry("ep.cuda.fpa_intb_gemm", "1")
        settings = {}
        if provider == _PROVIDER:
            settings = {
                "device_id": str(device_index),
                "user_compute_stream": str(stream),
                "arena_extend_strategy": "kSameAsRequested",
                "enable_cuda_graph": str(int(records_graphs)),
            }
        else:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
        try:
            self._session = ort.InferenceSession(
                graph, options, providers=[provider], provider_options=[settings]
            )
        except Exception as error:
            if provider == _PROVIDER:
                _check_libraries()
            raise EngineIncompatible(
                f"ONNX Runtime {ort.__version__} cannot load {graph} on the GPU: {error}"
            ) from error
        if provider not in self._session.get_providers():  # all of it would run on the CPU
            _check_libraries()
            raise EngineIncompatible(
                f"ONNX Runtime {ort.__version__} did not take its CUDA provider for {graph}: its "
                "log says why"
            )
        self._records_graphs = records_graphs and provider == _PROVIDER

    def bind(
        self,
        inputs: Mapping[str, DeviceArray],
        host_inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, DeviceArray],
    ) -> Any:
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_input(
                name, *self._device, _element_type(array.dtype), array.shape, array.pointer
            )
        for name, values in host_inputs.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(values))
        for name, array in outputs.items():
            binding.bind_output(
                name, *self._device, _element_type(array.dtype), array.shape, array.pointer
            )
        return binding

    def run(self, binding: Any, graph_key: int | None) -> None:
        options = ort.RunOptions()
        # The stream orders everything; whoever reads a result waits for it there.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if self._records_graphs:
            key = _NOT_RECORDED if graph_key is None else str(graph_key)
            options.add_run_config_entry("gpu_graph_id", key)
        try:
            self._session.run_with_iobinding(binding, options)
        except Exception as error:  # the runtime raises plain classes of its own
            raise RunFailed(f"the runtime rejected a batch: {error}") from error

    def close(self) -> None:
        del self._session


def require_provider(provider: str = _PROVIDER) -> None:
    """Refuse a build of the runtime that has no CUDA.

    Raises:
        EngineIncompatible: It says what to install.
    """
    if provider not in ort.get_available_providers():
        raise EngineIncompatible(
            f"the engine runs on a GPU, but the installed onnxruntime {ort.__version__} was built "
            "without CUDA: `pip uninstall onnxruntime`, then `pip install 'enginery[gpu]'`"
        )
    if provider == _PROVIDER and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA's libraries, where pip installed them


def _check_libraries() -> None:
    """Refuse where the CUDA provider lacks a library, which the runtime says in its log alone.

    To be called when a session has failed: until then the provider cannot be loaded by itself.

    Raises:
        EngineIncompatible: It names the library and what to install.
    """
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / _PROVIDER_LIBRARY))
    except OSError as error:
        raise EngineIncompatible(
            f"ONNX Runtime {ort.__version__} could not load its CUDA provider ({error}): "
            "`pip install 'enginery[gpu]'` installs CUDA 13 and cuDNN 9, and the driver has to be "
            "for CUDA 13 (release 580 or newer)"
        ) from None


def _element_type(dtype: str) -> Any:
    return _BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype).type
