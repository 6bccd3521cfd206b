"""What an image engine does where a request says nothing: size, steps and guidance."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from engines.image.request import MAX_GUIDANCE_SCALE, MAX_INFERENCE_STEPS
from engines.manifest import ImageSpec
from export.diffusion.checkpoint import DiffusionCheckpoint
from export.diffusion.traits import DenoiserTraits
from export.errors import CheckpointError, ExportError


@dataclass(frozen=True, slots=True)
class DefaultSettings:
    """How a picture is made."""

    num_inference_steps: int
    guidance_scale: float


_BY_FAMILY = {
    "stable-diffusion": DefaultSettings(50, 7.5),
    "stable-diffusion-xl": DefaultSettings(50, 5.0),
    "stable-diffusion-3": DefaultSettings(28, 7.0),
    "flux": DefaultSettings(50, 3.5),
    "qwen-image": DefaultSettings(50, 4.0),
}
_FEW_STEPS = DefaultSettings(4, 1.0)
_EULER = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")


def default_settings(checkpoint: DiffusionCheckpoint, denoiser: DenoiserTraits) -> DefaultSettings:
    """By the family, but few steps without guidance for models that were distilled to them.

    Some know no guidance at all. The others say so only by their scheduler: LCM's own, and for the
    turbo models one of Euler's on trailing timesteps, which no other published model has.
    """
    config = checkpoint.scheduler_config
    scheduler = config.get("_class_name")
    is_turbo = scheduler in _EULER and config.get("timestep_spacing") == "trailing"
    if is_turbo or scheduler == "LCMScheduler" or denoiser.guidance == "none":
        return _FEW_STEPS
    return _BY_FAMILY[checkpoint.pipeline.family]


def with_defaults(
    spec: ImageSpec, num_inference_steps: int | None, guidance_scale: float | None
) -> ImageSpec:
    """The specification with the settings that an export asked for; None leaves the model's.

    Raises:
        ExportError: One is out of its range, or the model knows no guidance.
    """
    steps = spec.default_num_inference_steps if num_inference_steps is None else num_inference_steps
    scale = spec.default_guidance_scale if guidance_scale is None else guidance_scale
    for option, value, least, most in (
        ("--num-inference-steps", steps, 1, MAX_INFERENCE_STEPS),
        ("--guidance-scale", scale, 0, MAX_GUIDANCE_SCALE),
    ):
        if not least <= value <= most:
            raise ExportError(f"{option} is {value}, but it must be between {least} and {most}")
    if scale > 1 and spec.guidance == "none":
        raise ExportError(f"--guidance-scale is {scale}, but this model knows no guidance")
    return msgspec.structs.replace(
        spec, default_num_inference_steps=steps, default_guidance_scale=float(scale)
    )


def default_size(
    checkpoint: DiffusionCheckpoint, denoiser: DenoiserTraits, latent_scale: int
) -> tuple[int, int]:
    """Height and width in pixels that the model was trained on.

    Raises:
        CheckpointError: The denoiser's config has a `sample_size` that is no size.
    """
    component = checkpoint.components[checkpoint.pipeline.denoiser]
    declared = component.config.get("sample_size")
    if declared is None:
        declared = denoiser.sample_size
    sizes = declared if isinstance(declared, list) else [declared, declared]
    if len(sizes) != 2 or not all(type(size) is int and size > 0 for size in sizes):
        raise CheckpointError(
            f"{component.config_file} has sample_size = {declared!r}, but it must be a whole "
            "number above 0, or two of them"
        )
    height, width = (size * latent_scale for size in sizes)
    return height, width
