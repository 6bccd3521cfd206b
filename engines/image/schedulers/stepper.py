"""What every noise scheduler is to the engine: a stepper, one for each request.

Samples are float32 arrays of any shape; every operation is elementwise, so a stepper knows nothing
of batches, channels or tokens. Coefficients are Python floats, computed in float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Sample = NDArray[np.float32]
Table = NDArray[np.float64]
PredictionType = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]


class Stepper(ABC):
    """One request's way from noise to picture. One thread owns it.

    `timesteps` [num_steps] are what the model is told at each step; `init_noise_sigma` is what
    standard normal noise is multiplied by to start from index 0.
    """

    def __init__(
        self, timesteps: Table, num_inference_steps: int, init_noise_sigma: float = 1.0
    ) -> None:
        self.timesteps = timesteps  # [num_steps]
        self.num_inference_steps = num_inference_steps
        self.init_noise_sigma = init_noise_sigma
        self._next_index: int | None = None  # None before the first step

    @property
    def num_steps(self) -> int:
        """How often the model is run from index 0."""
        return len(self.timesteps)

    def start_index(self, strength: float) -> int:
        """The index at which image-to-image starts: 0 at strength 1, later below.

        It is at least `num_inference_steps` when the strength is too small for a single step.

        Raises:
            ValueError: The strength is not between 0 and 1.
        """
        check_strength(strength)
        return self.num_inference_steps - int(self.num_inference_steps * strength)

    def scale_input(self, sample: Sample, index: int) -> Sample:
        """Return what the model is given for `sample` at step `index`."""
        return sample

    def uses_noise(self, index: int) -> bool:
        """Whether step `index` draws standard normal noise of the sample's shape."""
        return False

    def step(
        self, output: Sample, index: int, sample: Sample, noise: Sample | None = None
    ) -> Sample:
        """Advance `sample` by one step; no array is changed, and the caller may reuse all of them.

        Args:
            output: What the model returned for `scale_input(sample, index)`.
            index: The step, from 0 or `start_index`, each once and in order.
            sample: The latent before the step.
            noise: Standard normal noise of the same shape, where `uses_noise(index)`.

        Returns:
            The latent after the step, float32, of the same shape.

        Raises:
            ValueError: There is no such step, it is out of order, or its noise is missing.
        """
        if not 0 <= index < self.num_steps:
            raise ValueError(f"index is {index}, but the request has {self.num_steps} steps")
        if self._next_index not in (None, index):
            raise ValueError(f"index is {index}, but the next step is {self._next_index}")
        if noise is None and self.uses_noise(index):
            raise ValueError(f"noise is None, but step {index} is stochastic and needs it")
        advanced = self._step(output, index, sample, noise)
        self._next_index = index + 1
        return advanced

    @abstractmethod
    def _step(self, output: Sample, index: int, sample: Sample, noise: Sample | None) -> Sample: ...

    @abstractmethod
    def predicted_original(self, output: Sample, index: int, sample: Sample) -> Sample:
        """Return the picture without noise that the model sees at step `index`; changes nothing."""

    @abstractmethod
    def add_noise(self, original: Sample, noise: Sample, index: int) -> Sample:
        """Return `original` with as much of `noise` as a sample has before step `index`."""


def check_strength(strength: float) -> None:
    """Refuse a strength that is no fraction."""
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is {strength}, but it must be between 0 and 1")


def check_num_steps(num_inference_steps: int, limit: int, limit_name: str) -> None:
    """Refuse a number of steps that the schedule cannot hold."""
    if not 1 <= num_inference_steps <= limit:
        raise ValueError(
            f"num_inference_steps is {num_inference_steps}, but it must be between 1 and "
            f"{limit_name} = {limit}"
        )


def combine(*terms: tuple[float, Sample]) -> Sample:
    """The sum of coefficient times array in float32; a coefficient of 0 ignores its array."""
    total: Sample | None = None
    for coefficient, array in terms:
        if coefficient == 0:
            continue
        # `float`: a numpy scalar of float64 would promote the whole array.
        product = float(coefficient) * array
        total = product if total is None else np.add(total, product, out=total)
    return np.zeros_like(terms[0][1]) if total is None else total


def original_coefficients(
    prediction_type: PredictionType, alpha: float, sigma: float
) -> tuple[float, float]:
    """The coefficients of sample and output whose sum is the predicted original.

    For a sample x = alpha * x0 + sigma * eps the model predicts eps, x0, the velocity
    v = alpha * eps - sigma * x0 (Salimans and Ho 2022, https://arxiv.org/abs/2202.00512) or, where
    alpha = 1 - sigma, the flow eps - x0 (Lipman et al. 2023, https://arxiv.org/abs/2210.02747).
    """
    match prediction_type:
        case "epsilon":
            return 1 / alpha, -sigma / alpha
        case "sample":
            return 0.0, 1.0
        case "v_prediction":
            return alpha, -sigma
        case "flow_prediction":
            return 1.0, -sigma


def noise_coefficients(
    prediction_type: PredictionType, alpha: float, sigma: float
) -> tuple[float, float]:
    """The coefficients of sample and output whose sum is the predicted noise eps."""
    match prediction_type:
        case "epsilon":
            return 0.0, 1.0
        case "sample":
            return 1 / sigma, -alpha / sigma
        case "v_prediction":
            return sigma, alpha
        case "flow_prediction":
            return 1.0, 1 - sigma
