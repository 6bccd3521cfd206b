"""The diffusers schedulers, run beside ours on the same outputs and the same noise."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import diffusers
import numpy as np
import torch

from engines.image.schedulers.schedule import SHORT_NAMES, NoiseSchedule
from engines.image.schedulers.stepper import Stepper

SHAPE = (1, 4, 6, 5)
TOLERANCE = 1e-5  # relative to the largest value of the sample
SEED = 7
SCALED_LINEAR = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


class Double(torch.Tensor):
    """A float64 tensor that stays one where a scheduler asks for float32."""

    def to(self, *args: object, **kwargs: object) -> Double:
        return self


@dataclass(frozen=True)
class Pair:
    """Our stepper and the diffusers scheduler, both set to the same number of steps."""

    stepper: Stepper
    scheduler: diffusers.SchedulerMixin


def make_pair(
    class_name: str,
    config: Mapping[str, object],
    num_inference_steps: int,
    *,
    scheduler: str | None = None,
    translated: Mapping[str, object] | None = None,
    image_seq_len: int | None = None,
    **timesteps: object,
) -> Pair:
    """Build both from one `scheduler_config.json`.

    `scheduler` is what a request asks for, `translated` what a user of diffusers would have to set
    by hand for it, and `timesteps` goes to their set_timesteps.
    """
    config = {"_class_name": class_name, **config}
    stepper = NoiseSchedule.from_config(config).stepper(
        num_inference_steps, scheduler=scheduler, image_seq_len=image_seq_len
    )
    theirs, pinned = SHORT_NAMES.get(scheduler or class_name, (scheduler or class_name, {}))
    if "sigmas" not in timesteps:
        timesteps["num_inference_steps"] = num_inference_steps
    with warnings.catch_warnings():
        # Torch's tensors do not know numpy 2's `copy` yet, and diffusers passes them to numpy.
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy")
        original = getattr(diffusers, class_name).from_config(
            {name: value for name, value in config.items() if name != "even_steps"}
        )
        reference = getattr(diffusers, theirs).from_config(
            original.config, **pinned, **(translated or {})
        )
        reference.set_timesteps(**timesteps)
    return Pair(stepper, reference)


def assert_equal(pair: Pair, start: int = 0, *, exact: bool = False) -> None:
    """Run both from `start` and compare every timestep, model input, sample and preview."""
    for what, error in errors(pair, start, exact=exact):
        assert error <= TOLERANCE, f"{what} differs by {error:.1e}"


def errors(pair: Pair, start: int = 0, *, exact: bool = False) -> Iterator[tuple[str, float]]:
    """Run both from `start`, each on its own samples, and yield what differs by how much.

    With `exact` diffusers computes in float64: where sigma is 20000, as at the end of a cosine
    schedule, its own rounding is a hundred times the tolerance.
    """
    stepper, scheduler = pair.stepper, pair.scheduler
    generator = torch.Generator().manual_seed(SEED)
    ours, theirs = torch.Generator().manual_seed(SEED), torch.Generator().manual_seed(SEED)
    noise, clean = noise_like(generator), noise_like(generator)
    assert len(scheduler.timesteps) == stepper.num_steps
    if hasattr(scheduler, "set_begin_index"):  # else it starts at the second of equal timesteps
        scheduler.set_begin_index(start)
    difference = stepper.timesteps - scheduler.timesteps.numpy()
    yield "timesteps", float(np.abs(difference).max() / max(1.0, stepper.timesteps.max()))
    if start == 0:
        scale = float(getattr(scheduler, "init_noise_sigma", 1.0))
        yield "init_noise_sigma", abs(stepper.init_noise_sigma / scale - 1)
        sample, reference = (noise * stepper.init_noise_sigma).numpy(), noise * scale
    else:
        sample = stepper.add_noise(clean.numpy(), noise.numpy(), start)
        reference = noised(scheduler, clean, noise, start)
        yield "add_noise", relative_error(sample, reference)
    if exact:
        in_double(scheduler)
        reference = reference.double().as_subclass(Double)
    draws = "generator" in inspect.signature(scheduler.step).parameters
    for index in range(start, stepper.num_steps):
        timestep = scheduler.timesteps[index]
        if hasattr(scheduler, "scale_model_input"):
            scaled = scheduler.scale_model_input(reference, timestep)
            yield f"input {index}", relative_error(stepper.scale_input(sample, index), scaled)
        output = noise_like(generator)
        original = stepper.predicted_original(output.numpy(), index, sample)
        dtype = torch.float64 if exact else torch.float32
        fresh = torch.randn(SHAPE, generator=ours, dtype=dtype).float().numpy()
        sample = stepper.step(
            output.numpy(), index, sample, fresh if stepper.uses_noise(index) else None
        )
        result = scheduler.step(
            output.double().as_subclass(Double) if exact else output,
            timestep,
            reference,
            **({"generator": theirs} if draws else {}),
        )
        reference = result.prev_sample
        yield f"sample {index}", relative_error(sample, reference)
        predicted = getattr(result, "pred_original_sample", getattr(result, "denoised", None))
        if predicted is not None:
            yield f"preview {index}", relative_error(original, predicted)


def noise_like(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(SHAPE, generator=generator)


def noised(
    scheduler: diffusers.SchedulerMixin, clean: torch.Tensor, noise: torch.Tensor, start: int
) -> torch.Tensor:
    """Start an image-to-image run of diffusers as its pipelines do."""
    timesteps = scheduler.timesteps[start : start + 1]
    if hasattr(scheduler, "scale_noise"):
        return scheduler.scale_noise(clean, timesteps, noise)
    return scheduler.add_noise(clean, noise, timesteps)


def in_double(scheduler: diffusers.SchedulerMixin) -> None:
    """Let a scheduler compute in float64, on its own tables."""
    for name in ("sigmas", "alphas_cumprod", "final_alpha_cumprod"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, getattr(scheduler, name).double())


def relative_error(ours: np.ndarray, theirs: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert ours.dtype == np.float32
    reference = theirs.numpy().astype(np.float64)
    assert np.isfinite(reference).all(), "diffusers itself fails here"
    return float(np.abs(ours - reference).max() / np.abs(reference).max())
