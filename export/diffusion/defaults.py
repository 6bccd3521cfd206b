"""What an image engine does where a request says nothing: size, steps and guidance."""

from __future__ import annotations

from dataclasses import dataclass

from export.diffusion.checkpoint import DiffusionCheckpoint
from export.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class DefaultSettings:
    """How a picture is made."""

    num_inference_steps: int
    guidance_scale: float


_BY_FAMILY = {
    "stable-diffusion": DefaultSettings(50, 7.5),
    "stable-diffusion-xl": DefaultSettings(50, 5.0),
}
_FEW_STEPS = DefaultSettings(4, 1.0)
_EULER = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
_SAMPLE_SIZE = 64  # latents along a side, where the UNet's config does not say


def default_settings(checkpoint: DiffusionCheckpoint) -> DefaultSettings:
    """By the family, but few steps without guidance for models that were distilled to them.

    Those say so only by their scheduler: LCM's own, and for the turbo models one of Euler's on
    trailing timesteps, which no other published model has.
    """
    config = checkpoint.scheduler_config
    scheduler = config.get("_class_name")
    is_turbo = scheduler in _EULER and config.get("timestep_spacing") == "trailing"
    if is_turbo or scheduler == "LCMScheduler":
        return _FEW_STEPS
    return _BY_FAMILY[checkpoint.pipeline.family]


def default_size(checkpoint: DiffusionCheckpoint, latent_scale: int) -> tuple[int, int]:
    """Height and width in pixels that the model was trained on.

    Raises:
        CheckpointError: The UNet's config has a `sample_size` that is no size.
    """
    unet = checkpoint.components["unet"]
    declared = unet.config.get("sample_size")
    if declared is None:
        declared = _SAMPLE_SIZE
    sizes = declared if isinstance(declared, list) else [declared, declared]
    if len(sizes) != 2 or not all(type(size) is int and size > 0 for size in sizes):
        raise CheckpointError(
            f"{unet.config_file} has sample_size = {declared!r}, but it must be a whole number "
            "above 0, or two of them"
        )
    height, width = (size * latent_scale for size in sizes)
    return height, width
