"""A checkpoint of Stable Diffusion XL's published shape with random weights, without torch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.checkpoints.writer import write_tensors
from benchmarks.errors import BenchmarkFailed
from benchmarks.images.checkpoint import VOCAB_SIZE, write_json, write_tokenizer
from export.diffusion.clip.config import expected_tensors as text_tensors
from export.diffusion.clip.config import read_text_encoder_config
from export.diffusion.shapes import Shapes
from export.diffusion.unet.config import read_unet_config
from export.diffusion.unet.structure import expected_tensors as unet_tensors
from export.diffusion.vae.config import read_vae_config
from export.diffusion.vae.structure import decoder_tensors, encoder_tensors

Config = dict[str, Any]

_TEXT: Config = {
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 77,
    "bos_token_id": VOCAB_SIZE - 2,
    "eos_token_id": VOCAB_SIZE - 1,
}
# As the published config.json files have them, by component.
CONFIGS: Mapping[str, Config] = MappingProxyType(
    {
        "text_encoder": _TEXT
        | {
            "architectures": ["CLIPTextModel"],
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "hidden_act": "quick_gelu",
            "projection_dim": 768,
        },
        "text_encoder_2": _TEXT
        | {
            "architectures": ["CLIPTextModelWithProjection"],
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 20,
            "hidden_act": "gelu",
            "projection_dim": 1280,
        },
        "unet": {
            "_class_name": "UNet2DConditionModel",
            "sample_size": 128,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
            "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
            "layers_per_block": 2,
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        "vae": {
            "_class_name": "AutoencoderKL",
            "sample_size": 1024,
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 4,
            "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "layers_per_block": 2,
            "norm_num_groups": 32,
            "scaling_factor": 0.13025,
            "force_upcast": True,
        },
    }
)
_MODEL_INDEX: Config = {
    "_class_name": "StableDiffusionXLPipeline",
    "force_zeros_for_empty_prompt": True,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
_SCHEDULER: Config = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def tensor_shapes(component: str, config: Config) -> Shapes:
    """The name and shape of every tensor of a component."""
    file = f"{component}/config.json"
    if component == "unet":
        return unet_tensors(read_unet_config(file, config))
    if component == "vae":
        vae = read_vae_config(file, config)
        return encoder_tensors(vae) | decoder_tensors(vae)
    has_projection = config["architectures"] == ["CLIPTextModelWithProjection"]
    return text_tensors(read_text_encoder_config(file, config, has_projection=has_projection))


def make_sdxl(folder: Path, configs: Mapping[str, Config] = CONFIGS, seed: int = 0) -> None:
    """Write the checkpoint in diffusers' layout, weights as bf16 safetensors.

    Raises:
        BenchmarkFailed: The folder exists.
    """
    if folder.exists():
        raise BenchmarkFailed(f"{folder} exists already: name a new folder")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    rng = np.random.default_rng(seed)
    for component, config in configs.items():
        write_json(partial / component / "config.json", config)
        is_text = component.startswith("text_encoder")
        stem = "model" if is_text else "diffusion_pytorch_model"
        path = partial / component / f"{stem}.safetensors"
        write_tensors(path, tensor_shapes(component, config), rng)
        if is_text:
            tokenizer = component.replace("text_encoder", "tokenizer")
            length = config["max_position_embeddings"]
            write_tokenizer(partial / tokenizer, config["vocab_size"], length)
    write_json(partial / "scheduler" / "scheduler_config.json", _SCHEDULER)
    write_json(partial / "model_index.json", _MODEL_INDEX)
    partial.rename(folder)
