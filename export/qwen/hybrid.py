"""Qwen3-Next, Qwen3.5 and 3.6: how their configs and tensors differ from those of Qwen3.

Three of four layers are a Gated DeltaNet (Yang et al. 2024, https://arxiv.org/abs/2412.06464),
which keeps a state of fixed size instead of keys and values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from export.quantized.tensors import QuantizedTensorFiles
from export.safetensors_file import StoredTensor
from export.tensor_files import TensorFiles

_LANGUAGE = "model.language_model."
_PACKED_EXPERTS = (".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")
_UNUSED = {"vision": ("model.visual.", "visual."), "token prediction ahead": ("mtp.",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaNetConfig:
    """The shape of the Gated DeltaNet layers.

    `packs_projections`: q, k, v and gate stand together for each key head, as Qwen3-Next has them.
    """

    num_key_heads: int
    num_value_heads: int
    key_width: int  # of a head
    value_width: int
    kernel_size: int  # tokens that the convolution before it sees
    packs_projections: bool

    @property
    def keys_width(self) -> int:
        """Of all heads together."""
        return self.num_key_heads * self.key_width

    @property
    def values_width(self) -> int:
        return self.num_value_heads * self.value_width

    @property
    def convolved_width(self) -> int:
        """Queries, keys and values side by side."""
        return 2 * self.keys_width + self.values_width


def respell(config: dict[str, Any]) -> dict[str, Any]:
    """The text model's settings, which a checkpoint with a vision tower has one level below."""
    text = config.get("text_config")
    if not isinstance(text, dict):
        return config
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    return text | {"architectures": config.get("architectures"), "tie_word_embeddings": tied}


def rename(config: dict[str, Any], tensors: TensorFiles) -> TensorFiles:
    """The text model's tensors under the names that it has without a vision tower."""
    is_packed = any(name.endswith(_PACKED_EXPERTS) for name in tensors)
    if not is_packed and not any(name.startswith(_LANGUAGE) for name in tensors):
        return tensors

    def plain(name: str) -> str:
        return name.replace(_LANGUAGE, "model.", 1) if name.startswith(_LANGUAGE) else name

    if isinstance(tensors, QuantizedTensorFiles):
        return tensors.renamed(plain)
    stored = {plain(name): tensors.stored(name) for name in tensors}
    return TensorFiles(dict(_unpack_experts(stored)))


def _unpack_experts(stored: dict[str, StoredTensor]) -> Iterator[tuple[str, StoredTensor]]:
    """Matrices of all experts in one tensor, `gate_up_proj` [E, 2 * width, hidden], one by one."""
    for name, tensor in stored.items():
        if not name.endswith(_PACKED_EXPERTS) or len(tensor.shape) != 3:
            yield name, tensor
            continue
        at, _, kind = name.rpartition(".")
        num_experts, height, width = tensor.shape
        rows = tensor.reshaped((num_experts * height, width))
        parts = ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",)
        size = height // len(parts)
        for expert in range(num_experts):
            for i, part in enumerate(parts):
                start = expert * height + i * size
                yield f"{at}.{expert}.{part}.weight", rows.rows(start, start + size)


def unused_weights(tensors: TensorFiles) -> str | None:
    """The sentence that says which weights an engine of text leaves out; None where it has none."""
    counts = {
        part: sum(name.startswith(prefixes) for name in tensors)
        for part, prefixes in _UNUSED.items()
    }
    found = [f"{count} tensors for {part}" for part, count in counts.items() if count]
    return f"{' and '.join(found)} are left out: the engine reads text" if found else None


def read_layer_types(config: dict[str, Any], num_layers: int) -> tuple[bool, ...]:
    """For each layer whether it is a Gated DeltaNet.

    Raises:
        ValueError: A kind of layer is unknown, or there are not as many as layers.
    """
    interval = int(config.get("full_attention_interval") or 4)
    derived = [
        "full_attention" if (layer + 1) % interval == 0 else "linear_attention"
        for layer in range(num_layers)
    ]
    kinds = config.get("layer_types") or derived
    unknown = set(kinds) - {"full_attention", "linear_attention"}
    if unknown or len(kinds) != num_layers:
        raise ValueError(f"layer_types has {len(kinds)} layers of the kinds {sorted(set(kinds))}")
    return tuple(kind == "linear_attention" for kind in kinds)


def read_delta_net(config: dict[str, Any], *, packs_projections: bool) -> DeltaNetConfig:
    """The settings of the Gated DeltaNet layers.

    Raises:
        ValueError: The value heads are no multiple of the key heads.
    """
    delta_net = DeltaNetConfig(
        num_key_heads=int(config["linear_num_key_heads"]),
        num_value_heads=int(config["linear_num_value_heads"]),
        key_width=int(config["linear_key_head_dim"]),
        value_width=int(config["linear_value_head_dim"]),
        kernel_size=int(config["linear_conv_kernel_dim"]),
        packs_projections=packs_projections,
    )
    if delta_net.num_value_heads % delta_net.num_key_heads:
        raise ValueError(
            f"{delta_net.num_value_heads} value heads are no multiple of "
            f"{delta_net.num_key_heads} key heads"
        )
    return delta_net


def read_rotary_share(config: dict[str, Any]) -> float:
    """The part of each head that is rotated."""
    settings = config.get("rope_scaling") or config.get("rope_parameters") or {}
    share = settings.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    return 0.25 if share is None else float(share)
