"""The demo's components but for the autoencoder, and how all of them become a checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from demos.diffusion_training.drawing import SIZE
from demos.diffusion_training.tokenizer import END, MAX_LENGTH, START

LATENT_SCALE = 8
TEXT_WIDTH = 128
# The DDPM paper's (https://arxiv.org/abs/2006.11239): it ends in noise alone. The scaled schedule
# of Stable Diffusion leaves a trace of the picture, in a flat picture enough to betray its colour.
NUM_TIMESTEPS, BETA_START, BETA_END = 1000, 1e-4, 0.02
SCHEDULER = {
    "_class_name": "DPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "num_train_timesteps": NUM_TIMESTEPS,
    "beta_start": BETA_START,
    "beta_end": BETA_END,
    "beta_schedule": "linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    # For the schedulers that a request may choose instead.
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
_PIPELINE = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def create_text_encoder(vocabulary: dict[str, int]) -> CLIPTextModel:
    """An untrained text encoder for a tokenizer's vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_LENGTH,
            hidden_act="quick_gelu",
            projection_dim=TEXT_WIDTH,
            bos_token_id=vocabulary[START],
            eos_token_id=vocabulary[END],
            pad_token_id=vocabulary[END],
        )
    )


def create_unet() -> UNet2DConditionModel:
    """An untrained denoiser with the blocks of Stable Diffusion, but only three levels.

    The text comes in on the two coarser ones: on the finest it would cost more time than all else.
    """
    model = UNet2DConditionModel(
        sample_size=SIZE // LATENT_SCALE,
        block_out_channels=(64, 96, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(2, 3, 4),
    )
    return model.to(memory_format=torch.channels_last)


def write_checkpoint(
    folder: Path,
    tokenizer: Path,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    autoencoder: AutoencoderKL,
) -> None:
    """Write the components in the layout of diffusers, in fp16; other files are left alone.

    The models are left in fp16.
    """
    models = {"text_encoder": text_encoder, "unet": unet, "vae": autoencoder}
    for name, model in models.items():
        shutil.rmtree(folder / name, ignore_errors=True)
        half = model.to(torch.float16, memory_format=torch.contiguous_format)
        half.save_pretrained(folder / name, safe_serialization=True)
    (folder / "tokenizer").mkdir(exist_ok=True)
    for file in sorted(tokenizer.iterdir()):
        shutil.copyfile(file, folder / "tokenizer" / file.name)
    (folder / "scheduler").mkdir(exist_ok=True)
    _write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    _write_json(folder / "model_index.json", _PIPELINE)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
