"""The first Qwen (`QWenLMHeadModel`) in the names of its successors.

Its decoder is Qwen2's with a key head for each query head; what differs is how the files spell it,
and how it reads texts that are longer than those of its training.
"""

from __future__ import annotations

from typing import Any

from export.errors import CheckpointError
from export.qwen.rope import DYNAMIC_NTK
from export.tensor_files import Rows, TensorFiles

Config = dict[str, Any]

_ONLY = {"no_bias": True, "rotary_pct": 1.0, "scale_attn_weights": True}

# Names in a layer, Qwen2's names, and shapes. w2 is the half of the MLP that goes through SiLU.
_IN_LAYER = {
    "ln_1.weight": ("input_layernorm.weight", "norm"),
    "attn.c_proj.weight": ("self_attn.o_proj.weight", "attention"),
    "ln_2.weight": ("post_attention_layernorm.weight", "norm"),
    "mlp.w2.weight": ("mlp.gate_proj.weight", "up"),
    "mlp.w1.weight": ("mlp.up_proj.weight", "up"),
    "mlp.c_proj.weight": ("mlp.down_proj.weight", "down"),
}


def respell(config: Config) -> Config:
    """config.json in the fields that Qwen2 has.

    Raises:
        CheckpointError: It asks for what no published checkpoint has.
    """
    for name, value in _ONLY.items():
        if config.get(name, value) != value:
            raise CheckpointError(
                f"config.json has {name} = {config[name]}, but only {value} is supported"
            )
    width = config["kv_channels"] * config["num_attention_heads"]
    if width != config["hidden_size"]:
        raise CheckpointError(
            f"config.json has heads of {width} channels together, but hidden_size is "
            f"{config['hidden_size']}: they have to be equal"
        )
    length = config["seq_length"]
    stretches = config.get("use_dynamic_ntk", False)
    respelled = {
        name: config[name]
        for name in ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
    }
    return respelled | {
        "architectures": config["architectures"],
        "head_dim": config["kv_channels"],
        "intermediate_size": config["intermediate_size"] // 2,  # it counts both gate and up
        "max_position_embeddings": length,
        "rms_norm_eps": config.get("layer_norm_epsilon", 1e-6),
        "rope_theta": config.get("rotary_emb_base", 10_000.0),
        "rope_scaling": {
            "rope_type": DYNAMIC_NTK,
            "factor": max(length, config.get("max_position_embeddings", length)) / length,
        }
        if stretches
        else None,
        "logn_length": length if config.get("use_logn_attn", False) else None,
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
    }


def rename(config: Config, tensors: TensorFiles) -> TensorFiles:
    """The tensors under the names that Qwen2 has; `c_attn` holds q, k and v one below the other.

    Raises:
        CheckpointError: A tensor is missing, or has another shape.
    """
    hidden, mlp = config["hidden_size"], config["intermediate_size"] // 2
    table = (config["vocab_size"], hidden)
    sources: dict[str, Rows] = {}

    def take(name: str, shape: tuple[int, ...], *new_names: str) -> None:
        """Under several names parts of the same size."""
        tensors.require(name, shape)
        size = shape[0] // len(new_names)
        for index, new_name in enumerate(new_names):
            sources[new_name] = Rows(name, index * size, (index + 1) * size)

    take("transformer.wte.weight", table, "model.embed_tokens.weight")
    take("transformer.ln_f.weight", (hidden,), "model.norm.weight")
    if not config.get("tie_word_embeddings", False):
        take("lm_head.weight", table, "lm_head.weight")
    shapes = {
        "norm": (hidden,),
        "attention": (hidden, hidden),
        "up": (mlp, hidden),
        "down": (hidden, mlp),
    }
    for layer in range(config["num_hidden_layers"]):
        old, new = f"transformer.h.{layer}", f"model.layers.{layer}"
        for name, (new_name, kind) in _IN_LAYER.items():
            take(f"{old}.{name}", shapes[kind], f"{new}.{new_name}")
            _check_no_bias(tensors, f"{old}.{name}")
        for part, shape in (("weight", (3 * hidden, hidden)), ("bias", (3 * hidden,))):
            new_names = (f"{new}.self_attn.{letter}_proj.{part}" for letter in "qkv")
            take(f"{old}.attn.c_attn.{part}", shape, *new_names)
    return tensors.taken(sources)


def _check_no_bias(tensors: TensorFiles, name: str) -> None:
    """Quantized checkpoints may bring biases that the model has not; they have to be zero."""
    bias = f"{name.removesuffix('.weight')}.bias"
    if bias in tensors and tensors.read(bias).any():
        raise CheckpointError(f"tensor {bias!r} is not zero, but the model has no such bias")
