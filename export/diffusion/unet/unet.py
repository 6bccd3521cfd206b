"""The UNet's graph: a noisy latent, a time for each row and a prompt in, the model's output out.

Inputs: `sample` float32 [B, in_channels, H, W], `timestep` float32 [B], `encoder_hidden_states`
float32 [B, T, cross_attention_dim]; for SDXL also `text_embeds` float32 [B, text_width] and
`time_ids` float32 [B, 6]; for models with distilled guidance also `timestep_cond` float32
[B, guidance_width], where zeros mean none.
Outputs: `model_output` float32 [B, out_channels, H, W], of which the scheduler knows what it is;
`deep_features` float32 [B, C, H, W], what the deeper layers made of the sample.
Rows do not see each other.

The shallow UNet takes `deep_features` of an earlier time in place of the deeper layers (DeepCache,
Ma et al. 2023, https://arxiv.org/abs/2312.00858). Otherwise it has the same inputs, and its nodes
and weights have the names that they have in the whole UNet.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.diffusion.layers import Advance, LayerEmitter
from export.diffusion.unet.config import NUM_TIME_IDS, TextTimeEmbedding, UNetConfig
from export.diffusion.unet.structure import Block, build_structure
from export.graph import GraphBuilder
from export.precision import LayoutChooser
from export.tensor_files import TensorFiles


def num_parts(config: UNetConfig) -> int:
    """How often an emission advances."""
    structure = build_structure(config)
    return len(structure.down) + (structure.mid is not None) + len(structure.deep_up) + 2


def emit_unet(
    config: UNetConfig,
    tensors: TensorFiles,
    graph: GraphBuilder,
    precision: LayoutChooser,
    advance: Advance,
) -> None:
    """Emit everything; `advance` is told each part that is done.

    Args:
        config: The UNet's shape.
        tensors: What `open_unet_tensors` returned.
        graph: Takes nodes and weights.
        precision: The layout of each node.
        advance: See above.
    """
    UNetEmitter(config, graph, LayerEmitter(graph, tensors, precision)).emit(advance)


def emit_shallow_unet(
    config: UNetConfig,
    tensors: TensorFiles,
    graph: GraphBuilder,
    precision: LayoutChooser,
    advance: Advance,
) -> None:
    """Emit the shallow UNet, which is one part; the arguments are those of `emit_unet`."""
    UNetEmitter(config, graph, LayerEmitter(graph, tensors, precision)).emit_shallow(advance)


class UNetEmitter:
    """Emits a UNet into a graph, block by block."""

    def __init__(self, config: UNetConfig, graph: GraphBuilder, layers: LayerEmitter) -> None:
        self._config = config
        self._structure = build_structure(config)
        self._graph = graph
        self._layers = layers

    def emit(self, advance: Advance) -> None:
        structure = self._structure
        hidden, time, context = self._emit_start()
        skips = [hidden]
        for level, block in enumerate(structure.down):
            hidden = self._emit_down(block, hidden, time, context, skips)
            advance(f"down block {level + 1}")
        if structure.mid is not None:
            hidden = self._emit_mid(structure.mid, hidden, time, context)
            advance("middle block")
        for index, block in enumerate(structure.deep_up):
            hidden = self._emit_up(block, hidden, time, context, skips)
            advance(f"up block {index + 1}")
        self._graph.output(hidden, "deep_features", "float32", self._deep_shape())
        hidden = self._emit_up(structure.shallow_up, hidden, time, context, skips)
        advance("last up block")
        self._emit_end(hidden)
        advance("output")

    def emit_shallow(self, advance: Advance) -> None:
        hidden, time, context = self._emit_start()
        skips = [hidden]
        self._emit_down(self._structure.shallow_down, hidden, time, context, skips)
        deep = self._graph.input("deep_features", "float32", self._deep_shape())
        self._emit_end(self._emit_up(self._structure.shallow_up, deep, time, context, skips))
        advance("shallow")

    def _emit_start(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        """The sample as the first features, the time for all blocks, and the prompt."""
        graph, config, layers = self._graph, self._config, self._layers
        sample = graph.input("sample", "float32", ["batch", config.in_channels, "height", "width"])
        timestep = graph.input("timestep", "float32", ["batch"])
        context = graph.input(
            "encoder_hidden_states", "float32", ["batch", "num_tokens", config.cross_attention_dim]
        )
        time = layers.silu(self._embed_time(timestep))  # every block would activate it again
        return self._convolve_same(sample, "conv_in", config.conv_in_kernel), time, context

    def _emit_end(self, hidden: ir.Value) -> None:
        config, layers = self._config, self._layers
        normed = layers.group_norm(hidden, "conv_norm_out", config.norm_num_groups, config.norm_eps)
        output = self._convolve_same(layers.silu(normed), "conv_out", config.conv_out_kernel)
        self._graph.output(
            output, "model_output", "float32", ["batch", config.out_channels, "height", "width"]
        )

    def _deep_shape(self) -> list[int | str]:
        first = self._structure.shallow_up.resnets[0]
        from_the_way_down = self._config.block_out_channels[0]
        return ["batch", first.in_channels - from_the_way_down, "height", "width"]

    def _embed_time(self, timestep: ir.Value) -> ir.Value:
        """[B] -> [B, time_embed_dim], with what else is told beside the time."""
        graph, config, layers = self._graph, self._config, self._layers
        waves = config.time.emit(layers, timestep, "time_proj")  # [B, time.width]
        if config.guidance_width is not None:
            guidance = graph.input("timestep_cond", "float32", ["batch", config.guidance_width])
            projected = layers.linear(guidance, "time_embedding.cond_proj", bias=False)
            waves = layers.add(waves, projected, "time_embedding.guided")
        embedded = self._structure.time_embedding.emit(layers, waves)
        if config.text_time is None:
            return embedded
        added = self._embed_text_and_sizes(config.text_time)
        return layers.add(embedded, added, "time_embedding.sum")

    def _embed_text_and_sizes(self, embedding: TextTimeEmbedding) -> ir.Value:
        graph, layers = self._graph, self._layers
        text = graph.input("text_embeds", "float32", ["batch", embedding.text_width])
        time_ids = graph.input("time_ids", "float32", ["batch", NUM_TIME_IDS])
        waves = embedding.time_ids.emit(layers, time_ids, "add_time_proj")  # [B, 6, width]
        flat_waves = graph.constant("flat_waves", np.array([0, -1]))
        flat = graph.op("Reshape", [waves, flat_waves], "add_time_proj.flat")  # [B, 6 * width]
        both = graph.op("Concat", [text, flat], "add_embedding.input", axis=-1)
        assert self._structure.text_time_embedding is not None
        return self._structure.text_time_embedding.emit(layers, both)

    def _emit_down(
        self,
        block: Block,
        hidden: ir.Value,
        time: ir.Value,
        context: ir.Value,
        skips: list[ir.Value],
    ) -> ir.Value:
        """Every intermediate image is left on `skips` for the way up."""
        for index, resnet in enumerate(block.resnets):
            hidden = resnet.emit(self._layers, hidden, time)
            if block.transformers:
                hidden = block.transformers[index].emit(self._layers, hidden, context)
            skips.append(hidden)
        if block.downsample is not None:
            hidden = block.downsample.emit(self._layers, hidden)
            skips.append(hidden)
        return hidden

    def _emit_mid(
        self, block: Block, hidden: ir.Value, time: ir.Value, context: ir.Value
    ) -> ir.Value:
        first, *others = block.resnets
        hidden = first.emit(self._layers, hidden, time)
        for transformer, resnet in zip(block.transformers, others, strict=True):
            hidden = transformer.emit(self._layers, hidden, context)
            hidden = resnet.emit(self._layers, hidden, time)
        return hidden

    def _emit_up(
        self,
        block: Block,
        hidden: ir.Value,
        time: ir.Value,
        context: ir.Value,
        skips: list[ir.Value],
    ) -> ir.Value:
        for index, resnet in enumerate(block.resnets):
            joined = self._graph.op(
                "Concat", [hidden, skips.pop()], f"{resnet.name}.joined", axis=1
            )
            hidden = resnet.emit(self._layers, joined, time)
            if block.transformers:
                hidden = block.transformers[index].emit(self._layers, hidden, context)
        if block.upsample is not None:
            hidden = block.upsample.emit(self._layers, hidden, like=skips[-1])
        return hidden

    def _convolve_same(self, image: ir.Value, name: str, kernel: int) -> ir.Value:
        side = kernel // 2
        return self._layers.convolution(image, name, pads=(side, side, side, side))
