"""The first Qwen as a torch model of our own, and tiny checkpoints of it as they were published.

Written from the published architecture; `test_qwen1.py` holds it against what is known of it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from export.tiktoken_vocabulary import SPECIAL_TOKENS
from tests.export.tiktoken_files import train_ranks, write_tiktoken

NUM_RANKS = 400
END_OF_TEXT, TURN_BEGIN, TURN_END = (NUM_RANKS + index for index in range(3))

CONFIG = {
    "architectures": ["QWenLMHeadModel"],
    "model_type": "qwen",
    "auto_map": {"AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"},
    "vocab_size": 640,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "kv_channels": 16,
    "intermediate_size": 192,
    "seq_length": 128,
    "max_position_embeddings": 512,
    "layer_norm_epsilon": 1e-6,
    "rotary_emb_base": 10_000,
    "rotary_pct": 1.0,
    "no_bias": True,
    "scale_attn_weights": True,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "tie_word_embeddings": False,
    "tokenizer_class": "QWenTokenizer",
}

GENERATION_CONFIG = {
    "chat_format": "chatml",
    "eos_token_id": END_OF_TEXT,
    "pad_token_id": END_OF_TEXT,
    "max_window_size": 6144,
    "do_sample": True,
    "top_k": 0,
    "top_p": 0.8,
}


def make_qwen1_checkpoint(path: Path, seed: int = 0, **overrides: Any) -> Path:
    """Write a folder as the hub has it, but for the Python files; `overrides` are of the config."""
    config = CONFIG | overrides
    path.mkdir(parents=True)
    torch.manual_seed(seed)
    model = QWen(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln_" in name:
                parameter.uniform_(0.7, 1.3)
            else:
                parameter.normal_(0, 0.1)
    save_file({name: p.data.clone() for name, p in model.named_parameters()}, path / MODEL_FILE)
    _write_json(path / "config.json", config)
    _write_json(path / "generation_config.json", GENERATION_CONFIG)
    _write_json(path / "tokenizer_config.json", {"tokenizer_class": "QWenTokenizer"})
    write_tiktoken(path / "qwen.tiktoken", train_ranks(NUM_RANKS))
    assert len(SPECIAL_TOKENS) + NUM_RANKS <= config["vocab_size"]
    return path


MODEL_FILE = "model.safetensors"


def load_qwen1(path: Path) -> QWen:
    model = QWen(json.loads((path / "config.json").read_text()))
    model.load_state_dict(load_file(path / MODEL_FILE))
    return model.eval()


class QWen(nn.Module):
    """Token ids [S] to logits [S, vocab_size]; a prompt, and what was answered behind it."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        hidden, vocab = config["hidden_size"], config["vocab_size"]
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocab, hidden),
                "h": nn.ModuleList(Block(config) for _ in range(config["num_hidden_layers"])),
                "ln_f": nn.RMSNorm(hidden, config["layer_norm_epsilon"]),
            }
        )
        self.lm_head = nn.Linear(hidden, vocab, bias=False)

    def forward(self, ids: Tensor, num_prompt_tokens: int | None = None) -> Tensor:
        """The base of the rotation depends on the prompt's length alone, once and for all."""
        length = len(ids) if num_prompt_tokens is None else num_prompt_tokens
        x = self.transformer["wte"](ids)
        for block in self.transformer["h"]:
            x = block(x, self.ntk_alpha(length))
        return self.lm_head(self.transformer["ln_f"](x))

    def ntk_alpha(self, length: int) -> int:
        if not self.config["use_dynamic_ntk"]:
            return 1
        trained = self.config["seq_length"]
        return max(1, 2 ** math.ceil(math.log(length / trained, 2) + 1) - 1)


class Block(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, epsilon = config["hidden_size"], config["layer_norm_epsilon"]
        self.ln_1 = nn.RMSNorm(hidden, epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.RMSNorm(hidden, epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, ntk_alpha: float) -> Tensor:
        x = x + self.attn(self.ln_1(x), ntk_alpha)
        return x + self.mlp(self.ln_2(x))


class Attention(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        width = config["kv_channels"] * config["num_attention_heads"]
        self.c_attn = nn.Linear(config["hidden_size"], 3 * width)
        self.c_proj = nn.Linear(width, config["hidden_size"], bias=not config["no_bias"])

    def forward(self, x: Tensor, ntk_alpha: float) -> Tensor:
        length, dim = len(x), self.config["kv_channels"]
        q, k, v = (part.view(length, -1, dim) for part in self.c_attn(x).chunk(3, dim=-1))
        base = self.config["rotary_emb_base"] * ntk_alpha ** (dim / (dim - 2))
        angles = torch.outer(
            torch.arange(length).float(), 1 / base ** (torch.arange(0, dim, 2).float() / dim)
        )
        q, k = rotate(q, angles), rotate(k, angles)
        if self.config["use_logn_attn"]:
            trained = self.config["seq_length"]
            scale = [max(1.0, math.log(i, trained)) for i in range(1, length + 1)]
            q = q * torch.tensor(scale)[:, None, None]
        attended = functional.scaled_dot_product_attention(
            q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), is_causal=True
        )
        return self.c_proj(attended.transpose(0, 1).reshape(length, -1))


class MLP(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, width = config["hidden_size"], config["intermediate_size"] // 2
        bias = not config["no_bias"]
        self.w1 = nn.Linear(hidden, width, bias)
        self.w2 = nn.Linear(hidden, width, bias)
        self.c_proj = nn.Linear(width, hidden, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.w1(x) * functional.silu(self.w2(x)))


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the two halves of each head against each other, [S, heads, dim]."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
