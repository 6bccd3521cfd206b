"""The latents of many scenes, encoded once, so that the denoiser's training runs no autoencoder."""

from __future__ import annotations

import logging
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL

from demos.diffusion_training.autoencoder import to_tensor
from demos.diffusion_training.drawing import draw_picture
from demos.diffusion_training.scenes import Scene, draw_scene

logger = logging.getLogger("demos.training")

_BATCH_SIZE = 32
_LOG_EVERY = 4096


def draw_scenes(count: int) -> list[Scene]:
    """The scenes that the denoiser is trained on; none is held out."""
    rng = Random("scenes")
    return [draw_scene(rng) for _ in range(count)]


@torch.inference_mode()
def encode_scenes(autoencoder: AutoencoderKL, scenes: list[Scene]) -> torch.Tensor:
    """The latents of their pictures, without noise. [N, 4, h, w]"""
    latents = []
    for start in range(0, len(scenes), _BATCH_SIZE):
        pictures = np.stack([draw_picture(scene) for scene in scenes[start : start + _BATCH_SIZE]])
        latents.append(autoencoder.encode(to_tensor(pictures)).latent_dist.mean.half())
        if start % _LOG_EVERY == 0:
            logger.info("encoded %d of %d scenes", start, len(scenes))
    return torch.cat(latents)


@torch.no_grad()
def standardize_latents(autoencoder: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Let every channel of the latents have mean 0 and variance 1, and return them so.

    The 1 x 1 convolutions around the latents take the change, so that pictures stay the same and
    `scaling_factor` is 1.
    """
    mean = latents.float().mean((0, 2, 3))  # [C]
    std = latents.float().std((0, 2, 3))  # [C]
    encoded, decoded = autoencoder.quant_conv, autoencoder.post_quant_conv
    channels = len(mean)
    decoded.bias += decoded.weight[:, :, 0, 0] @ mean
    decoded.weight *= std[None, :, None, None]
    encoded.weight[:channels] /= std[:, None, None, None]
    encoded.bias[:channels] = (encoded.bias[:channels] - mean) / std
    encoded.bias[channels:] -= 2 * std.log()
    autoencoder.register_to_config(scaling_factor=1.0)
    shape = (1, channels, 1, 1)
    return ((latents.float() - mean.view(shape)) / std.view(shape)).half()


def load_latents(path: Path, autoencoder: AutoencoderKL, count: int) -> torch.Tensor:
    """Latents of the first `count` scenes, by an autoencoder that is changed to give such latents.

    What was encoded once is kept at `path`.
    """
    if path.exists():
        state = torch.load(path, weights_only=True)
        autoencoder.load_state_dict(state["autoencoder"])
        autoencoder.register_to_config(scaling_factor=1.0)
        return torch.as_tensor(state["latents"])
    raw = encode_scenes(autoencoder, draw_scenes(count))
    latents = standardize_latents(autoencoder, raw)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"autoencoder": autoencoder.state_dict(), "latents": latents}, path)
    return latents
