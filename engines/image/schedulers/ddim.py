"""DDIM and PNDM: deterministic steps of the same form, of the first and the fourth order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from engines.image.schedulers.diffusion import DiffusionPrediction, DiffusionStepper
from engines.image.schedulers.settings import Betas, TimestepSpacing, check_positive
from engines.image.schedulers.stepper import Sample, combine
from engines.image.schedulers.tables import space_timesteps

# Adams-Bashforth: what the latest predictions, newest first, weigh once so many are known.
_MULTISTEP_WEIGHTS = {
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DDIMSettings:
    """The settings of DDIM under their names in `scheduler_config.json`."""

    betas: Betas = field(default_factory=Betas)
    prediction_type: DiffusionPrediction = "epsilon"
    timestep_spacing: TimestepSpacing = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    thresholding: Literal[False] = False

    def __post_init__(self) -> None:
        check_positive("clip_sample_range", self.clip_sample_range)

    def stepper(self, num_inference_steps: int, image_seq_len: int | None = None) -> DDIM:
        return DDIM(self, num_inference_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class PNDMSettings:
    """The settings of PNDM, of which the variant without Runge-Kutta steps is supported."""

    betas: Betas = field(default_factory=Betas)
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: TimestepSpacing = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = False
    skip_prk_steps: Literal[True] = True

    def stepper(self, num_inference_steps: int, image_seq_len: int | None = None) -> PNDM:
        return PNDM(self, num_inference_steps)


class DDIM(DiffusionStepper):
    """Song et al. 2021 (https://arxiv.org/abs/2010.02502), equation 12 with sigma_t = 0.

    x_s = alpha_s * x0 + sigma_s * eps, where s is `num_train_timesteps // num_inference_steps`
    below t whatever the spacing, and only x0 is clipped.
    """

    def __init__(self, settings: DDIMSettings, num_inference_steps: int) -> None:
        super().__init__(
            settings.betas,
            settings.prediction_type,
            space_timesteps(
                settings.timestep_spacing,
                num_inference_steps,
                settings.betas,
                settings.steps_offset,
            ),
            num_inference_steps,
            final_is_clean=settings.set_alpha_to_one,
            clip=settings.clip_sample_range if settings.clip_sample else None,
        )
        self._stride = settings.betas.num_train_timesteps // num_inference_steps

    def _step(self, output: Sample, index: int, sample: Sample, noise: Sample | None) -> Sample:
        timestep = int(self.timesteps[index])
        return self.transfer(output, timestep, timestep - self._stride, sample)


class PNDM(DiffusionStepper):
    """Liu et al. 2022 (https://arxiv.org/abs/2202.09778), linear multistep from the first step on.

    Its transfer from t to s is DDIM's, with a prediction blended from the last four. The first two
    are blended by taking the first step twice, so a request has one step more than it asked for.
    """

    def __init__(self, settings: PNDMSettings, num_inference_steps: int) -> None:
        timesteps = space_timesteps(
            settings.timestep_spacing, num_inference_steps, settings.betas, settings.steps_offset
        )
        if num_inference_steps > 1:
            timesteps = timesteps.repeat([1, 2] + [1] * (num_inference_steps - 2))
        super().__init__(
            settings.betas,
            settings.prediction_type,
            timesteps,
            num_inference_steps,
            final_is_clean=settings.set_alpha_to_one,
        )
        self._stride = settings.betas.num_train_timesteps // num_inference_steps
        self._num_taken = 0
        self._first_sample: Sample | None = None
        self._outputs: list[Sample] = []  # newest first, at most four

    def _step(self, output: Sample, index: int, sample: Sample, noise: Sample | None) -> Sample:
        timestep = int(self.timesteps[index])
        target = timestep - self._stride
        if self._num_taken == 1:
            assert self._first_sample is not None
            target, timestep = timestep, timestep + self._stride
            sample, self._first_sample = self._first_sample, None
            output = combine((0.5, output), (0.5, self._outputs[0]))
        else:
            self._outputs = [output.copy(), *self._outputs[:3]]
            weights = _MULTISTEP_WEIGHTS.get(len(self._outputs), (1.0,))
            if self._num_taken == 0:
                self._first_sample = sample.copy()
            output = combine(*zip(weights, self._outputs, strict=True))
        self._num_taken += 1
        return self.transfer(output, timestep, target, sample)
