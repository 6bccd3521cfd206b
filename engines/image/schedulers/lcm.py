"""LCM: a few steps of a latent consistency model, each to a clean latent and back into noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from engines.image.schedulers.diffusion import DiffusionPrediction, DiffusionStepper
from engines.image.schedulers.settings import Betas, TimestepSpacing, check_positive
from engines.image.schedulers.stepper import Sample, Table, check_num_steps, combine

_SIGMA_DATA = 0.5
_BETAS = Betas(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


@dataclass(frozen=True, slots=True, kw_only=True)
class LCMSettings:
    """The settings of LCM under their names in `scheduler_config.json`.

    The steps are chosen among those of the distillation, so `timestep_spacing`, `steps_offset` and
    `set_alpha_to_one` are read but change nothing.
    """

    betas: Betas = field(default_factory=lambda: _BETAS)
    prediction_type: DiffusionPrediction = "epsilon"
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0
    timestep_spacing: TimestepSpacing = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    thresholding: Literal[False] = False

    def __post_init__(self) -> None:
        check_positive("clip_sample_range", self.clip_sample_range)
        check_positive("timestep_scaling", self.timestep_scaling)
        if not 1 <= self.original_inference_steps <= self.betas.num_train_timesteps:
            raise ValueError(
                f"original_inference_steps is {self.original_inference_steps}, but it must be "
                f"between 1 and num_train_timesteps = {self.betas.num_train_timesteps}"
            )

    def stepper(self, num_inference_steps: int, image_seq_len: int | None = None) -> LCM:
        return LCM(self, num_inference_steps)


class LCM(DiffusionStepper):
    """Luo et al. 2023 (https://arxiv.org/abs/2310.04378), multistep consistency sampling.

    The consistency function gives f = c_skip * x + c_out * x0; every step but the last puts new
    noise on it: x_s = alpha_s * f + sigma_s * z.
    """

    def __init__(self, settings: LCMSettings, num_inference_steps: int) -> None:
        super().__init__(
            settings.betas,
            settings.prediction_type,
            _distilled_timesteps(settings, num_inference_steps),
            num_inference_steps,
            clip=settings.clip_sample_range if settings.clip_sample else None,
        )
        self._scaling = settings.timestep_scaling

    def uses_noise(self, index: int) -> bool:
        return index < self.num_steps - 1

    def predicted_original(self, output: Sample, index: int, sample: Sample) -> Sample:
        original = super().predicted_original(output, index, sample)
        scaled = float(self.timesteps[index]) * self._scaling
        squares = scaled**2 + _SIGMA_DATA**2
        return combine((scaled / squares**0.5, original), (_SIGMA_DATA**2 / squares, sample))

    def _step(self, output: Sample, index: int, sample: Sample, noise: Sample | None) -> Sample:
        original = self.predicted_original(output, index, sample)
        if noise is None or not self.uses_noise(index):
            return original
        return self.add_noise(original, noise, index + 1)


def _distilled_timesteps(settings: LCMSettings, num_inference_steps: int) -> Table:
    """Evenly chosen among the steps of the distillation, from the noisiest: [num_steps]."""
    distilled = settings.original_inference_steps
    check_num_steps(num_inference_steps, distilled, "original_inference_steps")
    stride = settings.betas.num_train_timesteps // distilled
    falling = np.arange(distilled, 0, -1, dtype=np.float64) * stride - 1
    chosen = np.linspace(0, distilled, num_inference_steps, endpoint=False).astype(np.int64)
    return falling[chosen]
