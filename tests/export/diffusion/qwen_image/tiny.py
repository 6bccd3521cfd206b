"""Tiny random components of Qwen-Image."""

from __future__ import annotations

from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from tests.export.diffusion.tiny_pipelines import randomize

VAE = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True],
    "latents_mean": [-0.7, 0.3, 0.1, 1.5],
    "latents_std": [1.8, 0.6, 2.3, 1.1],
}
TRANSFORMER = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 3,
    "joint_attention_dim": 32,
    "axes_dims_rope": (4, 4, 8),
}
TEXT_ENCODER = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "rms_norm_eps": 1e-6,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
}
VISION = {
    "depth": 1,
    "hidden_size": 32,
    "out_hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 32,
}


def make_vae(**changes) -> AutoencoderKLQwenImage:
    return randomize(AutoencoderKLQwenImage(**VAE | changes))


def make_transformer(**changes) -> QwenImageTransformer2DModel:
    return randomize(QwenImageTransformer2DModel(**TRANSFORMER | changes))


def make_text_encoder(**changes) -> Qwen2_5_VLForConditionalGeneration:
    config = Qwen2_5_VLConfig(text_config=TEXT_ENCODER | changes, vision_config=VISION)
    return randomize(Qwen2_5_VLForConditionalGeneration(config))
