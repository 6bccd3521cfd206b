"""What the modules of a denoiser were called in the code that it was first published with.

Each function gives the original names of those modules that have one, with the tensors that they
hold: several, one behind the other, where the original keeps them in one matrix.
"""

from __future__ import annotations

from typing import Any

Names = dict[str, tuple[str, ...]]

_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ALONE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_FLUX_ALONE: Names = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
}
_FLUX_DOUBLE: Names = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
}
_FLUX_SINGLE: Names = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}


def unet_names(modules: dict[str, str], config: dict[str, Any]) -> Names:
    """A UNet's; `modules` are its modules with their tensors, `config` its config.json."""
    layers = config.get("layers_per_block", 2)
    if not isinstance(layers, int):  # the originals have as many in every block
        return {}
    names: Names = {}
    for module, tensor in modules.items():
        original = _UNET_ALONE.get(module) or _unet_block(module, layers, modules)
        if original is not None:
            names[original] = (tensor,)
    return names


def _unet_block(module: str, layers: int, modules: dict[str, str]) -> str | None:
    """Blocks are counted by their layers, and a change of size is one more layer."""
    match module.split("."):
        case ["mid_block", "resnets", index, rest]:
            return _resnet(f"middle_block.{2 * int(index)}", rest)
        case ["mid_block", "attentions", "0", *rest]:
            return ".".join(["middle_block.1", *rest])
        case ["down_blocks", block, "resnets", index, rest]:
            return _resnet(f"input_blocks.{_layer(block, index, layers) + 1}.0", rest)
        case ["down_blocks", block, "attentions", index, *rest]:
            return ".".join([f"input_blocks.{_layer(block, index, layers) + 1}.1", *rest])
        case ["down_blocks", block, "downsamplers", "0", "conv"]:
            return f"input_blocks.{(int(block) + 1) * (layers + 1)}.0.op"
        case ["up_blocks", block, "resnets", index, rest]:
            return _resnet(f"output_blocks.{_layer(block, index, layers)}.0", rest)
        case ["up_blocks", block, "attentions", index, *rest]:
            return ".".join([f"output_blocks.{_layer(block, index, layers)}.1", *rest])
        case ["up_blocks", block, "upsamplers", "0", "conv"]:
            attends = any(name.startswith(f"up_blocks.{block}.attentions.") for name in modules)
            place = 2 if attends else 1
            return f"output_blocks.{_layer(block, str(layers), layers)}.{place}.conv"
    return None


def _layer(block: str, index: str, layers: int) -> int:
    return int(block) * (layers + 1) + int(index)


def _resnet(start: str, module: str) -> str | None:
    return f"{start}.{_RESNET[module]}" if module in _RESNET else None


def flux_names(modules: dict[str, str], config: dict[str, Any]) -> Names:
    """FLUX's, but for the last modulation, whose halves are the other way round there."""
    names: Names = dict(_FLUX_ALONE)
    for layer in range(config.get("num_layers", 0)):
        for original, parts in _FLUX_DOUBLE.items():
            names[f"double_blocks.{layer}.{original}"] = _below(
                f"transformer_blocks.{layer}", parts
            )
    for layer in range(config.get("num_single_layers", 0)):
        for original, parts in _FLUX_SINGLE.items():
            block = f"single_transformer_blocks.{layer}"
            names[f"single_blocks.{layer}.{original}"] = _below(block, parts)
    return {
        original: tuple(modules[part] for part in parts)
        for original, parts in names.items()
        if all(part in modules for part in parts)
    }


def _below(block: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{block}.{part}" for part in parts)
