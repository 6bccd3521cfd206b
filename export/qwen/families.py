"""The table of families: where one Qwen decoder differs from the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from export.qwen import hybrid, qwen1
from export.tensor_files import TensorFiles

Config = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What config.json does not say, or says under other names, for one architecture.

    Attributes:
        name: The family as the manifest names it.
        head_dim: The width of a head.
        qkv_bias: Whether the q, k and v projections have a bias.
        output_bias: Whether the projection behind the attention has one.
        qk_norm: Whether each head's q and k are normalized before they are rotated.
        respell: Gives config.json in the names of Qwen2.
        rename: Gives the tensors under the names of Qwen2.
        is_hybrid: Whether most layers are Gated DeltaNets, the others gate their heads and rotate a
            part of them, and norms are stored as what they differ from one by.
        packs_delta_net: Whether a Gated DeltaNet's projections stand together for each key head.
        in_transformers: Whether transformers has the architecture, without code of the checkpoint.
        has_experts: Whether layers are mixtures of experts.
        has_shared_expert: Whether one expert is beside them for all tokens.
    """

    name: str
    head_dim: Callable[[Config], int]
    qkv_bias: Callable[[Config], bool]
    output_bias: Callable[[Config], bool]
    qk_norm: bool
    respell: Callable[[Config], Config] = lambda config: config
    rename: Callable[[Config, TensorFiles], TensorFiles] = lambda config, tensors: tensors
    is_hybrid: bool = False
    packs_delta_net: bool = False
    in_transformers: bool = True
    has_experts: bool = False
    has_shared_expert: bool = False


def _derived_head_dim(config: Config) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _attention_bias(config: Config) -> bool:
    return bool(config.get("attention_bias", False))


QWEN1 = Family(
    name="qwen",
    head_dim=_derived_head_dim,
    qkv_bias=lambda config: True,
    output_bias=lambda config: False,
    qk_norm=False,
    respell=qwen1.respell,
    rename=qwen1.rename,
    in_transformers=False,
)

QWEN2 = Family(
    name="qwen2",
    head_dim=_derived_head_dim,
    qkv_bias=lambda config: True,
    output_bias=lambda config: False,
    qk_norm=False,
)

QWEN3 = Family(
    name="qwen3",
    head_dim=lambda config: int(config.get("head_dim", 128)),
    qkv_bias=_attention_bias,
    output_bias=_attention_bias,
    qk_norm=True,
)

QWEN3_NEXT = Family(
    name="qwen3-next",
    head_dim=lambda config: int(config.get("head_dim") or 256),
    qkv_bias=_attention_bias,
    output_bias=_attention_bias,
    qk_norm=True,
    is_hybrid=True,
    packs_delta_net=True,
    has_experts=True,
    has_shared_expert=True,
)

QWEN3_5 = Family(
    name="qwen3.5",
    head_dim=lambda config: int(config.get("head_dim") or 256),
    qkv_bias=_attention_bias,
    output_bias=_attention_bias,
    qk_norm=True,
    respell=hybrid.respell,
    rename=hybrid.rename,
    is_hybrid=True,
)

QWEN2_MOE = replace(
    QWEN2,
    name="qwen2-moe",
    qkv_bias=lambda config: bool(config.get("qkv_bias", True)),
    has_experts=True,
    has_shared_expert=True,
)

QWEN3_5_MOE = replace(QWEN3_5, name="qwen3.5-moe", has_experts=True, has_shared_expert=True)

QWEN3_MOE = replace(QWEN3, name="qwen3-moe", has_experts=True)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "QWenLMHeadModel": QWEN1,
        "Qwen2ForCausalLM": QWEN2,
        "Qwen3ForCausalLM": QWEN3,
        "Qwen3NextForCausalLM": QWEN3_NEXT,
        "Qwen3_5ForCausalLM": QWEN3_5,
        "Qwen3_5ForConditionalGeneration": QWEN3_5,
        "Qwen3_5MoeForCausalLM": QWEN3_5_MOE,
        "Qwen3_5MoeForConditionalGeneration": QWEN3_5_MOE,
        "Qwen2MoeForCausalLM": QWEN2_MOE,
        "Qwen3MoeForCausalLM": QWEN3_MOE,
    }
)


def find_family(name: str) -> Family:
    """The family of that name, as the manifest has it."""
    return next(family for family in FAMILIES.values() if family.name == name)
