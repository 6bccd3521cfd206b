"""SD3's transformer: noisy latents, a time for each of them and a prompt in, the flow out.

Inputs: `sample` float32 [B, in_channels, H, W], H and W multiples of the patch size and at most
what the table of positions holds; `timestep` float32 [B], 0 to 1000; `encoder_hidden_states`
float32 [B, T, joint_attention_dim]; `text_embeds` float32 [B, pooled_projection_dim].
Output: `model_output` float32 [B, out_channels, H, W]. Rows do not see each other.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.diffusion.dit.modulation import final_norm
from export.diffusion.dit.patches import Grid, join_patches, split_patches
from export.diffusion.layers import Advance, LayerEmitter
from export.diffusion.sd3.config import PATCHES, SD3Config
from export.diffusion.sd3.tensors import read_positions
from export.graph import GraphBuilder
from export.precision import LayoutChooser
from export.safetensors_file import FloatArray
from export.tensor_files import TensorFiles


def num_parts(config: SD3Config) -> int:
    """How often an emission advances."""
    return config.num_layers + 1


def emit_sd3_transformer(
    config: SD3Config,
    tensors: TensorFiles,
    graph: GraphBuilder,
    precision: LayoutChooser,
    advance: Advance,
) -> None:
    """Emit everything; `advance` is told each part that is done.

    Args:
        config: The transformer's shape.
        tensors: What `open_sd3_tensors` returned.
        graph: Takes nodes and weights.
        precision: The layout of each node.
        advance: See above.

    Raises:
        CheckpointError: The table of positions is not one of sines.
    """
    layers = LayerEmitter(graph, tensors, precision)
    sample = graph.input("sample", "float32", ["batch", config.in_channels, "height", "width"])
    timestep = graph.input("timestep", "float32", ["batch"])
    context = graph.input(
        "encoder_hidden_states", "float32", ["batch", "num_tokens", config.context_dim]
    )
    pooled = graph.input("text_embeds", "float32", ["batch", config.pooled_dim])
    time = config.embedding.emit(layers, timestep, pooled, None)
    size = config.patch_size
    patches, grid = split_patches(layers, sample, config.in_channels, size)
    places = _emit_positions(layers, grid, *read_positions(config, tensors))
    image = layers.add(layers.linear(patches, PATCHES), places, "pos_embed")
    text = layers.linear(context, "context_embedder")
    for number, block in enumerate(config.blocks):
        image, text = block.emit(layers, image, text, time)
        advance(f"block {number + 1} of {config.num_layers}")
    rows = layers.linear(final_norm(layers, image, time, "norm_out"), "proj_out")
    output = join_patches(layers, rows, grid, config.out_channels, size, channels_last=True)
    shape: list[int | str] = ["batch", config.out_channels, "height", "width"]
    graph.output(output, "model_output", "float32", shape)
    advance("output")


def _emit_positions(
    layers: LayerEmitter, grid: Grid, columns: FloatArray, rows: FloatArray
) -> ir.Value:
    """The middle of the table, as large as the image: [h * w, width]."""
    graph, half = layers.graph, columns.shape[1]
    of_columns = _middle(layers, columns, grid.width, "columns")  # [w, half]
    of_rows = _middle(layers, rows, grid.height, "rows")  # [h, half]
    tail = graph.constant("positions.half", np.array([half]))
    size = graph.op("Concat", [grid.height, grid.width, tail], "positions.size", axis=0)
    column_axis = graph.constant("positions.column_axis", np.array([1]))
    upright = graph.op("Unsqueeze", [of_rows, column_axis], "positions.upright")  # [h, 1, half]
    spread = [
        graph.op("Expand", [table, size], f"positions.spread_{index}")
        for index, table in enumerate((of_columns, upright))
    ]
    both = graph.op("Concat", list(spread), "positions.both", axis=-1)
    flat = graph.constant("positions.flat", np.array([-1, 2 * half]))
    return graph.op("Reshape", [both, flat], "positions")


def _middle(layers: LayerEmitter, table: FloatArray, count: ir.Value, name: str) -> ir.Value:
    """`count` [1] entries from the middle of a table, rounded towards its start."""
    graph = layers.graph
    longest = graph.constant("positions.longest", np.array([len(table)]))
    two = graph.constant("positions.two", np.array([2]))
    spare = graph.op("Sub", [longest, count], f"positions.{name}.spare")
    start = graph.op("Div", [spare, two], f"positions.{name}.start")
    stop = graph.op("Add", [start, count], f"positions.{name}.stop")
    value = graph.weight(f"pos_embed.{name}", table)
    return graph.op("Slice", [value, start, stop], f"positions.{name}")
