"""A checkpoint of Stable Diffusion 1.5's published shape with random weights.

Speed does not depend on what the weights say, so nobody has to download a model to measure it. The
tokenizer is a stand-in that knows single bytes, in a vocabulary of the published size.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkFailed

_BYTES_SHOWN_AS_THEMSELVES = (*range(33, 127), *range(161, 173), *range(174, 256))
_FIRST_SUBSTITUTE = 256  # code point that stands for the first of the other bytes
VOCAB_SIZE = 49_408


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointShape:
    """The configurations of the components, as diffusers and transformers take them."""

    vocab_size: int = VOCAB_SIZE
    text_encoder: dict[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "max_position_embeddings": 77,
            "hidden_act": "quick_gelu",
            "projection_dim": 768,
        }
    )
    unet: dict[str, Any] = field(
        default_factory=lambda: {
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            "layers_per_block": 2,
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        }
    )
    vae: dict[str, Any] = field(
        default_factory=lambda: {
            "sample_size": 512,
            "block_out_channels": (128, 256, 512, 512),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "layers_per_block": 2,
            "latent_channels": 4,
        }
    )


_SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}


def make_checkpoint(folder: Path, shape: CheckpointShape | None = None, seed: int = 0) -> None:
    """Write the checkpoint in diffusers' layout, weights as fp16 safetensors.

    Raises:
        BenchmarkFailed: The folder exists, or torch or diffusers is not installed.
    """
    if folder.exists():
        raise BenchmarkFailed(f"{folder} exists already: name a new folder")
    shape = shape or CheckpointShape()
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write_components(partial, shape, seed)
    except ModuleNotFoundError as error:
        raise BenchmarkFailed(
            f"making a checkpoint needs {error.name}, which is not installed: `pip install torch "
            "diffusers transformers`"
        ) from None
    write_json(partial / "scheduler" / "scheduler_config.json", _SCHEDULER)
    length = shape.text_encoder["max_position_embeddings"]
    write_tokenizer(partial / "tokenizer", shape.vocab_size, length)
    write_json(partial / "model_index.json", _MODEL_INDEX)
    partial.rename(folder)


def _write_components(folder: Path, shape: CheckpointShape, seed: int) -> None:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet_class: Any = UNet2DConditionModel  # their constructors have no types
    vae_class: Any = AutoencoderKL
    torch.manual_seed(seed)
    text_config = CLIPTextConfig(
        vocab_size=shape.vocab_size,
        bos_token_id=shape.vocab_size - 2,
        eos_token_id=shape.vocab_size - 1,
        **shape.text_encoder,
    )
    makers: dict[str, Any] = {
        "text_encoder": lambda: CLIPTextModel(text_config),
        "unet": lambda: unet_class(**shape.unet),
        "vae": lambda: vae_class(**shape.vae),
    }
    for name, make in makers.items():
        make().half().eval().save_pretrained(folder / name)  # one after the other, for memory


_MODEL_INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_tokenizer(folder: Path, vocab_size: int, max_length: int) -> None:
    """CLIP's older files: a vocabulary whose last two tokens frame a text, and no merges."""
    shown = [chr(code) for code in _BYTES_SHOWN_AS_THEMSELVES]
    shown += [chr(_FIRST_SUBSTITUTE + index) for index in range(256 - len(shown))]
    tokens = [*shown, *(f"{token}</w>" for token in shown)][: vocab_size - 2]
    tokens += [f"<unused{index}>" for index in range(vocab_size - 2 - len(tokens))]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    vocab = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": max_length,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    write_json(folder / "tokenizer_config.json", settings)


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
