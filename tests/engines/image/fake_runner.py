"""A small real implementation of `ImageRunner`: arithmetic instead of a model."""

from __future__ import annotations

import numpy as np

from engines.image.engine import ImageEngine
from engines.image.request import ImageRequest
from engines.image.runner import EncodedText
from engines.image.scheduler import ImageSchedulerConfig
from engines.image.schedulers.schedule import NoiseSchedule
from engines.manifest import ImageSpec, TextEncoderSpec

MAX_LENGTH = 5
VOCAB_SIZE = 50
BOS, EOS, PAD = 48, 49, 0
SCHEDULE = NoiseSchedule.from_config(
    {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "clip_sample": False}
)


def make_spec(**changes) -> ImageSpec:
    encoder = TextEncoderSpec(
        graph="text_encoder.onnx",
        tokenizer="tokenizer.json",
        vocab_size=VOCAB_SIZE,
        max_length=MAX_LENGTH,
        prefix_token_ids=(BOS,),
        suffix_token_ids=(EOS,),
        pad_token_id=PAD,
    )
    fields = {
        "pipeline": "stable-diffusion",
        "text_encoders": (encoder,),
        "denoiser": "unet.onnx",
        "shallow_denoiser": "unet_shallow.onnx",
        "vae_decoder": "vae_decoder.onnx",
        "vae_encoder": "vae_encoder.onnx",
        "scheduler": "scheduler_config.json",
        "latent_channels": 4,
        "latent_scale": 2,
        "size_multiple": 2,
        "max_pixels": 256,
        "default_height": 8,
        "default_width": 8,
        "default_num_inference_steps": 4,
        "default_guidance_scale": 5.0,
        "num_parameters": 1,
    }
    return ImageSpec(**(fields | changes))


def make_request(image_id: int, **changes) -> ImageRequest:
    """A guided request of 8 x 8 pixels and 4 steps, unlike that of any other id."""
    fields = {
        "image_id": image_id,
        "prompt_token_ids": ((BOS, image_id % 40 + 1, EOS, PAD, PAD),),
        "height": 8,
        "width": 8,
        "num_inference_steps": 4,
        "guidance_scale": 5.0,
        "seed": image_id,
    }
    return ImageRequest(**(fields | changes))


class FakeImageRunner:
    """Rows do not see each other; everything that a row is told changes its prediction."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []  # the shape of each run of the denoiser
        self.is_shallow: list[bool] = []  # of each of these runs
        self.texts: list[np.ndarray] = []  # the ids of each run of the text encoder
        self.num_decoded = 0
        self.is_closed = False

    def encode_text(self, token_ids):
        self.texts.append(token_ids[0])
        rows = [ids[:, :, None].astype(np.float32) / VOCAB_SIZE for ids in token_ids]
        return tuple(EncodedText(row, row.mean(axis=1)) for row in rows)

    def denoise(self, batch):
        return self.denoise_keeping(batch)[0]

    def denoise_keeping(self, batch):
        self._log(batch, is_shallow=False)
        features = np.tanh(batch.sample[:, :2] + self._drift(batch))  # [n, 2, h, w]
        return self._predict(batch, features), features

    def denoise_shallow(self, batch, deep_features):
        self._log(batch, is_shallow=True)
        assert deep_features.shape == (len(batch.sample), 2, *batch.sample.shape[2:])
        return self._predict(batch, deep_features)

    def _log(self, batch, *, is_shallow):
        self.batches.append(batch.sample.shape)
        self.is_shallow.append(is_shallow)

    def _predict(self, batch, features):
        deep = np.concatenate([features, features], axis=1)
        return np.tanh(batch.sample * np.float32(0.4) + deep * np.float32(0.2) + self._drift(batch))

    def _drift(self, batch):
        told = batch.conditioning
        text = told.context.mean(axis=(1, 2))
        for extra in (told.pooled, told.time_ids, told.guidance_waves, told.guidance_scale):
            if extra is not None:
                assert len(extra) == len(batch.sample)
                text = text + extra.reshape(len(extra), -1).mean(axis=1)
        return (text + batch.timestep / np.float32(1000))[:, None, None, None]

    def decode(self, latents):
        assert len(latents) == 1, "pictures are decoded one at a time"
        self.num_decoded += 1
        return latents[:, :3].repeat(2, axis=2).repeat(2, axis=3)

    def encode_image(self, images):
        small = images[:, :, ::2, ::2]
        mean = np.concatenate([small, small[:, :1]], axis=1)
        return mean, np.full_like(mean, 0.1)

    def close(self):
        self.is_closed = True


def make_engine(runner=None, spec=None, **limits) -> ImageEngine:
    return ImageEngine(
        runner or FakeImageRunner(),
        spec or make_spec(),
        SCHEDULE,
        ImageSchedulerConfig(**limits),
        device="fake",
    )


def run_to_end(engine: ImageEngine) -> list:
    """All outputs until nothing is left to do."""
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    return outputs


def pictures(outputs) -> dict[int, np.ndarray]:
    return {output.image_id: output.picture for output in outputs if output.is_finished}


def picture_alone(request: ImageRequest, spec=None) -> np.ndarray:
    """What an engine makes of a request that has it to itself."""
    engine = make_engine(spec=spec)
    engine.add(request)
    return pictures(run_to_end(engine))[request.image_id]
