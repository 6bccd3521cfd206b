"""Trains the decoder on, alone, while the latents stay what the denoiser is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from threading import Event
from typing import cast

import numpy as np
import torch
from diffusers import AutoencoderKL

from demos.diffusion_training.autoencoder import draw_clutter, to_tensor
from demos.diffusion_training.drawing import draw_picture, to_levels
from demos.diffusion_training.scenes import Scene
from demos.training.muon import MuonAdamW, split_weights
from demos.training.run import Progress, TrainingRun, learning_rate, moving_average

PEAK_LEARNING_RATE = 1.5e-3
WARMUP_STEPS = 30
SCENES_PER_BATCH, CLUTTER_PER_BATCH = 6, 2
LATENT_NOISE = 0.05  # about what the denoiser leaves
EDGE_WEIGHT = 1.0
EMA_DECAY = 0.99


class DecoderTraining:
    """One run; its result is the autoencoder with the moving average of the decoder.

    Args:
        path: The file of its state.
        budget_s: Seconds of training, restarts included.
        autoencoder: Whose decoder is trained on; it is changed.
        scenes: What the pictures show.
        latents: The pictures, [N, 4, h, w].
    """

    def __init__(
        self,
        path: Path,
        budget_s: float,
        autoencoder: AutoencoderKL,
        scenes: Sequence[Scene],
        latents: torch.Tensor,
    ) -> None:
        self.model = autoencoder
        self.model.encoder.requires_grad_(False)
        self.model.quant_conv.requires_grad_(False)
        self.averaged = moving_average(self.model, EMA_DECAY)
        trained = torch.nn.ModuleDict(
            {"decoder": self.model.decoder, "post_quant_conv": self.model.post_quant_conv}
        )
        matrices, others = split_weights(trained, ("conv_in", "conv_out", "quant_conv"))
        self._optimizer = MuonAdamW(matrices, others, PEAK_LEARNING_RATE)
        self._scenes = scenes
        self._latents = latents
        self.run = TrainingRun(
            path,
            budget_s,
            Progress(),
            {"model": self.model, "averaged": self.averaged, "optimizer": self._optimizer},
        )

    @property
    def result(self) -> AutoencoderKL:
        return cast(AutoencoderKL, self.averaged.module)

    def train(self, stop: Event) -> None:
        self.run.train(self._step, stop)

    def _step(self) -> float:
        progress = self.run.progress
        pictures, latents = self._draw_batch(Random(f"decoder {progress.step}"))
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(progress.step))
        error = self.model.decode(latents + LATENT_NOISE * noise).sample - pictures
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        loss = error.abs().mean() + EDGE_WEIGHT * edges
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step(
            learning_rate(PEAK_LEARNING_RATE, progress.step, WARMUP_STEPS, self.run.done)
        )
        self.averaged.update_parameters(self.model)
        return float(loss.item())

    def _draw_batch(self, rng: Random) -> tuple[torch.Tensor, torch.Tensor]:
        """Scenes with their latents, and some clutter, so that other pictures stay possible."""
        chosen = [rng.randrange(len(self._scenes)) for _ in range(SCENES_PER_BATCH)]
        clutter = to_tensor(
            np.stack([to_levels(draw_clutter(rng)) for _ in range(CLUTTER_PER_BATCH)])
        )
        scenes = to_tensor(np.stack([draw_picture(self._scenes[index]) for index in chosen]))
        with torch.no_grad():
            clutter_latents = self.model.encode(clutter).latent_dist.mean
        latents = torch.cat([self._latents[chosen].float(), clutter_latents])
        pictures = torch.cat([scenes, clutter])
        return pictures, latents.contiguous(memory_format=torch.channels_last)
