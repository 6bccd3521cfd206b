"""Tables of noise levels: cumulative alphas, sigmas and timesteps, computed once for a request."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from engines.image.schedulers.settings import Betas, FinalSigma, SigmaSpacing, TimestepSpacing
from engines.image.schedulers.stepper import Table, check_num_steps

_MAX_COSINE_BETA = 0.999
_KARRAS_RHO = 7.0
_SMALLEST_ALPHA = 2.0**-24  # where zero is asked for but a logarithm is taken


def cumulative_alphas(settings: Betas, *, above_zero: bool = False) -> Table:
    """The products of 1 - beta up to each training timestep: [num_train_timesteps].

    Betas and products are rounded to float32, as they were when the models were trained: 1 minus a
    product near 1 is sensitive to it. With `above_zero` the last product of a schedule of zero
    signal-to-noise ratio is a tiny number instead of 0.
    """
    one = np.float32(1)
    alphas = one - _betas(settings)
    if settings.rescale_betas_zero_snr:
        alphas = one - (one - _rescale_to_zero_snr(alphas))
    products = _product(alphas).astype(np.float64)
    if settings.rescale_betas_zero_snr and above_zero:
        products[-1] = _SMALLEST_ALPHA
    return products


def _betas(settings: Betas) -> NDArray[np.float32]:
    count, start, end = settings.num_train_timesteps, settings.beta_start, settings.beta_end
    if settings.trained_betas is not None:
        return np.asarray(settings.trained_betas, np.float32)
    if settings.beta_schedule == "linear":
        return _float32_range(start, end, count)
    if settings.beta_schedule == "scaled_linear":  # Rombach et al. 2022, latent diffusion
        root = _float32_range(math.sqrt(start), math.sqrt(end), count)
        return root * root
    # Nichol and Dhariwal 2021 (https://arxiv.org/abs/2102.09672), equation 17.
    fraction = np.arange(count + 1) / count
    product = np.square(np.cos((fraction + 0.008) / 1.008 * np.pi / 2))
    return np.minimum(1 - product[1:] / product[:-1], _MAX_COSINE_BETA).astype(np.float32)


def _float32_range(start: float, end: float, count: int) -> NDArray[np.float32]:
    """Even steps, from both ends to the middle by a step of float32, as checkpoints' betas are."""
    low, high = np.float32(start), np.float32(end)
    step = np.float64((high - low) / np.float32(max(count - 1, 1)))
    index = np.arange(count)
    rising, falling = low + step * index, high - step * (count - 1 - index)
    return np.where(index < count // 2, rising, falling).astype(np.float32)


def _rescale_to_zero_snr(alphas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lin et al. 2023 (https://arxiv.org/abs/2305.08891), algorithm 1."""
    root = np.sqrt(_product(alphas))
    scaled = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    products = np.square(scaled)
    return np.concatenate([products[:1], products[1:] / products[:-1]])


def _product(alphas: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.cumprod(alphas, dtype=np.float64).astype(np.float32)


def trained_sigmas(alphas_cumprod: Table) -> Table:
    """The ratio of noise to signal at each training timestep: [num_train_timesteps], rising.

    Rounded to float32 at every operation: timesteps are found again by comparing logarithms.
    """
    alphas = alphas_cumprod.astype(np.float32)
    ratios: NDArray[np.float32] = (1 - alphas) / alphas
    return np.sqrt(ratios).astype(np.float64)


def with_final(sigmas: Table, final: float) -> Table:
    """Append the level after the last step: [num_steps + 1].

    Rounded to float32 as the reference's tables are: 1 - sigma near 1 is sensitive to it.
    """
    return np.append(sigmas, final).astype(np.float32).astype(np.float64)


def final_sigma(kind: FinalSigma, smallest: float) -> float:
    """The noise that is left after the last step: none, or the smallest level of training."""
    return 0.0 if kind == "zero" else float(smallest)


def space_timesteps(
    spacing: TimestepSpacing,
    num_inference_steps: int,
    settings: Betas,
    steps_offset: int,
    *,
    last: int | None = None,
    rounded: bool = True,
    with_end: bool = False,
) -> Table:
    """Spread the steps over the training timesteps: [num_inference_steps], falling.

    As in Lin et al. 2023 (https://arxiv.org/abs/2305.08891), table 2. `last` is how many training
    timesteps are used (all), `rounded` makes linspace whole numbers, `with_end` spreads one step
    more and leaves it out: solvers that end at the noise of timestep 0 do not run the model there.

    Raises:
        ValueError: There are more steps than timesteps, or `steps_offset` leaves the schedule.
    """
    count = settings.num_train_timesteps
    check_num_steps(num_inference_steps, count, "num_train_timesteps")
    used = count if last is None else last
    points = num_inference_steps + with_end
    steps = np.arange(num_inference_steps, dtype=np.float64)
    if spacing == "linspace":
        spread: Table = np.linspace(0, used - 1, points, dtype=np.float64)[::-1][
            :num_inference_steps
        ]
        return np.round(spread) if rounded else spread
    if spacing == "trailing":
        # Counted, since an arange by a fraction has a step too many, at -1, for 61, 103, ... steps.
        trailing: Table = used - steps * (count / num_inference_steps)
        return np.round(trailing[trailing > 0]) - 1
    timesteps = (steps[::-1] + with_end) * (used // points) + float(steps_offset)
    if not 0 <= timesteps[0] < count:
        raise ValueError(
            f"steps_offset is {steps_offset}, but with {num_inference_steps} steps it leaves the "
            f"{count} timesteps of training"
        )
    return timesteps


def spread_sigmas(
    spacing: SigmaSpacing, num_inference_steps: int, highest: float, lowest: float
) -> Table:
    """Noise levels from highest to lowest, by rho = 7 or evenly by logarithm: [num_steps].

    Karras et al. 2022 (https://arxiv.org/abs/2206.00364), equation 5; for the logarithm Lu et al.
    2022 (https://arxiv.org/abs/2206.00927), uniform steps of lambda.

    Raises:
        ValueError: A bound of the settings is beyond the other end.
    """
    high = highest if spacing.sigma_max is None else spacing.sigma_max
    low = lowest if spacing.sigma_min is None else spacing.sigma_min
    if low > high:
        raise ValueError(
            f"sigma_min is {low:g}, but it must be at most the largest noise level, {high:g}"
        )
    if spacing.use_karras_sigmas:
        roots = np.linspace(
            high ** (1 / _KARRAS_RHO), low ** (1 / _KARRAS_RHO), num_inference_steps
        )
        return roots**_KARRAS_RHO
    return np.exp(np.linspace(np.log(high), np.log(low), num_inference_steps))


def timesteps_at(sigmas: Table, trained: Table) -> Table:
    """The fractional training timesteps that have these noise levels, by their logarithms."""
    logarithms = np.log(trained.astype(np.float32))
    return np.interp(np.log(sigmas), logarithms, np.arange(len(trained)))
