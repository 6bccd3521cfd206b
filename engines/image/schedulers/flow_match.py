"""Flow-match Euler: straight steps along a predicted flow, for SD3, FLUX and Qwen-Image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from engines.image.schedulers.settings import SigmaSpacing, check_positive
from engines.image.schedulers.stepper import (
    Sample,
    Stepper,
    Table,
    check_num_steps,
    check_strength,
    combine,
)
from engines.image.schedulers.tables import spread_sigmas, with_final


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowShift:
    """How noise levels are shifted towards noise: by a constant, or by the size of the picture.

    Esser et al. 2024 (https://arxiv.org/abs/2403.03206): for larger pictures a level s becomes
    a * s / (1 + (a - 1) * s). With `use_dynamic_shifting` a depends on the number of latent tokens:
    it is exp(mu), or mu for the type "linear", where mu is `base_shift` at `base_image_seq_len`,
    `max_shift` at `max_image_seq_len` and linear between and beyond. `shift_terminal` then
    stretches the levels so that the last one is it.

    Raises:
        ValueError: A field is out of its range; the message names field, value and range.
    """

    use_dynamic_shifting: bool = False
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    time_shift_type: Literal["exponential", "linear"] = "exponential"
    shift_terminal: float | None = None

    def __post_init__(self) -> None:
        if self.base_image_seq_len >= self.max_image_seq_len:
            raise ValueError(
                f"base_image_seq_len is {self.base_image_seq_len}, but it must be below "
                f"max_image_seq_len = {self.max_image_seq_len}"
            )
        if self.shift_terminal is not None and not 0 <= self.shift_terminal < 1:
            raise ValueError(
                f"shift_terminal is {self.shift_terminal}, but it must be at least 0 and below 1"
            )

    def apply(self, sigmas: Table, shift: float, image_seq_len: int | None) -> Table:
        """Shift and stretch levels between 0 and 1; `shift` is the constant a: [num_steps].

        Raises:
            ValueError: The size of the picture is needed but not given.
        """
        factor = self._factor(image_seq_len) if self.use_dynamic_shifting else shift
        shifted: Table = factor * sigmas / (1 + (factor - 1) * sigmas)
        if not self.shift_terminal or shifted[-1] == 1:  # a single step at 1 has nothing to stretch
            return shifted
        stretch = (1 - self.shift_terminal) / (1 - float(shifted[-1]))
        return 1 - (1 - shifted) * stretch

    def _factor(self, image_seq_len: int | None) -> float:
        if image_seq_len is None:
            raise ValueError("image_seq_len is None, but use_dynamic_shifting needs it")
        slope = (self.max_shift - self.base_shift) / (
            self.max_image_seq_len - self.base_image_seq_len
        )
        mu = self.base_shift + slope * (image_seq_len - self.base_image_seq_len)
        return math.exp(mu) if self.time_shift_type == "exponential" else mu


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowMatchEulerSettings:
    """The settings of flow-match Euler under their names in `scheduler_config.json`.

    `even_steps` is not in that file: it belongs to the pipeline. FLUX and Qwen-Image spread the
    levels from 1 to 1 / num_inference_steps before they are shifted, SD3 down to the smallest of
    training.
    """

    num_train_timesteps: int = 1000
    shift: float = 1.0
    flow: FlowShift = field(default_factory=FlowShift)
    spacing: SigmaSpacing = field(default_factory=SigmaSpacing)
    invert_sigmas: Literal[False] = False
    stochastic_sampling: bool = False
    even_steps: bool = False

    def __post_init__(self) -> None:
        check_positive("num_train_timesteps", self.num_train_timesteps)
        check_positive("shift", self.shift)

    def stepper(self, num_inference_steps: int, image_seq_len: int | None = None) -> FlowMatchEuler:
        return FlowMatchEuler(self, num_inference_steps, image_seq_len)


class FlowMatchEuler(Stepper):
    """Lipman et al. 2023 (https://arxiv.org/abs/2210.02747), the flow followed by Euler's method.

    x = (1 - sigma) * x0 + sigma * eps and the model predicts eps - x0, so a step adds the change of
    sigma times the prediction; with `stochastic_sampling` it goes to x0 and back into new noise.
    """

    def __init__(
        self,
        settings: FlowMatchEulerSettings,
        num_inference_steps: int,
        image_seq_len: int | None = None,
    ) -> None:
        count = settings.num_train_timesteps
        check_num_steps(num_inference_steps, count, "num_train_timesteps")
        levels = np.array([1.0, 1 / count])
        if not settings.flow.use_dynamic_shifting:
            # The table of training is shifted once already, and its ends are shifted again below.
            levels = settings.shift * levels / (1 + (settings.shift - 1) * levels)
        last = 1 / num_inference_steps if settings.even_steps else levels[1]
        sigmas = settings.flow.apply(
            np.linspace(1.0, last, num_inference_steps), settings.shift, image_seq_len
        )
        if settings.spacing.is_spread:
            sigmas = spread_sigmas(settings.spacing, num_inference_steps, sigmas[0], sigmas[-1])
        self.sigmas: Table = with_final(sigmas, 0.0)  # [num_steps + 1]
        self._is_stochastic = settings.stochastic_sampling
        super().__init__(self.sigmas[:-1] * count, num_inference_steps)

    def start_index(self, strength: float) -> int:
        return flow_start_index(self.num_inference_steps, strength)

    def uses_noise(self, index: int) -> bool:
        return self._is_stochastic and bool(self.sigmas[index + 1] > 0)

    def predicted_original(self, output: Sample, index: int, sample: Sample) -> Sample:
        return combine((1.0, sample), (-float(self.sigmas[index]), output))

    def add_noise(self, original: Sample, noise: Sample, index: int) -> Sample:
        sigma = float(self.sigmas[index])
        return combine((1 - sigma, original), (sigma, noise))

    def _step(self, output: Sample, index: int, sample: Sample, noise: Sample | None) -> Sample:
        sigma, target = float(self.sigmas[index]), float(self.sigmas[index + 1])
        if not self._is_stochastic:
            return combine((1.0, sample), (target - sigma, output))
        original = self.predicted_original(output, index, sample)
        if noise is None or not self.uses_noise(index):
            return original
        return combine((1 - target, original), (target, noise))


def flow_start_index(num_inference_steps: int, strength: float) -> int:
    """Where image-to-image starts: rounded down, unlike in the pipelines of diffusion models."""
    check_strength(strength)
    return int(num_inference_steps - num_inference_steps * strength)
