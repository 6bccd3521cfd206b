"""`DecoderConfig`: config.json of any supported family in one spelling, checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from export.errors import CheckpointError
from export.qwen.families import FAMILIES, Family
from export.qwen.hybrid import (
    DeltaNetConfig,
    read_delta_net,
    read_layer_types,
    read_rotary_share,
)
from export.qwen.rope import RopeParameters, read_rope_parameters

HEAD_DIM_MULTIPLE = 16  # what GroupQueryAttention rotates
ROTARY_MULTIPLE = 16  # of the part of a head that is rotated
EXPERT_WIDTH_MULTIPLE = 32  # weights that share a scale in QMoE


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsConfig:
    """A mixture of experts, of which a router chooses some for each token.

    Attributes:
        num_experts: How many a layer has.
        per_token: How many of them a token goes through.
        intermediate_size: The width of each.
        normalizes: Whether the weights of the chosen ones are made to add up to 1.
        shared_intermediate_size: The width of the expert that all tokens go through, if there is.
        layers: The layers that have experts; the others have one MLP.
    """

    num_experts: int
    per_token: int
    intermediate_size: int
    normalizes: bool
    shared_intermediate_size: int | None
    layers: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """The shape of a decoder-only transformer."""

    family: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope: RopeParameters
    sliding_window: int | None  # tokens that a layer sees at most; None where all see everything
    tie_word_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    qk_norm: bool
    norm_offset: float = 0.0  # added to the stored weights of norms
    gates_heads: bool = False  # whether the q projection brings a gate of what the heads read
    rotary_share: float = 1.0  # of each head
    delta_net: DeltaNetConfig | None = None
    is_delta_net: tuple[bool, ...] = ()  # for each layer, of a model that has some
    experts: ExpertsConfig | None = None
    logn_length: int | None = None  # queries behind it grow with the logarithm of their position

    @property
    def packs_qkv(self) -> bool:
        """Whether nothing comes between the projections of a layer's q, k and v and its heads."""
        return not self.qk_norm and self.logn_length is None

    @property
    def rotary_width(self) -> int:
        """The numbers of each head that are rotated."""
        return int(self.head_dim * self.rotary_share)

    def delta_net_of(self, layer: int) -> DeltaNetConfig | None:
        """The shape of a layer that is a Gated DeltaNet; None of one with attention."""
        return self.delta_net if self.delta_net and self.is_delta_net[layer] else None

    @property
    def default_context(self) -> int:
        """The positions that the model reads as it was trained, YaRN included."""
        return self.max_position_embeddings if self.rope.ntk_factor > 1 else self.longest_context

    @property
    def longest_context(self) -> int:
        """The positions that the model can take, stretched ones included."""
        if self.rope.yarn is None:
            return int(self.max_position_embeddings * self.rope.ntk_factor)
        stretched = self.rope.yarn.factor * self.rope.yarn.original_max_position_embeddings
        return max(self.max_position_embeddings, int(stretched))

    def for_context(self, max_context: int) -> DecoderConfig:
        """The same with what is fixed when the longest text is known.

        Up to the trained length nothing is stretched. Beyond it every text is read as the longest
        one would be, as keys that were rotated for a shorter one cannot be turned again.
        """
        trained = self.max_position_embeddings
        logn = self.logn_length
        return replace(
            self,
            rope=self.rope.stretched(max_context, trained, self.head_dim),
            logn_length=None if logn is None or max_context <= logn else logn,
        )


def read_decoder_config(config: dict[str, Any]) -> DecoderConfig:
    """Translate config.json.

    Raises:
        CheckpointError: The architecture is not supported, or a field is missing or impossible.
    """
    family = family_of(config)
    if config.get("hidden_act", "silu") != "silu":
        raise CheckpointError(
            f"config.json has hidden_act {config['hidden_act']!r}, but only silu is supported"
        )
    try:
        decoder = _translate(family.respell(config), family)
        if family.is_hybrid:
            decoder = _as_hybrid(decoder, family.respell(config), family)
    except KeyError as error:
        raise CheckpointError(f"config.json has no field {error}") from None
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"config.json has a field of the wrong type: {error}") from None
    _check_shape(decoder)
    return decoder


def family_of(config: dict[str, Any]) -> Family:
    """The family that a config.json names.

    Raises:
        CheckpointError: It is not supported.
    """
    architectures = config.get("architectures") or []
    for architecture in architectures:
        if architecture in FAMILIES:
            return FAMILIES[architecture]
    found = ", ".join(map(str, architectures)) or "none"
    raise CheckpointError(
        f"the checkpoint's architecture is {found}, but only {_listed(FAMILIES)} are supported"
    )


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"


