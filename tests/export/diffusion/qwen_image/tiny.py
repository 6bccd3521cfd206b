"""Tiny random components of Qwen-Image, and a pipeline of them in the published layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

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

SCHEDULER = {
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 0.9,
    "max_image_seq_len": 8192,
    "shift_terminal": 0.02,
}
MERGES = ["r e", "re d", "\u0120 c", "i r", "\u0120c ir", "c l", "cl e", "\u0120cir cle", "a b"]
ADDED_TOKENS = {
    "<|endoftext|>": True,
    "<|im_start|>": True,
    "<|im_end|>": True,
    "<tool_call>": False,
}


def make_vae(**changes) -> AutoencoderKLQwenImage:
    torch.manual_seed(0)  # its biases are what the constructor drew
    return randomize(AutoencoderKLQwenImage(**VAE | changes))


def make_transformer(**changes) -> QwenImageTransformer2DModel:
    return randomize(QwenImageTransformer2DModel(**TRANSFORMER | changes))


def make_text_encoder(**changes) -> Qwen2_5_VLForConditionalGeneration:
    config = Qwen2_5_VLConfig(text_config=TEXT_ENCODER | changes, vision_config=VISION)
    return randomize(Qwen2_5_VLForConditionalGeneration(config))


def write_tokenizer(folder: Path) -> Path:
    """All bytes, a few merges and marks, in the files that the published checkpoint has."""
    folder.mkdir(parents=True)
    tokens = [*sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
    vocab = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    merges = "\n".join(["#version: 0.2", *MERGES, ""])
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    added = {
        str(len(vocab) + index): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": is_special,
        }
        for index, (token, is_special) in enumerate(ADDED_TOKENS.items())
    }
    config = {
        "added_tokens_decoder": added,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "model_max_length": 131072,
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def make_qwen_image(folder: Path) -> Path:
    tokenizer = write_tokenizer(folder.with_name(f"{folder.name}-tokenizer"))
    QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        vae=make_vae(),
        text_encoder=make_text_encoder(),
        tokenizer=Qwen2Tokenizer.from_pretrained(tokenizer),
        transformer=make_transformer(),
    ).save_pretrained(folder)
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(tokenizer, folder / "tokenizer")
    return folder
