"""Each graph by the module of transformers or diffusers that it was drawn from.

A module gets what its graph got, by name, and answers what the graph answers. One entry for each
class of components.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.diffusion.pipelines import PipelineGraph
from export.diffusion.qwen_image.template import NUM_DROPPED_ROWS

Arrays = dict[str, NDArray[Any]]
Tensors = dict[str, torch.Tensor]
_TIMESTEPS = 1000

Reference = Callable[[Any, PipelineGraph, Tensors], Tensors]  # module, graph, inputs -> outputs


def run_reference(module: Any, graph: PipelineGraph, inputs: Arrays) -> Arrays:
    """What the module of a graph gives for the graph's own inputs."""
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.inference_mode():
        outputs = REFERENCES[type(module).__name__](module, graph, tensors)
    return {name: np.asarray(value.numpy()) for name, value in outputs.items()}


def _clip(module: Any, graph: PipelineGraph, inputs: Tensors) -> Tensors:
    found = module(inputs["input_ids"], output_hidden_states=True)
    is_last = graph.hidden_state == "last"
    return {
        "hidden_states": found.last_hidden_state if is_last else found.hidden_states[-2],
        "text_embeds": found.text_embeds if "text_embeds" in found else found.pooler_output,
    }


def _t5(module: Any, graph: PipelineGraph, inputs: Tensors) -> Tensors:
    return {"hidden_states": module(inputs["input_ids"]).last_hidden_state}


def _qwen2_5_vl(module: Any, graph: PipelineGraph, inputs: Tensors) -> Tensors:
    """Without the rows of what the template puts before every text."""
    found = module(
        input_ids=inputs["input_ids"],
        attention_mask=torch.ones_like(inputs["input_ids"]),
        output_hidden_states=True,
    )
    return {"hidden_states": found.hidden_states[-1][:, NUM_DROPPED_ROWS:]}


def _unet(module: Any, graph: PipelineGraph, inputs: Tensors) -> Tensors:
    added = {name: inputs[name] for name in ("text_embeds", "time_ids") if name in inputs}
    found = module(
        inputs["sample"],
        inputs["timestep"],
        encoder_hidden_states=inputs["encoder_hidden_states"],
        timestep_cond=inputs.get("timestep_cond"),
        added_cond_kwargs=added or None,
    )
    return {"model_output": found.sample}


def _sd3(module: Any, graph: PipelineGraph, inputs: Tensors) -> Tensors:
    found = module(
        inputs["sample"],
        encoder_hidden_states=inputs["encoder_hidden_states"],
        pooled_projections=inputs["text_embeds"],
        timestep=inputs["timestep"],
    )
    return {"model_output": found.sample}


def _flux(module: Any, graph: PipelineGraph, inputs: Tensors) -> Tensors:
    """Its latents are packed, two by two, and its times are shares of the whole."""
    from diffusers import FluxPipeline

    sample, context = inputs["sample"], inputs["encoder_hidden_states"]
    batch, _, height, width = sample.shape
    place = FluxPipeline._prepare_latent_image_ids(
        batch, height // 2, width // 2, sample.device, sample.dtype
    )
    found = module(
        FluxPipeline._pack_latents(sample, *sample.shape),
        encoder_hidden_states=context,
        pooled_projections=inputs["text_embeds"],
        timestep=inputs["timestep"] / _TIMESTEPS,
        guidance=inputs.get("guidance"),
        img_ids=place,
        txt_ids=torch.zeros(context.shape[1], 3),
    )
    return {"model_output": FluxPipeline._unpack_latents(found.sample, height, width, 1)}


def _qwen_image(module: Any, graph: PipelineGraph, inputs: Tensors) -> Tensors:
    """As FLUX's, with a mask for texts that are shorter than others."""
    from diffusers import QwenImagePipeline

    sample, context = inputs["sample"], inputs["encoder_hidden_states"]
    batch, _, height, width = sample.shape
    mask = torch.arange(context.shape[1])[None] < inputs["context_lengths"][:, None]
    found = module(
        hidden_states=QwenImagePipeline._pack_latents(sample, *sample.shape),
        encoder_hidden_states=context,
        encoder_hidden_states_mask=None if bool(mask.all()) else mask.long(),
        timestep=inputs["timestep"] / _TIMESTEPS,
        img_shapes=[[(1, height // 2, width // 2)]] * batch,
    )
    frames = QwenImagePipeline._unpack_latents(found.sample, height, width, 1)
    return {"model_output": frames[:, :, 0]}


def _vae(module: Any, graph: PipelineGraph, inputs: Tensors) -> Tensors:
    factor = module.config.scaling_factor
    shift = getattr(module.config, "shift_factor", None) or 0.0
    if graph.kind == "vae_decoder":
        return {"images": module.decode(inputs["latents"] / factor + shift).sample}
    distribution = module.encode(inputs["images"]).latent_dist
    return {
        "latent_mean": (distribution.mean - shift) * factor,
        "latent_std": distribution.std * factor,
    }


def _qwen_image_vae(module: Any, graph: PipelineGraph, inputs: Tensors) -> Tensors:
    """One of videos, which gets a single frame."""
    mean, deviation = (
        torch.tensor(numbers).view(1, -1, 1, 1)
        for numbers in (module.config.latents_mean, module.config.latents_std)
    )
    if graph.kind == "vae_decoder":
        latents = inputs["latents"] * deviation + mean
        return {"images": module.decode(latents[:, :, None]).sample[:, :, 0]}
    distribution = module.encode(inputs["images"][:, :, None]).latent_dist
    return {
        "latent_mean": (distribution.mean[:, :, 0] - mean) / deviation,
        "latent_std": distribution.std[:, :, 0] / deviation,
    }


REFERENCES: Mapping[str, Reference] = MappingProxyType(
    {
        "CLIPTextModel": _clip,
        "CLIPTextModelWithProjection": _clip,
        "T5EncoderModel": _t5,
        "Qwen2_5_VLForConditionalGeneration": _qwen2_5_vl,
        "UNet2DConditionModel": _unet,
        "SD3Transformer2DModel": _sd3,
        "FluxTransformer2DModel": _flux,
        "QwenImageTransformer2DModel": _qwen_image,
        "AutoencoderKL": _vae,
        "AutoencoderKLQwenImage": _qwen_image_vae,
    }
)
