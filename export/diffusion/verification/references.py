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

Arrays = dict[str, NDArray[Any]]
Tensors = dict[str, torch.Tensor]
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


REFERENCES: Mapping[str, Reference] = MappingProxyType(
    {
        "CLIPTextModel": _clip,
        "CLIPTextModelWithProjection": _clip,
        "UNet2DConditionModel": _unet,
        "AutoencoderKL": _vae,
    }
)
