"""The demo's model: its shape, its training state on disk, and its export as a checkpoint."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM

from demos.chat_training.tokenizer import MARKER_TOKENS, SPECIAL_TOKENS, VOCAB_SIZE

MAX_LEN = 2048


def create_model(tokenizer: Tokenizer) -> Qwen3ForCausalLM:
    """A fresh model of about 4.7 million parameters."""
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=MAX_LEN,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id("<|endoftext|>"),
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
    )
    config._attn_implementation = "sdpa"
    return Qwen3ForCausalLM(config)


def _tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    added = {
        str(tokenizer.token_to_id(name)): {
            "content": name,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": name in SPECIAL_TOKENS,
        }
        for name in (*SPECIAL_TOKENS, *MARKER_TOKENS)
    }
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": MAX_LEN,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_checkpoint(model: Qwen3ForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config, fp16 weights, tokenizer and generation defaults; the chat template is there."""
    folder.mkdir(parents=True, exist_ok=True)
    half = create_model(tokenizer)
    half.load_state_dict(model.state_dict())
    half.to(torch.float16).save_pretrained(folder)  # type: ignore[arg-type]
    _write_json(
        folder / "generation_config.json",
        {
            "do_sample": True,
            "temperature": 0.3,
            "top_k": 20,
            "top_p": 0.9,
            "eos_token_id": [
                tokenizer.token_to_id("<|im_end|>"),
                tokenizer.token_to_id("<|endoftext|>"),
            ],
            "pad_token_id": tokenizer.token_to_id("<|endoftext|>"),
        },
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(tokenizer))
