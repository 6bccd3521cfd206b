"""Euler and Euler ancestral: first-order steps over noise levels instead of timesteps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from engines.image.schedulers.diffusion import DiffusionPrediction
from engines.image.schedulers.settings import Betas, FinalSigma, SigmaSpacing, TimestepSpacing
from engines.image.schedulers.stepper import (
    Sample,
    Stepper,
    Table,
    combine,
    original_coefficients,
)
from engines.image.schedulers.tables import (
    cumulative_alphas,
    final_sigma,
    space_timesteps,
    spread_sigmas,
    timesteps_at,
    trained_sigmas,
    with_final,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EulerSettings:
    """The settings of Euler under their names in `scheduler_config.json`."""

    betas: Betas = field(default_factory=Betas)
    prediction_type: DiffusionPrediction = "epsilon"
    timestep_spacing: TimestepSpacing = "linspace"
    steps_offset: int = 0
    spacing: SigmaSpacing = field(default_factory=SigmaSpacing)
    final_sigmas_type: FinalSigma = "zero"
    interpolation_type: Literal["linear"] = "linear"
    timestep_type: Literal["discrete"] = "discrete"

    def stepper(self, num_inference_steps: int, image_seq_len: int | None = None) -> Euler:
        return Euler(self, num_inference_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class EulerAncestralSettings:
    """The settings of Euler ancestral under their names in `scheduler_config.json`."""

    betas: Betas = field(default_factory=Betas)
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: TimestepSpacing = "linspace"
    steps_offset: int = 0

    def stepper(self, num_inference_steps: int, image_seq_len: int | None = None) -> EulerAncestral:
        return EulerAncestral(self, num_inference_steps)


class Euler(Stepper):
    """Karras et al. 2022 (https://arxiv.org/abs/2206.00364), algorithm 1 of the first order.

    Samples are x = x0 + sigma * eps, so the model is given x / sqrt(sigma^2 + 1). A step follows
    the slope (x - x0) / sigma from one noise level to the next.
    """

    def __init__(
        self, settings: EulerSettings | EulerAncestralSettings, num_inference_steps: int
    ) -> None:
        trained = trained_sigmas(cumulative_alphas(settings.betas, above_zero=True))
        timesteps = space_timesteps(
            settings.timestep_spacing,
            num_inference_steps,
            settings.betas,
            settings.steps_offset,
            rounded=False,
        )
        sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
        final = 0.0
        if isinstance(settings, EulerSettings):
            final = final_sigma(settings.final_sigmas_type, trained[0])
            if settings.spacing.is_spread:
                sigmas = spread_sigmas(settings.spacing, num_inference_steps, sigmas[0], sigmas[-1])
                timesteps = timesteps_at(sigmas, trained)
        self.prediction_type = settings.prediction_type
        self.sigmas: Table = with_final(sigmas, final)  # [num_steps + 1]
        largest = float(self.sigmas.max())
        # "leading" stops short of the noisiest timestep: its noise has the signal's variance too.
        is_leading = settings.timestep_spacing == "leading"
        init_noise_sigma = (largest**2 + 1) ** 0.5 if is_leading else largest
        super().__init__(timesteps, num_inference_steps, init_noise_sigma)

    def scale_input(self, sample: Sample, index: int) -> Sample:
        return combine((float(self.sigmas[index] ** 2 + 1) ** -0.5, sample))

    def predicted_original(self, output: Sample, index: int, sample: Sample) -> Sample:
        sigma = float(self.sigmas[index])
        alpha = (sigma**2 + 1) ** -0.5  # of the sample as the model is given it, alpha * sample
        of_sample, of_output = original_coefficients(self.prediction_type, alpha, alpha * sigma)
        return combine((of_sample * alpha, sample), (of_output, output))

    def add_noise(self, original: Sample, noise: Sample, index: int) -> Sample:
        return combine((1.0, original), (float(self.sigmas[index]), noise))

    def _step(self, output: Sample, index: int, sample: Sample, noise: Sample | None) -> Sample:
        ratio = float(self.sigmas[index + 1] / self.sigmas[index])
        original = self.predicted_original(output, index, sample)
        return combine((ratio, sample), (1 - ratio, original))


class EulerAncestral(Euler):
    """Euler steps below the next noise level, and noise back up to it.

    From s to t it goes down to t^2 / s and adds t * sqrt(1 - t^2 / s^2) of noise: the variances sum
    to t^2 and the noise is DDPM's (Song et al. 2021, https://arxiv.org/abs/2010.02502, eta = 1).
    """

    def uses_noise(self, index: int) -> bool:
        return bool(self.sigmas[index + 1] > 0)

    def _step(self, output: Sample, index: int, sample: Sample, noise: Sample | None) -> Sample:
        original = self.predicted_original(output, index, sample)
        if noise is None or not self.uses_noise(index):
            return original
        sigma, target = float(self.sigmas[index]), float(self.sigmas[index + 1])
        ratio = target / sigma
        up = target * (1 - ratio**2) ** 0.5
        return combine((ratio**2, sample), (1 - ratio**2, original), (up, noise))
