"""The denoiser's graph: text and picture are two streams of tokens that attend to each other.

Inputs: `sample` float32 [B, C, h, w] with even h and w, `timestep` float32 [B] of 0 to 1000,
`encoder_hidden_states` float32 [B, T, context_width] and `context_lengths` int64 [B], the tokens of
each text; what is behind them is padding that no token attends to.
Output: `model_output` float32 [B, C, h, w].
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.diffusion.dit.modulation import final_norm
from export.diffusion.dit.patches import join_patches, split_patches
from export.diffusion.layers import Advance, LayerEmitter
from export.diffusion.qwen_image.positions import LayoutEmitter
from export.diffusion.qwen_image.rms_norm import rms_norm
from export.diffusion.qwen_image.transformer_config import (
    NUM_TRAIN_TIMESTEPS,
    PATCH_SIZE,
    TIME_WAVES,
    QwenTransformerConfig,
)
from export.graph import GraphBuilder, scalar
from export.precision import LayoutChooser
from export.tensor_files import TensorFiles


def num_parts(config: QwenTransformerConfig) -> int:
    """How often the emission advances."""
    return config.num_layers + 2


def emit_qwen_transformer(
    config: QwenTransformerConfig,
    tensors: TensorFiles,
    graph: GraphBuilder,
    precision: LayoutChooser,
    advance: Advance,
) -> None:
    """Emit everything; `advance` is told each part that is done.

    Args:
        config: The transformer's shape.
        tensors: What `open_qwen_transformer_tensors` returned.
        graph: Takes nodes and weights.
        precision: The layout of each node.
        advance: See above.
    """
    QwenTransformerEmitter(config, graph, LayerEmitter(graph, tensors, precision)).emit(advance)


class QwenTransformerEmitter:
    """Emits a transformer into a graph, block by block."""

    def __init__(
        self, config: QwenTransformerConfig, graph: GraphBuilder, layers: LayerEmitter
    ) -> None:
        self._config = config
        self._graph = graph
        self._layers = layers

    def emit(self, advance: Advance) -> None:
        graph, config, layers = self._graph, self._config, self._layers
        shape: list[int | str] = ["batch", config.latent_channels, "height", "width"]
        sample = graph.input("sample", "float32", shape)
        timestep = graph.input("timestep", "float32", ["batch"])
        context = graph.input(
            "encoder_hidden_states", "float32", ["batch", "num_tokens", config.context_width]
        )
        lengths = graph.input("context_lengths", "int64", ["batch"])
        patches, grid = split_patches(layers, sample, config.latent_channels, PATCH_SIZE)
        emitter = LayoutEmitter(config.heads, config.axes_dims, graph)
        layout = emitter.emit(grid, context, lengths)
        time = self._embed_time(timestep)
        image = layers.linear(patches, "img_in")  # [B, h * w / 4, width]
        text = layers.linear(rms_norm(layers, context, "txt_norm"), "txt_in")  # [B, T, width]
        advance("embeddings")
        for block in config.blocks:
            image, text = block.emit(layers, image, text, time, layout)
            advance(block.name)
        rows = layers.linear(final_norm(layers, image, time, "norm_out"), "proj_out")
        output = join_patches(layers, rows, grid, config.latent_channels, PATCH_SIZE)
        graph.output(output, "model_output", "float32", shape)
        advance("output")

    def _embed_time(self, timestep: ir.Value) -> ir.Value:
        """[B] -> [B, 1, width], active: every reader of the time activates it."""
        graph, layers = self._graph, self._layers
        whole = graph.constant("num_train_timesteps", scalar(NUM_TRAIN_TIMESTEPS, np.float32))
        share = graph.op("Div", [timestep, whole], "timestep.share")
        waves = TIME_WAVES.emit(layers, share, "timestep.waves")
        active = layers.silu(self._config.time_embedding.emit(layers, waves))
        over_tokens = graph.constant("over_tokens", np.array([1]))
        return graph.op("Unsqueeze", [active, over_tokens], "time")
