"""What the schedulers share that walk over whole training timesteps: DDIM, PNDM and LCM."""

from __future__ import annotations

from typing import Literal

import numpy as np

from engines.image.schedulers.settings import Betas
from engines.image.schedulers.stepper import (
    Sample,
    Stepper,
    Table,
    combine,
    noise_coefficients,
    original_coefficients,
)
from engines.image.schedulers.tables import cumulative_alphas

DiffusionPrediction = Literal["epsilon", "sample", "v_prediction"]


class DiffusionStepper(Stepper):
    """x_t = alpha_t * x0 + sigma_t * eps with alpha_t^2 + sigma_t^2 = 1, t a training timestep.

    Raises:
        ValueError: The model predicts noise, but a timestep has no signal left.
    """

    def __init__(
        self,
        betas: Betas,
        prediction_type: DiffusionPrediction,
        timesteps: Table,
        num_inference_steps: int,
        *,
        final_is_clean: bool = True,
        clip: float | None = None,
    ) -> None:
        super().__init__(timesteps, num_inference_steps)
        alphas_cumprod = cumulative_alphas(betas)
        if prediction_type == "epsilon" and alphas_cumprod[int(timesteps[0])] == 0:
            raise ValueError(
                "prediction_type is 'epsilon', but with rescale_betas_zero_snr timestep "
                f"{int(timesteps[0])} is pure noise: choose another timestep_spacing"
            )
        self.prediction_type = prediction_type
        self._alphas = np.sqrt(alphas_cumprod).tolist()  # [num_train_timesteps]
        self._sigmas = np.sqrt(1 - alphas_cumprod).tolist()  # [num_train_timesteps]
        self._final = (1.0, 0.0) if final_is_clean else (self._alphas[0], self._sigmas[0])
        self._clip = clip

    def predicted_original(self, output: Sample, index: int, sample: Sample) -> Sample:
        return self._original_at(int(self.timesteps[index]), output, sample)

    def add_noise(self, original: Sample, noise: Sample, index: int) -> Sample:
        alpha, sigma = self.level(int(self.timesteps[index]))
        return combine((alpha, original), (sigma, noise))

    def level(self, timestep: int) -> tuple[float, float]:
        """alpha and sigma at a training timestep; below 0, after the last step."""
        return (self._alphas[timestep], self._sigmas[timestep]) if timestep >= 0 else self._final

    def transfer(self, output: Sample, timestep: int, target: int, sample: Sample) -> Sample:
        """Take the x0 and the eps that the model sees at one timestep to another."""
        of_sample, of_output = noise_coefficients(self.prediction_type, *self.level(timestep))
        eps = combine((of_sample, sample), (of_output, output))
        alpha, sigma = self.level(target)
        return combine((alpha, self._original_at(timestep, output, sample)), (sigma, eps))

    def _original_at(self, timestep: int, output: Sample, sample: Sample) -> Sample:
        of_sample, of_output = original_coefficients(self.prediction_type, *self.level(timestep))
        original = combine((of_sample, sample), (of_output, output))
        return original if self._clip is None else np.clip(original, -self._clip, self._clip)
