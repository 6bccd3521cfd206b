"""The same pictures by diffusers' pipelines of flow models."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import torch

from engines.image.request import ImageRequest
from engines.image.schedulers.schedule import SHORT_NAMES
from export.checkpoint import read_json_object
from tests.export.diffusion.pictures import PROMPT, first_noise, noise_shape, quiet, to_levels
from tests.export.diffusion.tiny_pipelines import T5_LENGTH

EMPTY_ROWS = 256  # that SD3's pipeline puts where T5 is left out


class FlowReference:
    """A pipeline of diffusers, as it was saved or from an image.

    Args:
        checkpoint: Its folder.
        scheduler: A short name; None is the checkpoint's.
        pipeline_class: None is the checkpoint's.
    """

    def __init__(self, checkpoint: Path, scheduler: str | None = None, pipeline_class=None) -> None:
        left_out = {
            name: None
            for name in ("text_encoder_3", "tokenizer_3")
            if read_json_object(checkpoint / "model_index.json").get(name) == [None, None]
        }
        pipeline = diffusers.DiffusionPipeline.from_pretrained(checkpoint, **left_out)
        if pipeline_class is not None:
            names = set(pipeline.components) - {"image_encoder", "feature_extractor"}
            pipeline = pipeline_class(**{name: getattr(pipeline, name) for name in names})
        pipeline.set_progress_bar_config(disable=True)
        pipeline.tokenizer_max_length = 77
        self.is_flux = isinstance(pipeline.transformer, diffusers.FluxTransformer2DModel)
        if scheduler is not None:
            pipeline.scheduler = _make_scheduler(pipeline.scheduler, scheduler)
        self.pipeline = pipeline

    def draw(self, request: ImageRequest, *, negative=None) -> np.ndarray:
        """The picture from the noise that the request's seed gives. [height, width, 3]"""
        noise = torch.from_numpy(first_noise(request))[None]
        if self.is_flux:
            noise = self.pipeline._pack_latents(noise, *noise.shape)
        return self._call(request, latents=noise, **self._negative(negative))

    def draw_from_image(self, request: ImageRequest, image: np.ndarray, module, monkeypatch):
        """The picture from an image, with the noises that the request's seed gives."""
        generator = np.random.default_rng(request.seed)
        sampled, added = (
            torch.from_numpy(generator.standard_normal(noise_shape(request), np.float32))[None]
            for _ in range(2)
        )
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: added)
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
        vae = self.pipeline.vae
        with quiet(), torch.inference_mode():
            latents = vae.encode(pixels).latent_dist
        mean = latents.mean + latents.std * sampled
        original = (mean - vae.config.shift_factor) * vae.config.scaling_factor
        return self._call(request, image=original, strength=request.strength)

    def _call(self, request: ImageRequest, **arguments) -> np.ndarray:
        with quiet(), torch.inference_mode():
            images = self.pipeline(
                prompt=PROMPT,
                height=request.height,
                width=request.width,
                num_inference_steps=request.num_inference_steps,
                guidance_scale=request.guidance_scale,
                max_sequence_length=self._text_length(),
                output_type="np",
                **arguments,
            ).images
        return to_levels(images)

    def _negative(self, negative: str | None) -> dict[str, str | None]:
        return {} if self.is_flux else {"negative_prompt": negative}

    def _text_length(self) -> int:
        has_t5 = self.is_flux or self.pipeline.text_encoder_3 is not None
        return T5_LENGTH if has_t5 else EMPTY_ROWS


def _make_scheduler(own, name: str):
    class_name, pinned = SHORT_NAMES[name]
    if class_name != type(own).__name__:  # a flow model's settings have other names there
        pinned = pinned | {
            "use_flow_sigmas": True,
            "prediction_type": "flow_prediction",
            "flow_shift": own.config.shift,
        }
    with quiet():
        return getattr(diffusers, class_name).from_config(own.config, **pinned)
