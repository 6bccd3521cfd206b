"""What components of each kind say of themselves to the others and to the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Guidance = Literal["classifier-free", "distilled", "none"]


@dataclass(frozen=True, slots=True)
class Width:
    """A width that a config.json declares, and in which field."""

    field: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTraits:
    """A text encoder.

    Attributes:
        vocab_size: Token ids that it knows.
        row_width: The width of the row that it gives for each token.
        pooled_width: The width of the row that it gives for a whole text; None where it gives none.
        max_positions: The most tokens of a text that it can read; None where there is no limit.
    """

    vocab_size: int
    row_width: int
    pooled_width: int | None
    max_positions: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserTraits:
    """A denoiser, whatever its class.

    Attributes:
        context: The width of the prompt's rows.
        pooled: The width of the whole prompt's row; of size 0 where it takes none.
        in_channels: Channels that it reads.
        out_channels: Channels that it gives.
        channels_per_latent: How many of those one latent channel makes: more than one where the
            checkpoint is written for latents that were packed before.
        patch_size: Latents along a side that it sees as one.
        sample_size: Latents along a side that it was trained on, where its config does not say.
        max_side: Latents along a side that it has positions for; None where there is no limit.
        max_text_tokens: The most tokens of a text that it was trained on; None where the text
            encoders set the limit.
        takes_sizes: Whether it is told the picture's size.
        guidance: How it is guided.
        rescales_guidance: Whether its pipeline makes each patch of the guided prediction as long as
            that of the prompt's.
        guidance_width: Waves that stand for the guidance scale; None where there are none.
    """

    context: Width
    pooled: Width
    in_channels: Width
    out_channels: Width
    channels_per_latent: int = 1
    patch_size: int = 1
    sample_size: int
    max_side: int | None = None
    max_text_tokens: int | None = None
    takes_sizes: bool = False
    guidance: Guidance = "classifier-free"
    rescales_guidance: bool = False
    guidance_width: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VAETraits:
    """An autoencoder.

    Attributes:
        picture_channels: Channels of the pictures that it reads and gives.
        latent_channels: Channels of its latents.
        scale: Pixels that one latent stands for, along each side.
    """

    picture_channels: tuple[int, int]
    latent_channels: int
    scale: int


Traits = TextTraits | DenoiserTraits | VAETraits