def _translate(config: dict[str, Any], family: Family) -> DecoderConfig:
    num_heads = int(config["num_attention_heads"])
    num_layers = int(config["num_hidden_layers"])
    return DecoderConfig(
        family=family.name,
        hidden_size=int(config["hidden_size"]),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=int(config.get("num_key_value_heads") or num_heads),
        head_dim=family.head_dim(config),
        intermediate_size=int(config[_mlp_width(config, family)]),
        vocab_size=int(config["vocab_size"]),
        max_position_embeddings=int(config["max_position_embeddings"]),
        rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        rope=read_rope_parameters(config, partial=family.is_hybrid),
        sliding_window=_read_sliding_window(config, num_layers),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=family.qkv_bias(config),
        output_bias=family.output_bias(config),
        qk_norm=family.qk_norm,
        experts=_read_experts(config, family, num_layers),
        logn_length=config.get("logn_length"),
    )


def _mlp_width(config: dict[str, Any], family: Family) -> str:
    """The field that says how wide an MLP is; where all layers have experts, only theirs may be."""
    is_named = "intermediate_size" in config or not family.has_experts
    return "intermediate_size" if is_named else "moe_intermediate_size"


def _as_hybrid(decoder: DecoderConfig, config: dict[str, Any], family: Family) -> DecoderConfig:
    return replace(
        decoder,
        norm_offset=1.0,
        gates_heads=True,
        rotary_share=read_rotary_share(config),
        delta_net=read_delta_net(config, packs_projections=family.packs_delta_net),
        is_delta_net=read_layer_types(config, decoder.num_layers),
    )


def _read_experts(config: dict[str, Any], family: Family, num_layers: int) -> ExpertsConfig | None:
    if not family.has_experts or (family.is_hybrid and config.get("num_experts") == 0):
        return None
    step, dense = int(config.get("decoder_sparse_step", 1)), config.get("mlp_only_layers") or ()
    shared = config.get("shared_expert_intermediate_size") if family.has_shared_expert else None
    return ExpertsConfig(
        num_experts=int(config.get("num_experts") or config["num_local_experts"]),
        per_token=int(config["num_experts_per_tok"]),
        intermediate_size=int(config["moe_intermediate_size"]),
        normalizes=bool(config.get("norm_topk_prob", family.is_hybrid)),
        shared_intermediate_size=None if shared is None else int(shared),
        layers=frozenset(
            layer for layer in range(num_layers) if layer not in dense and (layer + 1) % step == 0
        ),
    )


def _read_sliding_window(config: dict[str, Any], num_layers: int) -> int | None:
    if not config.get("use_sliding_window", False) or config.get("sliding_window") is None:
        return None
    layer_types = config.get("layer_types")
    if layer_types is not None:
        slides = "sliding_attention" in layer_types
    else:
        slides = int(config.get("max_window_layers", 28)) < num_layers
    return int(config["sliding_window"]) if slides else None


def _check_shape(decoder: DecoderConfig) -> None:
    sizes = ("hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim")
    for name in (*sizes, "intermediate_size", "vocab_size", "max_position_embeddings"):
        if getattr(decoder, name) < 1:
            raise CheckpointError(f"config.json has {name} = {getattr(decoder, name)}")
    if decoder.num_heads % decoder.num_kv_heads:
        raise CheckpointError(
            f"config.json has {decoder.num_heads} attention heads, which is no multiple of its "
            f"{decoder.num_kv_heads} key and value heads"
        )
    if decoder.experts is not None:
        _check_experts(decoder.experts, decoder.hidden_size)
    if decoder.head_dim % HEAD_DIM_MULTIPLE:
        raise CheckpointError(
            f"config.json has head_dim = {decoder.head_dim}, but only multiples of "
            f"{HEAD_DIM_MULTIPLE} are supported"
        )
    if decoder.rotary_width % ROTARY_MULTIPLE or not 0 < decoder.rotary_share <= 1:
        raise CheckpointError(
            f"config.json has partial_rotary_factor = {decoder.rotary_share}, which rotates "
            f"{decoder.rotary_width} of {decoder.head_dim} numbers of a head, but only multiples "
            f"of {ROTARY_MULTIPLE} are supported"
        )


def _check_experts(experts: ExpertsConfig, hidden_size: int) -> None:
    if not 0 < experts.per_token <= experts.num_experts:
        raise CheckpointError(
            f"config.json has num_experts_per_tok = {experts.per_token} and num_experts = "
            f"{experts.num_experts}"
        )
    for name, width in (
        ("hidden_size", hidden_size),
        ("moe_intermediate_size", experts.intermediate_size),
    ):
        if width < 1 or width % EXPERT_WIDTH_MULTIPLE:
            raise CheckpointError(
                f"config.json has {name} = {width}, but experts need a multiple of "
                f"{EXPERT_WIDTH_MULTIPLE}"
            )
