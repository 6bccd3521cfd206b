"""Trains the autoencoder, which turns 128 x 128 pixels into 16 x 16 latents and back."""

from __future__ import annotations

from pathlib import Path
from random import Random
from threading import Event

import numpy as np
import torch
from diffusers import AutoencoderKL

from demos.diffusion_training.drawing import SIZE, FloatArray, paint, to_levels
from demos.diffusion_training.scenes import COLOURS, KINDS
from demos.training.muon import MuonAdamW, split_weights
from demos.training.run import Progress, TrainingRun, learning_rate, moving_average

PEAK_LEARNING_RATE = 3e-3
WARMUP_STEPS = 30
BATCH_SIZE = 8
CROP, CROPPED_SHARE, CROP_BATCH_SIZE = SIZE // 2, 0.6, 12
KL_WEIGHT = 1e-4
GRADIENT_WEIGHT = 0.5
FIRST_LOG_VARIANCE = -6.0
# Few, so that normalizing a flat area of few channels leaves its colour.
NORM_GROUPS = 2
EMA_DECAY = 0.99
NAMED_COLOUR_SHARE = 0.6
MAX_SHAPES = 5


def create_autoencoder() -> AutoencoderKL:
    """An untrained one. It has no attention, so that every patch of a picture is coded alike."""
    channels = (16, 32, 64, 96)
    model = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        norm_num_groups=NORM_GROUPS,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )
    # Latents start with little noise, or pictures would drown in it for hundreds of steps.
    with torch.no_grad():
        model.quant_conv.bias[model.config.latent_channels :] = FIRST_LOG_VARIANCE
    # The layout in which convolutions run four times as fast on a CPU.
    return model.to(memory_format=torch.channels_last)


def draw_clutter(rng: Random) -> FloatArray:
    """A picture of some shapes anywhere, in named and other colours: more edges than a scene."""
    picture = np.empty((SIZE, SIZE, 3), np.float32)
    picture[:] = _draw_colour(rng)
    for _ in range(rng.randint(1, MAX_SHAPES)):
        centre = (rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9))
        paint(picture, rng.choice(KINDS), centre, rng.uniform(0.07, 0.25), _draw_colour(rng))
    return picture


def _draw_colour(rng: Random) -> tuple[float, float, float]:
    if rng.random() < NAMED_COLOUR_SHARE:
        return rng.choice(list(COLOURS.values()))
    return rng.uniform(0, 255), rng.uniform(0, 255), rng.uniform(0, 255)


def draw_batch(rng: Random, done: float) -> torch.Tensor:
    """Quarters of pictures at first, which are cheap, and whole ones later. [B, 3, H, W]"""
    if done >= CROPPED_SHARE:
        return to_tensor(np.stack([to_levels(draw_clutter(rng)) for _ in range(BATCH_SIZE)]))
    crops = []
    for _ in range(CROP_BATCH_SIZE):
        picture, top, left = draw_clutter(rng), rng.randint(0, CROP), rng.randint(0, CROP)
        crops.append(to_levels(picture[top : top + CROP, left : left + CROP]))
    return to_tensor(np.stack(crops))


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """Levels as the autoencoder reads them, -1 to 1. [B, H, W, 3] -> [B, 3, H, W]"""
    # The transposed array is channels-last already.
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def autoencoder_loss(model: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """How far pixels and edges are off, and a little of how far latents are from unit noise."""
    posterior = model.encode(pictures).latent_dist
    error = model.decode(posterior.sample()).sample - pictures
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    loss: torch.Tensor = error.abs().mean() + GRADIENT_WEIGHT * edges + KL_WEIGHT * kl
    return loss


def create_optimizer(model: AutoencoderKL) -> MuonAdamW:
    """Muon for the convolutions, but not for the first and the last one of each half."""
    matrices, others = split_weights(model, ("conv_in", "conv_out", "quant_conv"))
    return MuonAdamW(matrices, others, PEAK_LEARNING_RATE)


class AutoencoderTraining:
    """One run; its result is `averaged`, the moving average of the weights."""

    def __init__(self, path: Path, budget_s: float) -> None:
        self.model = create_autoencoder()
        self.averaged = moving_average(self.model, EMA_DECAY)
        self._optimizer = create_optimizer(self.model)
        self.run = TrainingRun(
            path,
            budget_s,
            Progress(),
            {"model": self.model, "averaged": self.averaged, "optimizer": self._optimizer},
        )

    @property
    def result(self) -> AutoencoderKL:
        autoencoder: AutoencoderKL = self.averaged.module
        return autoencoder

    def train(self, stop: Event) -> None:
        self.run.train(self._step, stop)

    def _step(self) -> float:
        progress = self.run.progress
        pictures = draw_batch(Random(f"autoencoder {progress.step}"), self.run.done)
        loss = autoencoder_loss(self.model, pictures)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step(
            learning_rate(PEAK_LEARNING_RATE, progress.step, WARMUP_STEPS, self.run.done)
        )
        self.averaged.update_parameters(self.model)
        return loss.item()
