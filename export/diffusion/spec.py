"""The part of an image engine's manifest that says what its model is and how it is run."""

from __future__ import annotations

from engines.image.schedulers.schedule import SCHEDULER_CONFIG_NAME
from engines.manifest import ImageSpec, TextEncoderSpec
from export.diffusion.checkpoint import DiffusionCheckpoint
from export.diffusion.compile import ComponentGraph, shallow_name
from export.diffusion.components import TOKENIZERS
from export.diffusion.defaults import default_settings, default_size
from export.diffusion.pipelines import tokenizer_of
from export.diffusion.tokenizer import PromptTokenizer
from export.diffusion.traits import DenoiserTraits, TextTraits, VAETraits
from export.errors import CheckpointError
from export.qwen.tensors import num_elements

_PICTURE_CHANNELS = 3
_LARGEST_AREA = 4  # pictures may have so many times the pixels that the model was trained on


def read_tokenizers(
    checkpoint: DiffusionCheckpoint, graphs: tuple[ComponentGraph, ...]
) -> dict[str, PromptTokenizer]:
    """The tokenizers of the text encoders in their order, by the names of their files.

    Raises:
        CheckpointError: One is missing or damaged, or does not fit its encoder.
    """
    tokenizers = {}
    for graph in graphs:
        if isinstance(graph.traits, TextTraits):
            component = tokenizer_of(graph.component)
            read = TOKENIZERS[checkpoint.components[graph.component].class_name]
            tokenizers[f"{component}.json"] = read(checkpoint.folder / component, graph.traits)
    return tokenizers


def image_spec(
    checkpoint: DiffusionCheckpoint,
    graphs: tuple[ComponentGraph, ...],
    tokenizers: dict[str, PromptTokenizer],
) -> ImageSpec:
    """Describe the engine.

    Raises:
        CheckpointError: It would be one that cannot be run.
    """
    denoiser, vae = _denoiser_and_vae(graphs)
    drawn = {name for graph in graphs for name in graph.drawings}
    shallow = shallow_name(checkpoint.pipeline.denoiser)
    height, width = default_size(checkpoint, denoiser, vae.scale)
    settings = default_settings(checkpoint, denoiser)
    return ImageSpec(
        pipeline=checkpoint.pipeline.family,
        text_encoders=_text_encoder_specs(graphs, tokenizers, denoiser),
        denoiser=f"{checkpoint.pipeline.denoiser}.onnx",
        shallow_denoiser=f"{shallow}.onnx" if shallow in drawn else None,
        vae_decoder="vae_decoder.onnx",
        vae_encoder="vae_encoder.onnx",
        scheduler=SCHEDULER_CONFIG_NAME,
        latent_channels=vae.latent_channels,
        latent_scale=vae.scale,
        size_multiple=vae.scale * denoiser.patch_size,
        max_pixels=_LARGEST_AREA * height * width,
        max_side=None if denoiser.max_side is None else denoiser.max_side * vae.scale,
        default_height=height,
        default_width=width,
        default_num_inference_steps=settings.num_inference_steps,
        default_guidance_scale=settings.guidance_scale,
        takes_sizes=denoiser.takes_sizes,
        context_width=denoiser.context.size if checkpoint.left_out else None,
        num_empty_rows=denoiser.max_text_tokens or 0 if checkpoint.left_out else 0,
        zeros_without_negative=_zeros_without_negative(checkpoint),
        guidance=denoiser.guidance,
        rescales_guidance=denoiser.rescales_guidance,
        guidance_width=denoiser.guidance_width,
        num_parameters=_num_parameters(checkpoint),
    )


def _num_parameters(checkpoint: DiffusionCheckpoint) -> int:
    return sum(
        num_elements({name: component.tensors.shape(name) for name in component.tensors})
        for component in checkpoint.components.values()
    )


def _denoiser_and_vae(graphs: tuple[ComponentGraph, ...]) -> tuple[DenoiserTraits, VAETraits]:
    found = {graph.name: graph.traits for graph in graphs}
    (denoiser,) = (one for one in found.values() if isinstance(one, DenoiserTraits))
    vae = found["vae_decoder"]
    assert isinstance(vae, VAETraits)
    for channels in vae.picture_channels:
        if channels != _PICTURE_CHANNELS:
            raise CheckpointError(
                f"vae/config.json has pictures of {channels} channels, but only "
                f"{_PICTURE_CHANNELS} are supported"
            )
    return denoiser, vae


def _text_encoder_specs(
    graphs: tuple[ComponentGraph, ...],
    tokenizers: dict[str, PromptTokenizer],
    denoiser: DenoiserTraits,
) -> tuple[TextEncoderSpec, ...]:
    encoders = [graph for graph in graphs if isinstance(graph.traits, TextTraits)]
    specs = []
    for graph, (name, prompt) in zip(encoders, tokenizers.items(), strict=True):
        assert isinstance(graph.traits, TextTraits)
        limits = (prompt.max_length, denoiser.max_text_tokens)
        specs.append(
            TextEncoderSpec(
                graph=f"{graph.name}.onnx",
                tokenizer=name,
                vocab_size=graph.traits.vocab_size,
                max_length=min(limit for limit in limits if limit is not None),
                prefix_token_ids=prompt.prefix_token_ids,
                suffix_token_ids=prompt.suffix_token_ids,
                pad_token_id=prompt.pad_token_id,
                empty_token_ids=prompt.empty_token_ids,
                context=graph.place.context,
                gives_pooled=graph.place.gives_pooled,
            )
        )
    _check_lengths(specs)
    return tuple(specs)


def _check_lengths(specs: list[TextEncoderSpec]) -> None:
    lengths = {spec.max_length for spec in specs if spec.context == "beside"}
    if len(lengths) > 1:
        raise CheckpointError(
            f"the tokenizers have texts of {sorted(lengths)} ids, but the denoiser reads them side "
            "by side, so they must be of one length"
        )


def _zeros_without_negative(checkpoint: DiffusionCheckpoint) -> bool:
    """What SDXL was trained on; its pipeline does so unless model_index.json says otherwise."""
    is_xl = checkpoint.pipeline.family == "stable-diffusion-xl"
    return is_xl and bool(checkpoint.index.get("force_zeros_for_empty_prompt", True))
