"""UniPC: a multistep predictor, corrected at the next step without running the model again."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


@dataclass(frozen=True, slots=True, kw_only=True)
class UniPCSettings:
    """The settings of UniPC under their names in `scheduler_config.json`.

    Raises:
        ValueError: Two settings contradict each other.
    """

    betas: Betas = field(default_factory=Betas)
    prediction_type: PredictionType = "epsilon"
    timestep_spacing: TimestepSpacing = "linspace"
    steps_offset: int = 0
    spacing: SigmaSpacing = field(default_factory=SigmaSpacing)
    final_sigmas_type: FinalSigma = "zero"
    solver_order: Literal[1, 2, 3] = 2
    predict_x0: Literal[True] = True
    # Those of other solvers, in files that were written for them, mean "bh2".
    solver_type: Literal["bh1", "bh2", "midpoint", "heun", "logrho"] = "bh2"
    lower_order_final: Literal[True] = True
    disable_corrector: tuple[int, ...] = ()
    solver_p: None = None
    thresholding: Literal[False] = False
    use_flow_sigmas: bool = False
    flow_shift: float = 1.0
    flow: FlowShift = field(default_factory=FlowShift)

    def __post_init__(self) -> None:
        check_positive("flow_shift", self.flow_shift)
        check_flow(self.prediction_type, self.use_flow_sigmas, self.spacing.is_spread)

    def stepper(self, num_inference_steps: int, image_seq_len: int | None = None) -> UniPC:
        return UniPC(self, num_inference_steps, image_seq_len)


class UniPC(MultistepStepper):
    """Zhao et al. 2023 (https://arxiv.org/abs/2302.04867), algorithms 1 and 2, on predicted x0.

    From level s to t, with h the change of half log-SNR: x_t = sigma_t / sigma_s * x_s -
    alpha_t * (exp(-h) - 1) * m_0 - alpha_t * B(h) * sum of rho_k * D_k, where m_0 is x0 at s and
    D_k = (m_k - m_0) / r_k is taken at older levels, r_k * h from s. The corrector takes the same
    step again with x0 at t as one level more.
    """

    def __init__(
        self, settings: UniPCSettings, num_inference_steps: int, image_seq_len: int | None = None
    ) -> None:
        count = settings.betas.num_train_timesteps
        check_num_steps(num_inference_steps, count, "num_train_timesteps")
        levels = _flow_levels if settings.use_flow_sigmas else _diffusion_levels
        timesteps, sigmas = levels(settings, num_inference_steps, image_seq_len)
        super().__init__(settings.prediction_type, timesteps, sigmas, num_inference_steps)
        self._solver_order = settings.solver_order
        self._is_bh1 = settings.solver_type == "bh1"
        self._uncorrected = frozenset(settings.disable_corrector)
        self._originals: list[Sample] = []  # x0 at the steps before, newest first
        self._last_sample: Sample | None = None  # before the last step, corrected
        self._last_order = 0

    def _step(self, output: Sample, index: int, sample: Sample, noise: Sample | None) -> Sample:
        original = self.predicted_original(output, index, sample)
        if self._last_sample is not None and index - 1 not in self._uncorrected:
            sample = self._advance(self._last_sample, index - 1, self._last_order, original)
        num_known = min(len(self._originals) + 1, self._solver_order)
        self._originals = [original, *self._originals[: self._solver_order - 1]]
        self._last_sample = sample.copy()
        self._last_order = min(num_known, self.num_steps - index)
        return self._advance(sample, index, self._last_order)

    def _advance(
        self, sample: Sample, start: int, order: int, reached: Sample | None = None
    ) -> Sample:
        """Step on from level `start`; with `reached`, x0 at the next level, as the corrector."""
        here, there = self.levels[start], self.levels[start + 1]
        h = there.log_snr - here.log_snr
        phi = math.expm1(-h)
        scale = -h if self._is_bh1 else phi  # B(h)
        older = self.levels[start - order + 1 : start][::-1]  # newest first, [order - 1]
        nodes = [(level.log_snr - here.log_snr) / h for level in older]
        originals = self._originals[1:order]
        if reached is not None:
            nodes, originals = [*nodes, 1.0], [*originals, reached]
        weights = [
            -there.alpha * scale * rho / node
            for rho, node in zip(self._solve(nodes, h, scale), nodes, strict=True)
        ]
        return combine(
            (there.sigma / here.sigma, sample),
            (-there.alpha * phi - sum(weights), self._originals[0]),
            *zip(weights, originals, strict=True),
        )

    def _solve(self, nodes: Sequence[float], h: float, scale: float) -> list[float]:
        """The weights rho of the divided differences at `nodes`.

        A single one is 1 / 2, which is right to the order that is needed and more stable.
        """
        if len(nodes) < 2:
            return [0.5] * len(nodes)
        # h^k * phi_k(h) of the exponential integral, by the recurrence from k = 1.
        phi = math.expm1(-h) / -h - 1
        targets = []
        for k in range(1, len(nodes) + 1):
            targets.append(phi * math.factorial(k) / scale)
            phi = phi / -h - 1 / math.factorial(k + 1)
        powers = np.vander(nodes, increasing=True).T  # row k: node^k
        return [float(rho) for rho in np.linalg.solve(powers, targets)]


def _diffusion_levels(
    settings: UniPCSettings, num_inference_steps: int, image_seq_len: int | None
) -> tuple[Table, Table]:
    """Timesteps [num_steps] and noise-to-signal ratios [num_steps + 1]."""
    trained = trained_sigmas(cumulative_alphas(settings.betas, above_zero=True))
    if not settings.spacing.is_spread:
        timesteps = space_timesteps(
            settings.timestep_spacing,
            num_inference_steps,
            settings.betas,
            settings.steps_offset,
            with_end=True,
        )
        sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
        return timesteps, with_final(sigmas, final_sigma(settings.final_sigmas_type, trained[0]))
    sigmas = spread_sigmas(settings.spacing, num_inference_steps, trained[-1], trained[0])
    timesteps = timesteps_at(sigmas, trained)
    timesteps = np.round(timesteps) if settings.spacing.use_karras_sigmas else np.trunc(timesteps)
    # Spread levels end at the smallest themselves, so that "sigma_min" makes the last step idle.
    return timesteps, with_final(sigmas, final_sigma(settings.final_sigmas_type, sigmas[-1]))


def _flow_levels(
    settings: UniPCSettings, num_inference_steps: int, image_seq_len: int | None
) -> tuple[Table, Table]:
    """Timesteps [num_steps] and shares of noise [num_steps + 1], from just below 1."""
    count = settings.betas.num_train_timesteps
    even = np.linspace(1, 1 / count, num_inference_steps + 1)[:-1]
    sigmas = settings.flow.apply(even, settings.flow_shift, image_seq_len)
    sigmas = np.minimum(sigmas, LARGEST_FLOW)
    final = final_sigma(settings.final_sigmas_type, sigmas[-1])
    return np.trunc(sigmas * count), with_final(sigmas, final)
