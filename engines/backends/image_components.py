"""What an image model's graphs are asked, whatever runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray

from engines.image.runner import DenoiseBatch, EncodedText, FloatArray, IntArray
from engines.manifest import ImageSpec

Arrays = Mapping[str, NDArray[Any]]


class Component(Protocol):
    """One graph that is ready to run."""

    def run(self, inputs: Arrays, outputs: tuple[str, ...] = ()) -> dict[str, FloatArray]:
        """What comes out under each name of `outputs`, or under every name there is."""
        ...


ComponentT = TypeVar("ComponentT", bound=Component)


class ImageComponents(Generic[ComponentT]):
    """The calls of `ImageRunner` but `close`, over one component a graph.

    Args:
        spec: What the manifest says of the model.
        open_component: Opens the graph of a file's name; True where every step runs it.
    """

    def __init__(self, spec: ImageSpec, open_component: Callable[[str, bool], ComponentT]) -> None:
        self._text_encoders = [open_component(text.graph, False) for text in spec.text_encoders]
        self._denoiser = open_component(spec.denoiser, True)
        shallow = spec.shallow_denoiser
        self._shallow_denoiser = None if shallow is None else open_component(shallow, True)
        self._vae_decoder = open_component(spec.vae_decoder, False)
        self._vae_encoder = open_component(spec.vae_encoder, False)

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
