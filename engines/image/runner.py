"""What a backend of the image engine is given, what it answers and what it must do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class EncodedText:
    """What one text encoder makes of texts; None is what it does not give."""

    rows: FloatArray | None  # [n, num_tokens, width]
    pooled: FloatArray | None = None  # [n, pooled width]


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the denoiser is told beside sample and time, for each row; None is what it lacks."""

    context: FloatArray  # [n, num_tokens, width]
    context_lengths: IntArray | None = None  # [n] tokens of ragged texts; behind them are zeros
    pooled: FloatArray | None = None  # [n, pooled width]
    time_ids: FloatArray | None = None  # [n, 6] original, crop and target size, height first
    guidance_waves: FloatArray | None = None  # [n, guidance width]
    guidance_scale: FloatArray | None = None  # [n]


@dataclass(frozen=True, slots=True)
class DenoiseBatch:
    """The inputs of one run of the denoiser: rows of equal shape that do not see each other."""

    sample: FloatArray  # [n, latent_channels, h, w]
    timestep: FloatArray  # [n]
    conditioning: Conditioning

    def inputs(self) -> dict[str, FloatArray | IntArray]:
        """By the names that graphs have for them."""
        told = self.conditioning
        inputs: dict[str, FloatArray | IntArray | None] = {
            "sample": self.sample,
            "timestep": self.timestep,
            "encoder_hidden_states": told.context,
            "context_lengths": told.context_lengths,
            "text_embeds": told.pooled,
            "time_ids": told.time_ids,
            "timestep_cond": told.guidance_waves,
            "guidance": told.guidance_scale,
        }
        return {name: array for name, array in inputs.items() if array is not None}


class ImageRunner(Protocol):
    """The compiled components of one model. `engines.backends` implements it; one thread calls.

    Every method raises `RunFailed` where the runtime rejects its inputs.
    """

    def encode_text(self, token_ids: tuple[IntArray, ...]) -> tuple[EncodedText, ...]:
        """Encode texts, given to each text encoder as `[n, num_ids]` ids."""
        ...

    def denoise(self, batch: DenoiseBatch) -> FloatArray:
        """What the model predicts for each row. [n, latent_channels, h, w]"""
        ...

    def denoise_keeping(self, batch: DenoiseBatch) -> tuple[FloatArray, FloatArray]:
        """The same, and the deep features of each row, where the model has step caching.

        Returns:
            The prediction, [n, latent_channels, h, w], and features of the model's own shape, [n,
            ...].
        """
        ...

    def denoise_shallow(self, batch: DenoiseBatch, deep_features: FloatArray) -> FloatArray:
        """What the shallow part of the model predicts. [n, latent_channels, h, w]

        Args:
            batch: Its inputs.
            deep_features: What `denoise_keeping` returned of an earlier step of each row. [n, ...]
        """
        ...

    def decode(self, latents: FloatArray) -> FloatArray:
        """Latents [n, latent_channels, h, w] to pictures [n, 3, height, width], about -1 to 1."""
        ...

    def encode_image(self, images: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Pictures [n, 3, height, width] of -1 to 1 to mean and deviation of their latents."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...
