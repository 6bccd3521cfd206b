"""Whether the components of a checkpoint fit each other: what one gives, the next one takes."""

from __future__ import annotations

from collections.abc import Mapping

from export.diffusion.checkpoint import DiffusionCheckpoint
from export.diffusion.pipelines import PipelineGraph
from export.diffusion.traits import DenoiserTraits, TextTraits, Traits, VAETraits, Width
from export.errors import CheckpointError


def check_fit(checkpoint: DiffusionCheckpoint, traits: Mapping[PipelineGraph, Traits]) -> None:
    """Check the widths between text encoders, denoiser and autoencoder.

    Raises:
        CheckpointError: Two do not fit; the message names both.
    """
    texts = {graph: one for graph, one in traits.items() if isinstance(one, TextTraits)}
    (denoiser,) = (one for one in traits.values() if isinstance(one, DenoiserTraits))
    vae = next(one for one in traits.values() if isinstance(one, VAETraits))
    file = checkpoint.components[checkpoint.pipeline.denoiser].config_file
    widths = _row_widths(texts)
    if checkpoint.left_out:  # zeros stand for its rows, and make the others as wide
        widths.append(denoiser.context.size)
    _require(file, denoiser.context, "text rows", max(widths))
    pooled = sum(one.pooled_width or 0 for graph, one in texts.items() if graph.gives_pooled)
    _require(file, denoiser.pooled, "projected text", pooled)
    what = "latent channels" if denoiser.channels_per_latent == 1 else "packed latent channels"
    channels = vae.latent_channels * denoiser.channels_per_latent
    _require(file, denoiser.in_channels, what, channels)
    _require(file, denoiser.out_channels, what, channels)


def _row_widths(texts: Mapping[PipelineGraph, TextTraits]) -> list[int]:
    """The widths of the groups of rows that stand one behind the other."""
    widths: list[int] = []
    for graph, one in texts.items():
        if graph.context == "beside" and widths:
            widths[-1] += one.row_width
        elif graph.context != "none":
            widths.append(one.row_width)
    return widths


def _require(file: str, width: Width, what: str, given: int) -> None:
    if width.size != given:
        raise CheckpointError(
            f"{file} has {width.field} = {width.size}, but the other components' configs have "
            f"{what} of {given}"
        )
