"""ONNX Runtime on CPU for image models: one session for each component, any batch, any size.

Rounding: the rows of a run are computed apart from each other, but its kernels split their work by
the number of rows, so that a row differs by about 1e-6 between batches of different size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from engines.backends.image_components import Arrays, ImageComponents
from engines.backends.ort_session import open_session
from engines.errors import RunFailed
from engines.image.runner import FloatArray
from engines.manifest import ImageSpec

Observe = Callable[[str, Arrays, Arrays], None]  # told each run: the graph, inputs, outputs


class OrtCpuImageRunner(ImageComponents["_Component"]):
    """Implements `ImageRunner`; `observe` sees every run of a graph."""

    def __init__(
        self,
        folder: Path,
        spec: ImageSpec,
        num_threads: int,
        observe: Observe | None = None,
        *,
        reduce_range: bool = False,
    ) -> None:
        def component(graph: str, is_step: bool) -> _Component:
            session = open_session(folder / graph, num_threads, reduce_range=reduce_range)
            return _Component(session, graph, observe, is_step)

        super().__init__(spec, component)

    def close(self) -> None:
        self._text_encoders.clear()
        del self._denoiser, self._shallow_denoiser, self._vae_decoder, self._vae_encoder


class _Component:
    """One graph, its outputs by name.

    One that is run rarely gives back the memory of each run: a decoder's is as much as its weights
    for a picture of 256 x 256, and four times that at 512 x 512. Taking it anew costs no time that
    could be measured.
    """

    def __init__(
        self, session: ort.InferenceSession, graph: str, observe: Observe | None, is_step: bool
    ) -> None:
        self._session = session
        self._graph = graph
        self._observe = observe
        self._options = ort.RunOptions()
        if not is_step:
            self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._output_names = [output.name for output in session.get_outputs()]

    def run(self, inputs: Arrays, outputs: tuple[str, ...] = ()) -> dict[str, FloatArray]:
        """What comes out under each name of `outputs`, or under every name there is.

        An observer sees everything.
        """
        names = self._output_names if self._observe is not None or not outputs else outputs
        try:
            arrays = self._session.run(names, inputs, self._options)
        except Exception as error:  # the runtime raises plain classes of its own
            raise RunFailed(f"the runtime rejected a run of {self._graph}: {error}") from error
        found = dict(zip(names, arrays, strict=True))
        if self._observe is not None:
            self._observe(self._graph, inputs, found)
        return found
