"""Tiny random pipelines in the layouts of Stable Diffusion 1.5, 2.1 and XL, made with diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

VOCAB_SIZE = 300
EOS_TOKEN_ID = VOCAB_SIZE - 1

TEXT_ENCODER = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "bos_token_id": VOCAB_SIZE - 2,
    "eos_token_id": 2,
}
UNET = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "sample_size": 16,
}
VAE = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 8,
    "layers_per_block": 2,
    "sample_size": 32,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}
V2_TEXT_ENCODER = TEXT_ENCODER | {
    "hidden_act": "gelu",
    "num_hidden_layers": 2,
    "eos_token_id": EOS_TOKEN_ID,
}
V2_UNET = UNET | {
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": [2, 4, 8],
    "use_linear_projection": True,
    "layers_per_block": 1,
}
XL_TEXT_ENCODER_2 = V2_TEXT_ENCODER | {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "projection_dim": 24,
}
XL_UNET = UNET | {
    "block_out_channels": (16, 32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": [2, 4, 8],
    "transformer_layers_per_block": [1, 2, 3],
    "use_linear_projection": True,
    "layers_per_block": 1,
    "cross_attention_dim": 32 + 48,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24 + 6 * 8,
}


def randomize(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights that let every path matter: no norm is neutral, no layer fades out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter += 0.2 * noise
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
    return module.eval()


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    tokens = [chr(code) for code in range(33, 33 + VOCAB_SIZE - 2)]
    vocab = {token: index for index, token in enumerate(tokens)}
    vocab |= {"<|startoftext|>": VOCAB_SIZE - 2, "<|endoftext|>": EOS_TOKEN_ID}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder)


def make_sd15(folder: Path) -> Path:
    return _make_stable_diffusion(folder, TEXT_ENCODER, UNET, DDIMScheduler(**SCHEDULER))


def make_sd21(folder: Path) -> Path:
    scheduler = DDIMScheduler(prediction_type="v_prediction", **SCHEDULER)
    return _make_stable_diffusion(folder, V2_TEXT_ENCODER, V2_UNET, scheduler)


def _make_stable_diffusion(folder, text_encoder, unet, scheduler) -> Path:
    StableDiffusionPipeline(
        vae=randomize(AutoencoderKL(**VAE)),
        text_encoder=randomize(CLIPTextModel(CLIPTextConfig(**text_encoder))),
        tokenizer=make_tokenizer(folder.with_name(f"{folder.name}-tokenizer")),
        unet=randomize(UNet2DConditionModel(**unet)),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def make_sdxl(folder: Path) -> Path:
    tokenizer = make_tokenizer(folder.with_name(f"{folder.name}-tokenizer"))
    config = CLIPTextConfig(**XL_TEXT_ENCODER_2)
    StableDiffusionXLPipeline(
        vae=randomize(AutoencoderKL(**VAE, scaling_factor=0.13025)),
        text_encoder=randomize(CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER))),
        text_encoder_2=randomize(CLIPTextModelWithProjection(config)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=randomize(UNet2DConditionModel(**XL_UNET)),
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


PIPELINES = {"sd15": make_sd15, "sd21": make_sd21, "sdxl": make_sdxl}
