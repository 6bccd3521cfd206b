"""`Inpainting`: what a request with a mask keeps of its image, in latents and in pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.image.request import MIN_REPAINTED, Mask, Picture
from engines.image.runner import FloatArray
from engines.image.schedulers.stepper import Stepper


class Inpainting:
    """Keeps the parts of an image that its mask does not repaint.

    After every step the kept latents are those of the image, with as much noise as the repainted
    ones have by then: so the model paints what fits them, and the last step leaves them clean. The
    decoder cannot give them back exactly, so the pixels themselves are pasted into the picture.

    Args:
        image: Where the kept pixels come from. [height, width, 3]
        mask: Which pixels are repainted. [height, width]
        original: The latents of `image`. [latent_channels, h, w]
        noise: What the request's own noise for them is, one for all steps. [latent_channels, h, w]
    """

    def __init__(self, image: Picture, mask: Mask, original: FloatArray, noise: FloatArray) -> None:
        self._image = image
        self._repainted = mask >= MIN_REPAINTED
        self._repainted_latents = _any_of_each(self._repainted, original.shape[1:])
        self._original = original
        self._noise = noise

    def keep(self, latents: FloatArray, stepper: Stepper, index: int) -> FloatArray:
        """Replace the kept latents by what they are before step `index`, or behind the last."""
        kept = self._original
        if index < stepper.num_steps:
            kept = stepper.add_noise(kept, self._noise, index)
        return np.where(self._repainted_latents, latents, kept)

    def keep_clean(self, latents: FloatArray) -> FloatArray:
        """Replace the kept latents by those of the image."""
        return np.where(self._repainted_latents, latents, self._original)

    def paste(self, picture: Picture) -> Picture:
        """Put the kept pixels of the image into a picture. [height, width, 3]"""
        return np.where(self._repainted[:, :, None], picture, self._image)


def _any_of_each(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Shrink a mask so that no marked pixel is lost, however thin a line. [1, h, w]"""
    height, width = shape
    tiles = mask.reshape(height, mask.shape[0] // height, width, mask.shape[1] // width)
    shrunk: NDArray[np.bool_] = np.any(tiles, axis=(1, 3), keepdims=True)
    return shrunk.reshape(1, height, width)
