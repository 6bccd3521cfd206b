"""The blocks of a UNet and their channels, from its config."""

from __future__ import annotations

from dataclasses import dataclass, replace

from export.diffusion.resnet import Downsample, Normalization, Resnet, Upsample
from export.diffusion.shapes import Shapes, convolution_shapes, linear_shapes, norm_shapes
from export.diffusion.timestep import TimestepEmbedding
from export.diffusion.transformer import SpatialTransformer
from export.diffusion.unet.config import UNetConfig

# How much of the finest level the shallow UNet runs: layers of the way down, and one more of the
# way up.
SHALLOW_LAYERS = 1


@dataclass(frozen=True, slots=True)
class Block:
    """Residual blocks, a transformer behind each of them or none, and a change of size or none.

    The middle is two residual blocks around one transformer.
    """

    resnets: tuple[Resnet, ...]
    transformers: tuple[SpatialTransformer, ...] = ()
    downsample: Downsample | None = None
    upsample: Upsample | None = None

    def tensors(self) -> Shapes:
        shapes: Shapes = {}
        for module in (*self.resnets, *self.transformers, self.downsample, self.upsample):
            if module is not None:
                shapes |= module.tensors()
        return shapes

    def split(self, num_layers: int) -> tuple[Block, Block]:
        """The first layers, and the others with the change of size."""
        first = Block(self.resnets[:num_layers], self.transformers[:num_layers])
        others = replace(
            self,
            resnets=self.resnets[num_layers:],
            transformers=self.transformers[num_layers:],
        )
        return first, others


@dataclass(frozen=True, slots=True)
class UNetStructure:
    """All blocks in the order in which they run."""

    time_embedding: TimestepEmbedding
    text_time_embedding: TimestepEmbedding | None
    down: tuple[Block, ...]
    mid: Block | None
    up: tuple[Block, ...]

    @property
    def shallow_down(self) -> Block:
        """What the shallow UNet runs of the way down."""
        return self.down[0].split(SHALLOW_LAYERS)[0]

    @property
    def deep_up(self) -> tuple[Block, ...]:
        """The way up as far as the deep features."""
        last = self.up[-1].split(self._num_deep_layers)[0]
        return self.up[:-1] + ((last,) if last.resnets else ())

    @property
    def shallow_up(self) -> Block:
        """The way up from the deep features on."""
        return self.up[-1].split(self._num_deep_layers)[1]

    @property
    def _num_deep_layers(self) -> int:
        """Each layer of the way up takes what one of the way down left, and the last the first."""
        return len(self.up[-1].resnets) - SHALLOW_LAYERS - 1


def build_structure(config: UNetConfig) -> UNetStructure:
    """Work out the channels of every block."""
    builder = _BlockBuilder(config)
    levels = range(len(config.block_out_channels))
    return UNetStructure(
        time_embedding=TimestepEmbedding(
            "time_embedding", config.time.width, config.time_embed_dim
        ),
        text_time_embedding=None
        if config.text_time is None
        else TimestepEmbedding("add_embedding", config.text_time.width, config.time_embed_dim),
        down=tuple(builder.down(level) for level in levels),
        mid=builder.mid() if config.has_mid_block else None,
        up=tuple(builder.up(level) for level in reversed(levels)),
    )


def expected_tensors(config: UNetConfig) -> Shapes:
    """Every tensor of the checkpoint that the graph reads."""
    structure, width = build_structure(config), config.block_out_channels[0]
    shapes = structure.time_embedding.tensors()
    if structure.text_time_embedding is not None:
        shapes |= structure.text_time_embedding.tensors()
    if config.guidance_width is not None:
        shapes |= linear_shapes(
            "time_embedding.cond_proj", config.guidance_width, config.time.width, bias=False
        )
    shapes |= convolution_shapes("conv_in", config.in_channels, width, config.conv_in_kernel)
    for block in (*structure.down, structure.mid, *structure.up):
        if block is not None:
            shapes |= block.tensors()
    shapes |= norm_shapes("conv_norm_out", width)
    return shapes | convolution_shapes(
        "conv_out", width, config.out_channels, config.conv_out_kernel
    )


class _BlockBuilder:
    """Builds the blocks of one config; a level is an index into `block_out_channels`."""

    def __init__(self, config: UNetConfig) -> None:
        self._config = config
        self._norm = Normalization(config.norm_num_groups, config.norm_eps)

    def down(self, level: int) -> Block:
        config, name = self._config, f"down_blocks.{level}"
        channels = config.block_out_channels[level]
        num_in = config.block_out_channels[max(level - 1, 0)]
        num_layers = config.layers_per_block[level]
        is_last = level == len(config.block_out_channels) - 1
        return Block(
            resnets=tuple(
                self._resnet(name, layer, num_in if layer == 0 else channels, channels)
                for layer in range(num_layers)
            ),
            transformers=self._transformers(name, level, config.down_depths[level]),
            downsample=None
            if is_last
            else Downsample(f"{name}.downsamplers.0", channels, config.downsample_padding),
        )

    def mid(self) -> Block:
        config, name = self._config, "mid_block"
        level = len(config.block_out_channels) - 1
        channels = config.block_out_channels[level]
        depths = None if config.mid_depth is None else (config.mid_depth,)
        num_resnets = 1 if depths is None else 2
        return Block(
            resnets=tuple(
                self._resnet(name, layer, channels, channels) for layer in range(num_resnets)
            ),
            transformers=self._transformers(name, level, depths),
        )

    def up(self, level: int) -> Block:
        """The way up counts its blocks from the coarsest level."""
        config = self._config
        deepest = len(config.block_out_channels) - 1
        name = f"up_blocks.{deepest - level}"
        channels = config.block_out_channels[level]
        from_below = config.block_out_channels[min(level + 1, deepest)]
        skips = self._skip_channels(level)
        return Block(
            resnets=tuple(
                self._resnet(name, layer, (from_below if layer == 0 else channels) + skip, channels)
                for layer, skip in enumerate(skips)
            ),
            transformers=self._transformers(name, level, config.up_depths[level]),
            upsample=None if level == 0 else Upsample(f"{name}.upsamplers.0", channels),
        )

    def _skip_channels(self, level: int) -> list[int]:
        """What the way down left at a level, last in, first out."""
        config = self._config
        channels = config.block_out_channels[level]
        came_in = config.block_out_channels[max(level - 1, 0)]
        return [channels] * config.layers_per_block[level] + [came_in]

    def _resnet(self, block: str, layer: int, num_in: int, num_out: int) -> Resnet:
        name = f"{block}.resnets.{layer}"
        return Resnet(name, num_in, num_out, self._config.time_embed_dim, self._norm)

    def _transformers(
        self, block: str, level: int, depths: tuple[int, ...] | None
    ) -> tuple[SpatialTransformer, ...]:
        config = self._config
        return tuple(
            SpatialTransformer(
                name=f"{block}.attentions.{index}",
                channels=config.block_out_channels[level],
                context_width=config.cross_attention_dim,
                num_heads=config.num_heads[level],
                depth=depth,
                num_groups=config.norm_num_groups,
                uses_linear_projection=config.uses_linear_projection,
            )
            for index, depth in enumerate(depths or ())
        )
