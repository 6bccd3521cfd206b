"""Published Qwen shapes: their configurations, and the name and size of every tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

VOCABULARY_SIZE = 151_643  # tokens of text; the special ones follow
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

Family = Literal["qwen2", "qwen3", "qwen3_5_text", "qwen3_moe"]
Tensors = dict[str, tuple[int, ...]]
_ARCHITECTURES: dict[Family, str] = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_5_text": "Qwen3_5ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatShape:
    """The sizes of one model, as its published configuration names them."""

    family: Family
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    head_dim: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    vocab_size: int = 151_936  # rows of the embedding: more than there are tokens
    num_text_tokens: int = VOCABULARY_SIZE
    num_experts: int = 0  # of each layer, of a mixture
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0

    def config(self) -> dict[str, Any]:
        """The content of `config.json`."""
        first = self.num_text_tokens
        config: dict[str, Any] = {
            "architectures": [_ARCHITECTURES[self.family]],
            "attention_dropout": 0.0,
            "bos_token_id": first,
            "eos_token_id": first + 2,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "max_window_layers": self.num_hidden_layers,
            "model_type": self.family,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0,
            "sliding_window": None,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": self.vocab_size,
        }
        if self.family in ("qwen3", "qwen3_moe"):
            config |= {"attention_bias": False, "head_dim": self.head_dim}
        if self.num_experts:
            config |= {
                "decoder_sparse_step": 1,
                "mlp_only_layers": [],
                "moe_intermediate_size": self.moe_intermediate_size,
                "norm_topk_prob": True,
                "num_experts": self.num_experts,
                "num_experts_per_tok": self.num_experts_per_tok,
            }
        return config

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor, in the order of a published file."""
        hidden = self.hidden_size
        tensors: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocab_size, hidden)
        }
        for layer in range(self.num_hidden_layers):
            at = f"model.layers.{layer}"
            tensors[f"{at}.input_layernorm.weight"] = (hidden,)
            tensors |= self._heads(layer)
            tensors[f"{at}.post_attention_layernorm.weight"] = (hidden,)
            tensors |= self._mlp(f"{at}.mlp")
        tensors["model.norm.weight"] = (hidden,)
        if not self.tie_word_embeddings:
            tensors["lm_head.weight"] = (self.vocab_size, hidden)
        return tensors

    def _mlp(self, at: str) -> Tensors:
        hidden, width = self.hidden_size, self.moe_intermediate_size or self.intermediate_size
        tensors: Tensors = {}
        if self.num_experts:
            tensors[f"{at}.gate.weight"] = (self.num_experts, hidden)
        experts = [f"{at}.experts.{expert}" for expert in range(self.num_experts)]
        for name in experts or [at]:
            tensors[f"{name}.gate_proj.weight"] = (width, hidden)
            tensors[f"{name}.up_proj.weight"] = (width, hidden)
            tensors[f"{name}.down_proj.weight"] = (hidden, width)
        return tensors

    def _heads(self, layer: int) -> Tensors:
        at = f"model.layers.{layer}.self_attn"
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        tensors: dict[str, tuple[int, ...]] = {}
        for name, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
            tensors[f"{at}.{name}.weight"] = (rows, self.hidden_size)
            if self.family == "qwen2":
                tensors[f"{at}.{name}.bias"] = (rows,)
        tensors[f"{at}.o_proj.weight"] = (self.hidden_size, queries)
        if self.family in ("qwen3", "qwen3_moe"):
            tensors[f"{at}.q_norm.weight"] = (self.head_dim,)
            tensors[f"{at}.k_norm.weight"] = (self.head_dim,)
        return tensors
