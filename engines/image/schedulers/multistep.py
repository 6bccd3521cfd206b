"""What the multistep solvers share, DPM-Solver++ and UniPC: noise levels in half log-SNR."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engines.image.schedulers.flow_match import flow_start_index
from engines.image.schedulers.stepper import (
    PredictionType,
    Sample,
    Stepper,
    Table,
    combine,
    original_coefficients,
)

LARGEST_FLOW = 1 - 1e-6  # without any signal the log-SNR would be infinite


@dataclass(frozen=True, slots=True)
class NoiseLevel:
    """x = alpha * x0 + sigma * eps; `log_snr` is half of the log of the signal-to-noise ratio."""

    alpha: float
    sigma: float
    log_snr: float  # lambda = log(alpha / sigma), infinite without noise

    @classmethod
    def of_diffusion(cls, ratio: float) -> NoiseLevel:
        """The level of a noise-to-signal ratio where alpha^2 + sigma^2 = 1."""
        alpha = 1 / math.sqrt(ratio**2 + 1)
        return cls(alpha, ratio * alpha, -_log(ratio))

    @classmethod
    def of_flow(cls, sigma: float) -> NoiseLevel:
        """The level of a share of noise where alpha + sigma = 1."""
        return cls(1 - sigma, sigma, math.log(1 - sigma) - _log(sigma))


class MultistepStepper(Stepper):
    """Predicts x0 at each step and keeps the predictions of the steps before.

    Raises:
        ValueError: Two steps have the same noise level.
    """

    def __init__(
        self,
        prediction_type: PredictionType,
        timesteps: Table,
        sigmas: Table,
        num_inference_steps: int,
    ) -> None:
        if (np.diff(sigmas[:-1]) >= 0).any():
            raise ValueError(
                f"num_inference_steps is {num_inference_steps}, but the schedule does not have as "
                "many different noise levels: take fewer"
            )
        super().__init__(timesteps, num_inference_steps)
        self.prediction_type = prediction_type
        self._is_flow = prediction_type == "flow_prediction"
        level = NoiseLevel.of_flow if self._is_flow else NoiseLevel.of_diffusion
        self.levels = [level(sigma) for sigma in sigmas.tolist()]  # [num_steps + 1]

    def start_index(self, strength: float) -> int:
        if self._is_flow:
            return flow_start_index(self.num_inference_steps, strength)
        return super().start_index(strength)

    def predicted_original(self, output: Sample, index: int, sample: Sample) -> Sample:
        level = self.levels[index]
        of_sample, of_output = original_coefficients(self.prediction_type, level.alpha, level.sigma)
        return combine((of_sample, sample), (of_output, output))

    def add_noise(self, original: Sample, noise: Sample, index: int) -> Sample:
        return combine((self.levels[index].alpha, original), (self.levels[index].sigma, noise))


def check_flow(prediction_type: PredictionType, use_flow_sigmas: bool, is_spread: bool) -> None:
    """Refuse flow levels without a predicted flow, and the other way round."""
    if use_flow_sigmas != (prediction_type == "flow_prediction"):
        raise ValueError(
            f"prediction_type is {prediction_type!r}, but use_flow_sigmas is {use_flow_sigmas}: "
            "a model predicts flow on flow levels, or neither"
        )
    if use_flow_sigmas and is_spread:
        raise ValueError(
            "use_flow_sigmas is True, but then use_karras_sigmas, use_exponential_sigmas and "
            "use_lu_lambdas must be False"
        )


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
