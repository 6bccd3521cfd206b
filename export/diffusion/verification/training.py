"""Tell a trained denoiser from random weights by what it makes of a picture under noise.

A denoiser that has learned anything finds the picture better than by making the noisy one paler,
which is the best that can be done without knowing anything of pictures. Random weights never do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engines.image.denoising import Denoising
from engines.image.request import ImageRequest, Picture
from engines.image.runner import DenoiseBatch, FloatArray, ImageRunner
from engines.image.schedulers.schedule import NoiseSchedule
from engines.manifest import ImageSpec

_LEARNED = 0.7  # of the error that is left by making the noisy picture paler
_STRENGTH = 0.5
_RED, _BLUE = (220, 30, 30), (30, 60, 200)


@dataclass(frozen=True, slots=True)
class Probe:
    """A picture under noise.

    Attributes:
        denoising: Holds the noisy latents, before its first step.
        original: The latents without noise. [latent_channels, h, w]
    """

    denoising: Denoising
    original: FloatArray

    def is_untrained(self, output: FloatArray) -> bool:
        """Judge what the reference's denoiser makes of it. [1, latent_channels, h, w]"""
        noisy = self.denoising.latents
        found = self.denoising.advance(output)
        assert found is not None
        paler = noisy * (np.vdot(noisy, self.original) / np.vdot(noisy, noisy))
        return bool(
            np.square(found - self.original).sum()
            > _LEARNED * np.square(paler - self.original).sum()
        )


def probe_denoiser(
    like: ImageRequest, spec: ImageSpec, schedule: NoiseSchedule, runner: ImageRunner
) -> Probe:
    """Put a drawn picture under noise and run the denoiser on it, with the prompt of `like`."""
    picture = red_circle(like.height, like.width)
    request = replace(
        like, image=picture, strength=_STRENGTH, guidance_scale=1.0, preview_steps=frozenset({1})
    )
    denoising = Denoising(request, spec, schedule)
    denoising.prepare(runner)
    pixels = picture.astype(np.float32).transpose(2, 0, 1)[None] / np.float32(127.5) - 1
    original, _ = runner.encode_image(np.ascontiguousarray(pixels))
    batch = DenoiseBatch(
        denoising.model_input(),
        np.array([denoising.timestep], np.float32),
        denoising.conditioning,
    )
    runner.denoise(batch)
    return Probe(denoising, original[0])


def red_circle(height: int, width: int) -> Picture:
    """What the first built-in prompt says: a red circle on a blue background."""
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot(rows - height / 2, columns - width / 2)
    inside: NDArray[np.bool_] = distance < min(height, width) * 0.3
    return np.where(inside[..., None], np.array(_RED), np.array(_BLUE)).astype(np.uint8)
