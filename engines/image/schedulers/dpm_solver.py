"""DPM-Solver++ 2M: a multistep solver of the second order for the diffusion equation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from engines.image.schedulers.flow_match import FlowShift
from engines.image.schedulers.multistep import LARGEST_FLOW, MultistepStepper, check_flow
from engines.image.schedulers.settings import (
    Betas,
    FinalSigma,
    SigmaSpacing,
    TimestepSpacing,
    check_positive,
)
from engines.image.schedulers.stepper import (
    PredictionType,
    Sample,
    Table,
    check_num_steps,
    combine,
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

_FEW_STEPS = 15  # below, `lower_order_final` makes the last step one of the first order


@dataclass(frozen=True, slots=True, kw_only=True)
class DPMSolverSettings:
    """The settings of DPM-Solver++ under their names in `scheduler_config.json`.

    Raises:
        ValueError: Two settings contradict each other.
    """

    betas: Betas = field(default_factory=Betas)
    prediction_type: PredictionType = "epsilon"
    timestep_spacing: TimestepSpacing = "linspace"
    steps_offset: int = 0
    spacing: SigmaSpacing = field(default_factory=SigmaSpacing)
    final_sigmas_type: FinalSigma = "zero"
    solver_order: Literal[1, 2] = 2
    algorithm_type: Literal["dpmsolver++"] = "dpmsolver++"
    # Those of other solvers, in files that were written for them, mean "midpoint".
    solver_type: Literal["midpoint", "heun", "bh1", "bh2", "logrho"] = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    use_lu_lambdas: bool = False
    lambda_min_clipped: float = -math.inf
    variance_type: Literal["fixed_small", "fixed_large"] | None = None  # of no effect
    thresholding: Literal[False] = False
    use_flow_sigmas: bool = False
    flow_shift: float = 1.0
    flow: FlowShift = field(default_factory=FlowShift)

    def __post_init__(self) -> None:
        check_positive("flow_shift", self.flow_shift)
        check_flow(
            self.prediction_type,
            self.use_flow_sigmas,
            self.spacing.is_spread or self.use_lu_lambdas,
        )
        if self.spacing.is_spread and self.use_lu_lambdas:
            raise ValueError(
                "use_lu_lambdas is True, but then use_karras_sigmas and use_exponential_sigmas "
                "must be False"
            )

    def stepper(self, num_inference_steps: int, image_seq_len: int | None = None) -> DPMSolver:
        return DPMSolver(self, num_inference_steps, image_seq_len)


class DPMSolver(MultistepStepper):
    """Lu et al. 2022 (https://arxiv.org/abs/2211.01095), algorithm 2, on predicted x0.

    From level s to t, with h the change of half log-SNR: x_t = sigma_t / sigma_s * x_s -
    alpha_t * (exp(-h) - 1) * D, where D is x0 (first order) or x0 plus half of its divided
    difference ("midpoint"); "heun" weighs the difference by the exact integral.
    """

    def __init__(
        self,
        settings: DPMSolverSettings,
        num_inference_steps: int,
        image_seq_len: int | None = None,
    ) -> None:
        count = settings.betas.num_train_timesteps
        check_num_steps(num_inference_steps, count, "num_train_timesteps")
        levels = _flow_levels if settings.use_flow_sigmas else _diffusion_levels
        timesteps, sigmas = levels(settings, num_inference_steps, image_seq_len)
        super().__init__(settings.prediction_type, timesteps, sigmas, num_inference_steps)
        self._is_first_order = settings.solver_order == 1
        self._is_heun = settings.solver_type == "heun"
        self._ends_lower = (
            settings.final_sigmas_type == "zero"
            or settings.euler_at_final
            or (settings.lower_order_final and self.num_steps < _FEW_STEPS)
        )
        self._previous: Sample | None = None  # the x0 predicted at the step before

    def _step(self, output: Sample, index: int, sample: Sample, noise: Sample | None) -> Sample:
        original = self.predicted_original(output, index, sample)
        previous, self._previous = self._previous, original
        here, there = self.levels[index], self.levels[index + 1]
        h = there.log_snr - here.log_snr
        ratio, growth = there.sigma / here.sigma, -there.alpha * math.expm1(-h)
        is_last = index == self.num_steps - 1
        if previous is None or self._is_first_order or (is_last and self._ends_lower):
            return combine((ratio, sample), (growth, original))
        weight = there.alpha * (math.expm1(-h) / h + 1) if self._is_heun else growth / 2
        # The divided difference of x0 is (original - previous) * h / (the h of the step before).
        slope = weight * h / (here.log_snr - self.levels[index - 1].log_snr)
        return combine((ratio, sample), (growth + slope, original), (-slope, previous))


def _diffusion_levels(
    settings: DPMSolverSettings, num_inference_steps: int, image_seq_len: int | None
) -> tuple[Table, Table]:
    """Timesteps [num_steps] and noise-to-signal ratios [num_steps + 1]."""
    trained = trained_sigmas(cumulative_alphas(settings.betas, above_zero=True))
    if settings.spacing.is_spread or settings.use_lu_lambdas:
        # Lu's even steps of lambda are exponential, always between the ends of training.
        spacing = SigmaSpacing() if settings.use_lu_lambdas else settings.spacing
        sigmas = spread_sigmas(spacing, num_inference_steps, trained[-1], trained[0])
        timesteps = timesteps_at(sigmas, trained)
        is_cosine = settings.betas.beta_schedule == "squaredcos_cap_v2"
        if not settings.spacing.use_exponential_sigmas and not is_cosine:
            timesteps = np.round(timesteps)
        timesteps = np.trunc(timesteps)
    else:
        # Where almost no signal is left, as at the end of a cosine schedule, lambda runs away.
        is_kept = -np.log(trained) >= settings.lambda_min_clipped
        if not is_kept.any():
            raise ValueError(
                f"lambda_min_clipped is {settings.lambda_min_clipped}, but it must be at most "
                f"{-math.log(trained[0]):.2f}, the largest of training"
            )
        timesteps = space_timesteps(
            settings.timestep_spacing,
            num_inference_steps,
            settings.betas,
            settings.steps_offset,
            last=int(is_kept.sum()),
            with_end=True,
        )
        sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
    return timesteps, with_final(sigmas, final_sigma(settings.final_sigmas_type, trained[0]))


def _flow_levels(
    settings: DPMSolverSettings, num_inference_steps: int, image_seq_len: int | None
) -> tuple[Table, Table]:
    """Timesteps [num_steps] and shares of noise [num_steps + 1], from just below 1."""
    count = settings.betas.num_train_timesteps
    even = np.linspace(1 - 1 / count, 0, num_inference_steps + 1)[:-1]
    shifted = settings.flow.apply(even, settings.flow_shift, image_seq_len)
    sigmas = np.minimum(shifted, LARGEST_FLOW)
    trained = trained_sigmas(cumulative_alphas(settings.betas))
    final = final_sigma(settings.final_sigmas_type, trained[0])
    return np.trunc(sigmas * count), with_final(sigmas, final)
