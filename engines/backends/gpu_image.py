"""An image model on a GPU: a session for each graph, inputs sent and results fetched at each run.

It knows nothing of the runtime: ONNX Runtime's graphs and TensorRT's plans are run alike. Sizes of
pictures that come again and again are recorded, so that a step is launched at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.backends.cuda import Buffer, Stream
from engines.backends.gpu_session import DeviceArray, GpuSession
from engines.backends.image_components import Arrays, ImageComponents
from engines.image.runner import FloatArray
from engines.manifest import GraphSignature, ImageSpec

Shapes = tuple[tuple[int, ...], ...]

MAX_RECORDED = 8  # shapes of a graph's inputs; what is recorded keeps its memory


class GpuImageRunner(ImageComponents["_Component"]):
    """Implements `ImageRunner`.

    Args:
        open_session: Opens the graph of a file's name; it runs on `stream`.
        stream: Orders runs and copies; closed with the runner.
        spec: What the manifest says of the model.
    """

    def __init__(
        self, open_session: Callable[[str], GpuSession], stream: Stream, spec: ImageSpec
    ) -> None:
        self._stream = stream
        self._components: list[_Component] = []

        def component(graph: str, is_step: bool) -> _Component:
            signature = spec.graphs[graph]
            opened = _Component(
                open_session(graph), stream, signature, spec.latent_scale, is_recorded=is_step
            )
            self._components.append(opened)
            return opened

        try:
            super().__init__(spec, component)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stream.use()
        for component in self._components:
            component.close()
        self._components.clear()
        self._stream.close()


@dataclass(slots=True)
class _Place:
    """Where inputs of one shape and what comes of them lie on the GPU."""

    memory: Buffer
    inputs: dict[str, DeviceArray]
    outputs: dict[str, DeviceArray]
    binding: Any
    graph_key: int | None


class _Component:
    """One graph. The first shapes of one that is recorded stay; all others share one place."""

    def __init__(
        self,
        session: GpuSession,
        stream: Stream,
        signature: GraphSignature,
        latent_scale: int,
        *,
        is_recorded: bool,
    ) -> None:
        self._session = session
        self._stream = stream
        self._signature = signature
        self._latent_scale = latent_scale
        self._max_recorded = MAX_RECORDED if is_recorded else 0
        self._recorded: dict[Shapes, _Place] = {}
        self._other: tuple[Shapes, _Place] | None = None

    def run(self, inputs: Arrays, outputs: tuple[str, ...] = ()) -> dict[str, FloatArray]:
        """What comes out under the names of `outputs`, or under every name there is."""
        self._stream.use()
        arrays = {
            name: np.ascontiguousarray(inputs[name], tensor.dtype)
            for name, tensor in self._signature.inputs.items()
        }
        place = self._place({name: array.shape for name, array in arrays.items()})
        for name, array in arrays.items():
            self._stream.upload(array, place.inputs[name].pointer)
        self._session.run(place.binding, place.graph_key)
        found = {}
        for name in outputs or place.outputs:
            result = np.empty(place.outputs[name].shape, np.float32)
            self._stream.download(place.outputs[name].pointer, result)
            found[name] = result
        return found

    def close(self) -> None:
        for place in self._recorded.values():
            place.memory.close()
        self._recorded.clear()
        self._drop_other()
        self._session.close()

    def _place(self, shapes: Mapping[str, tuple[int, ...]]) -> _Place:
        key = tuple(shapes.values())
        if key in self._recorded:
            return self._recorded[key]
        if len(self._recorded) < self._max_recorded:
            self._recorded[key] = self._new_place(shapes, graph_key=len(self._recorded) + 1)
            return self._recorded[key]
        if self._other is None or self._other[0] != key:
            self._drop_other()
            self._other = key, self._new_place(shapes, graph_key=None)
        return self._other[1]

    def _drop_other(self) -> None:
        if self._other is not None:
            self._other[1].memory.close()
            self._other = None

    def _new_place(self, shapes: Mapping[str, tuple[int, ...]], graph_key: int | None) -> _Place:
        sizes = self._sizes(shapes)
        tensors = self._signature.inputs | self._signature.outputs
        arrays: dict[str, DeviceArray] = {}
        num_bytes = 0
        for name, tensor in tensors.items():
            shape = tuple(_size(s, sizes) if isinstance(s, str) else s for s in tensor.shape)
            arrays[name] = DeviceArray(num_bytes, tensor.dtype, shape)
            num_bytes += -(-arrays[name].num_bytes // _ALIGNMENT) * _ALIGNMENT
        memory = Buffer(num_bytes)
        placed = {
            name: DeviceArray(memory.pointer + array.pointer, array.dtype, array.shape)
            for name, array in arrays.items()
        }
        inputs = {name: placed[name] for name in self._signature.inputs}
        outputs = {name: placed[name] for name in self._signature.outputs}
        try:
            binding = self._session.bind(inputs, {}, outputs)
        except BaseException:
            memory.close()
            raise
        return _Place(memory, inputs, outputs, binding, graph_key)

    def _sizes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """Every size that the signature names; pictures and latents tell those of each other."""
        sizes = {
            size: found
            for name, tensor in self._signature.inputs.items()
            for size, found in zip(tensor.shape, shapes[name], strict=True)
            if isinstance(size, str)
        }
        for side in ("height", "width"):
            picture, scale = f"image_{side}", self._latent_scale
            if side in sizes:
                sizes.setdefault(picture, sizes[side] * scale)
            elif picture in sizes:
                sizes[side] = sizes[picture] // scale
        return sizes


def _size(name: str, sizes: Mapping[str, int]) -> int:
    """The size of that name; `num_ids - 34` is so much less than `num_ids`."""
    name, _, less = name.partition(" - ")
    return sizes[name] - int(less or 0)


_ALIGNMENT = 256  # of every array, as the GPU's own allocator aligns
