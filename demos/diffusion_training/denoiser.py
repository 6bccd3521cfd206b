"""Trains the text encoder and the UNet together on the latents of captioned scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from threading import Event
from typing import cast

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from demos.diffusion_training.captions import draw_caption
from demos.diffusion_training.components import (
    BETA_END,
    BETA_START,
    NUM_TIMESTEPS,
    create_unet,
)
from demos.diffusion_training.scenes import Scene
from demos.training.muon import MuonAdamW, split_weights
from demos.training.run import Progress, TrainingRun, learning_rate, moving_average

PEAK_LEARNING_RATE = 4e-3
WARMUP_STEPS = 50
BATCH_SIZE = 32
TIMESTEP_POWER = 0.7
EASY_PART = 0.35
EMA_DECAY, EMA_EVERY_STEPS = 0.98, 4


class Denoiser(nn.Module):
    """Text encoder and UNet: what the noise is, from noised latents, times and token ids."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet

    def forward(
        self, latents: torch.Tensor, timesteps: torch.Tensor, token_ids: torch.Tensor
    ) -> torch.Tensor:
        """[B, C, h, w], [B], [B, T] -> [B, C, h, w]"""
        context = self.text_encoder(input_ids=token_ids).last_hidden_state  # [B, T, H]
        predicted: torch.Tensor = self.unet(latents, timesteps, context).sample
        return predicted


def draw_timesteps(count: int, generator: torch.Generator) -> torch.Tensor:
    """Times at which to denoise, few of them early: there a picture needs no text. [count]

    Every other one is about where shapes just begin to show: what is said of them is learnt there.
    """
    uniform, other = torch.rand(2, count, generator=generator)
    share = torch.where(torch.arange(count) % 2 == 0, uniform, (uniform + other) / 2)
    return (share**TIMESTEP_POWER * NUM_TIMESTEPS).long().clamp(max=NUM_TIMESTEPS - 1)


def is_easy(scene: Scene) -> bool:
    """Whether a scene has one big shape: its words are learnt sooner, as it covers more."""
    return len(scene.shapes) == 1 and scene.shapes[0].size == "big"


def velocity_batch(
    latents: torch.Tensor, timesteps: torch.Tensor, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noised latents and the velocity to be predicted; Salimans and Ho 2022, arXiv:2202.00512."""
    betas = torch.linspace(BETA_START, BETA_END, NUM_TIMESTEPS)
    alphas = (1 - betas).cumprod(0)[timesteps].view(-1, 1, 1, 1)
    signal, spread = alphas.sqrt(), (1 - alphas).sqrt()
    return signal * latents + spread * noise, signal * noise - spread * latents


def create_optimizer(model: Denoiser) -> MuonAdamW:
    """Muon for all matrices and convolutions but the embeddings and the UNet's two ends."""
    matrices, others = split_weights(model, ("embedding", "conv_in", "conv_out", "time_emb"))
    return MuonAdamW(matrices, others, PEAK_LEARNING_RATE, weight_decay=0.01)


class DenoiserTraining:
    """One run; its result is `averaged`, the moving average of the weights.

    Args:
        path: The file of its state.
        budget_s: Seconds of training, restarts included.
        tokenizer: The folder of the captions' tokenizer.
        text_encoder: Knows the captions already; it is trained on.
        scenes: What the pictures show.
        latents: The pictures, [N, 4, h, w].
    """

    def __init__(
        self,
        path: Path,
        budget_s: float,
        tokenizer: Path,
        text_encoder: CLIPTextModel,
        scenes: Sequence[Scene],
        latents: torch.Tensor,
    ) -> None:
        self._tokenizer = CLIPTokenizer.from_pretrained(tokenizer)
        self.model = Denoiser(text_encoder, create_unet())
        self.averaged = moving_average(self.model, EMA_DECAY)
        self._optimizer = create_optimizer(self.model)
        self._scenes = scenes
        self._easy = [index for index, scene in enumerate(scenes) if is_easy(scene)]
        self._latents = latents
        self.run = TrainingRun(
            path,
            budget_s,
            Progress(),
            {"model": self.model, "averaged": self.averaged, "optimizer": self._optimizer},
        )

    @property
    def result(self) -> Denoiser:
        return cast(Denoiser, self.averaged.module)

    def train(self, stop: Event) -> None:
        self.run.train(self._step, stop)

    def _step(self) -> float:
        progress = self.run.progress
        latents, token_ids = self._draw_batch(Random(f"denoiser {progress.step}"))
        generator = torch.Generator().manual_seed(progress.step)
        timesteps = draw_timesteps(len(latents), generator)
        noise = torch.randn(latents.shape, generator=generator)
        noised, velocity = velocity_batch(latents, timesteps, noise)
        noised = noised.contiguous(memory_format=torch.channels_last)
        loss = F.mse_loss(self.model(noised, timesteps, token_ids), velocity)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step(
            learning_rate(PEAK_LEARNING_RATE, progress.step, WARMUP_STEPS, self.run.done)
        )
        if progress.step % EMA_EVERY_STEPS == 0:
            self.averaged.update_parameters(self.model)
        return loss.item()

    def _draw_batch(self, rng: Random) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of random scenes, each with a new caption. [B, 4, h, w], [B, T]"""
        pool = self._easy if self.run.done < EASY_PART else range(len(self._scenes))
        chosen = [rng.choice(pool) for _ in range(BATCH_SIZE)]
        captions = [draw_caption(rng, self._scenes[index]) for index in chosen]
        token_ids = self._tokenizer(
            captions, padding="max_length", truncation=True, return_tensors="np"
        ).input_ids
        return self._latents[chosen].float(), torch.from_numpy(np.asarray(token_ids))
