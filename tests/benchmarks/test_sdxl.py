"""The random checkpoint of Stable Diffusion XL: of the published size, and one that is compiled."""

from __future__ import annotations

import math

import pytest

from benchmarks.errors import BenchmarkFailed
from benchmarks.images.sdxl import CONFIGS, make_sdxl, tensor_shapes
from export.diffusion.checkpoint import open_diffusion_checkpoint
from export.diffusion.engine import plan_image_engine

TINY = {
    "text_encoder": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
    "text_encoder_2": {"hidden_size": 40, "intermediate_size": 64, "num_hidden_layers": 2},
    "unet": {
        "sample_size": 16,
        "block_out_channels": [32, 64, 64],
        "transformer_layers_per_block": [1, 1, 2],
        "attention_head_dim": [2, 4, 4],
        "cross_attention_dim": 72,
        "projection_class_embeddings_input_dim": 40 + 6 * 256,
    },
    "vae": {"block_out_channels": [32, 32, 32, 32], "sample_size": 128},
}
TEXT = {"vocab_size": 600, "bos_token_id": 598, "eos_token_id": 599, "num_attention_heads": 4}


def tiny_configs():
    configs = {name: CONFIGS[name] | changes for name, changes in TINY.items()}
    for name, width in (("text_encoder", 32), ("text_encoder_2", 40)):
        configs[name] |= TEXT | {"projection_dim": width}
    return configs


@pytest.mark.parametrize(
    ("component", "published"),
    [
        ("unet", 2_567_463_684),
        ("vae", 83_653_863),
        ("text_encoder", 123_060_480),
        ("text_encoder_2", 694_659_840),
    ],
)
def test_components_have_as_many_parameters_as_the_published_ones(component, published):
    shapes = tensor_shapes(component, CONFIGS[component])
    assert sum(math.prod(shape) for shape in shapes.values()) == published


def test_a_small_one_is_a_checkpoint_that_can_be_compiled(tmp_path):
    make_sdxl(tmp_path / "sdxl", tiny_configs())
    plan = plan_image_engine(open_diffusion_checkpoint(tmp_path / "sdxl", "sdxl"), "sdxl")
    assert plan.spec.pipeline == "stable-diffusion-xl"
    assert plan.spec.takes_sizes
    assert (plan.spec.default_height, plan.spec.latent_scale) == (128, 8)
    with pytest.raises(BenchmarkFailed, match="exists already"):
        make_sdxl(tmp_path / "sdxl", tiny_configs())
