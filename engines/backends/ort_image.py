"""ONNX Runtime on CPU for image models: one session for each component, any batch, any size.

Rounding: the rows of a run are computed apart from each other, but its kernels split their work by
the number of rows, so that a row differs by about 1e-6 between batches of different size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from engines.backends.ort_session import open_session
from engines.errors import RunFailed
from engines.image.runner import DenoiseBatch, EncodedText, FloatArray, IntArray
from engines.manifest import ImageSpec

Arrays = Mapping[str, NDArray[Any]]
Observe = Callable[[str, Arrays, Arrays], None]  # told each run: the graph, inputs, outputs


class OrtCpuImageRunner:
    """Implements `ImageRunner`; `observe` sees every run of a graph."""

    def __init__(
        self, folder: Path, spec: ImageSpec, num_threads: int, observe: Observe | None = None
    ) -> None:
        def component(graph: str, *, is_rare: bool = True) -> _Component:
            return _Component(open_session(folder / graph, num_threads), graph, observe, is_rare)

        self._text_encoders = [component(encoder.graph) for encoder in spec.text_encoders]
        self._denoiser = component(spec.denoiser, is_rare=False)
        shallow = spec.shallow_denoiser
        self._shallow_denoiser = None if shallow is None else component(shallow, is_rare=False)
        self._vae_decoder = component(spec.vae_decoder)
        self._vae_encoder = component(spec.vae_encoder)

    def encode_text(self, token_ids: tuple[IntArray, ...]) -> tuple[EncodedText, ...]:
        found = [
            encoder.run({"input_ids": ids})
            for encoder, ids in zip(self._text_encoders, token_ids, strict=True)
        ]
        return tuple(
            EncodedText(outputs.get("hidden_states"), outputs.get("text_embeds"))
            for outputs in found
        )

    def denoise(self, batch: DenoiseBatch) -> FloatArray:
        return self._denoiser.run(batch.inputs(), ("model_output",))["model_output"]

    def denoise_keeping(self, batch: DenoiseBatch) -> tuple[FloatArray, FloatArray]:
        found = self._denoiser.run(batch.inputs())
        return found["model_output"], found["deep_features"]

    def denoise_shallow(self, batch: DenoiseBatch, deep_features: FloatArray) -> FloatArray:
        assert self._shallow_denoiser is not None, "the model has no step caching"
        inputs = batch.inputs() | {"deep_features": deep_features}
        return self._shallow_denoiser.run(inputs)["model_output"]

    def decode(self, latents: FloatArray) -> FloatArray:
        return self._vae_decoder.run({"latents": latents})["images"]

    def encode_image(self, images: FloatArray) -> tuple[FloatArray, FloatArray]:
        found = self._vae_encoder.run({"images": images})
        return found["latent_mean"], found["latent_std"]

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
        self, session: ort.InferenceSession, graph: str, observe: Observe | None, is_rare: bool
    ) -> None:
        self._session = session
        self._graph = graph
        self._observe = observe
        self._options = ort.RunOptions()
        if is_rare:
            self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._output_names = [output.name for output in session.get_outputs()]

    def run(self, inputs: Arrays, outputs: Sequence[str] = ()) -> dict[str, FloatArray]:
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
