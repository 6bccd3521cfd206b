"""Tiny checkpoints with random weights, written as transformers writes them.

The tokenizer is a byte-level BPE trained here on a few sentences, with the ChatML tokens, so that
nothing has to be downloaded. Needs torch and transformers.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

Family = Literal[
    "qwen2",
    "qwen2.5",
    "qwen3",
    "qwen3.5",
    "qwen3-next",
    "qwen2-moe",
    "qwen3-moe",
    "qwen3.5-moe",
    "qwen3-next-moe",
]

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ADDED_TOKENS = ("<think>", "</think>", "<tool_call>", "</tool_call>")

CORPUS = (
    "The quick brown fox jumps over the lazy dog while the other dogs watch the fox.",
    "You are a helpful assistant. What is 3 + 4? 3 + 4 is 7.",
    "system user assistant tool: Hello, how are you today? I am well, and how are you?",
    "def total(values): return sum(values)  # 0 1 2 3 4 5 6 7 8 9",
    '{"name": "Maria", "city": "Porto", "items": [1, 2, 3]}',
)

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

_COMMON = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "max_window_layers": 2,
}

_HYBRID = {
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10_000.0,
        "partial_rotary_factor": 0.25,
    },
}

_EXPERTS = {
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
}

# What distinguishes the generations: heads that share keys, tied embeddings, explicit head_dim.
_SHAPES: dict[Family, dict[str, Any]] = {
    "qwen2": {"num_key_value_heads": 4, "tie_word_embeddings": False},
    "qwen2.5": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {"num_key_value_heads": 2, "tie_word_embeddings": True, "head_dim": 32},
    "qwen3.5": {"tie_word_embeddings": True} | _HYBRID,
    "qwen3-next": {"tie_word_embeddings": False, "num_experts": 0} | _HYBRID,
    "qwen3.5-moe": _HYBRID | _EXPERTS | {"shared_expert_intermediate_size": 48},
    "qwen3-next-moe": _HYBRID | _EXPERTS | {"shared_expert_intermediate_size": 48},
    "qwen2-moe": _EXPERTS | {"norm_topk_prob": False, "shared_expert_intermediate_size": 48},
    "qwen3-moe": _EXPERTS | {"norm_topk_prob": True, "head_dim": 32},
}

# Families whose classes transformers names otherwise: the config's class, the model's.
_CLASSES = {
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM"),
    "qwen3.5": ("Qwen3_5TextConfig", "Qwen3_5ForCausalLM"),
    "qwen3-next": ("Qwen3NextConfig", "Qwen3NextForCausalLM"),
    "qwen3.5-moe": ("Qwen3_5MoeTextConfig", "Qwen3_5MoeForCausalLM"),
    "qwen3-next-moe": ("Qwen3NextConfig", "Qwen3NextForCausalLM"),
    "qwen2-moe": ("Qwen2MoeConfig", "Qwen2MoeForCausalLM"),
    "qwen3-moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM"),
}


def make_checkpoint(
    path: Path,
    family: Family = "qwen2.5",
    *,
    dtype: str = "float32",
    max_shard_size: str = "1GB",
    seed: int = 0,
    **overrides: Any,
) -> Path:
    """Write config, safetensors, tokenizer and chat template to `path`, and return it.

    Args:
        path: The folder; it is made.
        family: Qwen2 without shared keys, Qwen2.5 with tied embeddings, Qwen3, one with Gated
            DeltaNet layers, or a mixture of experts.
        dtype: How the weights are stored: float32, float16 or bfloat16.
        max_shard_size: A file holds at most this much, for example "50KB".
        seed: The same seed gives the same weights.
        overrides: Fields of the transformers config.
    """
    import torch
    import transformers

    config_class, model_class = _CLASSES.get(family, ("Qwen2Config", "Qwen2ForCausalLM"))
    tokenizer = build_tokenizer()
    eos_token_id = tokenizer.token_to_id("<|im_end|>")
    settings = _COMMON | _SHAPES[family] | {"eos_token_id": eos_token_id} | overrides
    config = getattr(transformers, config_class)(**settings)
    torch.manual_seed(seed)
    model = getattr(transformers, model_class)(config)
    _randomize(model, norms_around=0.0 if "linear_num_key_heads" in settings else 1.0)
    model.to(getattr(torch, dtype)).save_pretrained(path, max_shard_size=max_shard_size)
    _write_tokenizer(tokenizer, path)
    ends = [eos_token_id, tokenizer.token_to_id("<|endoftext|>")]
    _write_json(path / "generation_config.json", {"eos_token_id": ends, "temperature": 0.7})
    return path


@functools.cache
def build_tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer of fewer than 512 tokens; any text round-trips."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ADDED_TOKENS])
    return tokenizer


def edit_json(path: Path, **changes: Any) -> None:
    """Set fields of a JSON file; None removes one."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    _write_json(path, {key: value for key, value in content.items() if value is not None})


def _randomize(model: Any, norms_around: float) -> None:
    """Norms that are not 1, or not 0 where 1 is added to them; weights that tell tokens apart."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                # The gated norm of a Gated DeltaNet is stored as it is.
                middle = 1.0 if name.endswith("linear_attn.norm.weight") else norms_around
                parameter.uniform_(middle - 0.3, middle + 0.3)
            else:
                parameter.normal_(0, 0.1)


def _write_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 256,
    }
    _write_json(path / "tokenizer_config.json", settings)
    (path / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
