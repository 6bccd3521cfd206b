"""What can be smoothed in a decoder: an activation, what makes its channels and what reads them."""

from __future__ import annotations

from dataclasses import dataclass

from export.precision import NodePrecision
from export.qwen.config import DecoderConfig


@dataclass(frozen=True, slots=True)
class Group:
    """An activation whose channels can be divided by anything, as its readers multiply by it.

    Attributes:
        values: The name of the activation in the graph.
        row_scale: The name of what its rows are yet to be multiplied by; None where they are whole.
        maker: The tensor whose rows make its channels: the weight of a norm, or a matrix.
        readers: The matrices whose columns read its channels.
    """

    values: str
    row_scale: str | None
    maker: str
    readers: tuple[str, ...]


def find_groups(config: DecoderConfig, precision: NodePrecision) -> list[Group]:
    """The groups of a decoder's layers all of whose readers are int8; of experts there are none."""
    found = []
    for layer in range(config.num_layers):
        node, tensor = f"layers.{layer}", f"model.layers.{layer}"
        qkv = tuple(f"{tensor}.self_attn.{kind}_proj.weight" for kind in "qkv")
        kinds = ["qkv"] if config.packs_qkv else ["q", "k", "v"]
        if _are_int8(precision, f"{node}.attention", kinds):
            norm = f"{tensor}.input_layernorm.weight"
            found.append(Group(f"{node}.input_layernorm", None, norm, qkv))
        if config.experts is not None and layer in config.experts.layers:
            continue
        normed, mlp = f"{node}.post_attention_layernorm", f"{tensor}.mlp"
        gate, up, down = (f"{mlp}.{kind}_proj.weight" for kind in ("gate", "up", "down"))
        if _are_int8(precision, f"{node}.mlp", ["gate", "up"]):
            norm = f"{tensor}.post_attention_layernorm.weight"
            found.append(Group(normed, None, norm, (gate, up)))
        if _are_int8(precision, f"{node}.mlp", ["up", "down"]):
            # Its rows lack the scale of those of `up`, which passes through the gate.
            found.append(Group(f"{node}.mlp.gated", f"{normed}.row_scale", up, (down,)))
    return found


def _are_int8(precision: NodePrecision, node: str, kinds: list[str]) -> bool:
    return all(precision.layout(f"{node}.{kind}") == "int8" for kind in kinds)
