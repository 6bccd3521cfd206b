"""Qwen-Image's compiled transformer against diffusers in fp32."""

from __future__ import annotations

import onnx
import pytest
import torch

from export.precision import UniformPrecision
from tests.export.diffusion.graphs import assert_close, compile_module, random, row_differences
from tests.export.diffusion.qwen_image.tiny import make_transformer

SHAPES = [(1, 8, 8, 9), (3, 6, 14, 5), (2, 10, 6, 1)]  # batch, height, width, tokens of text
LATENT_CHANNELS = 4


def make_inputs(batch, height, width, num_tokens, lengths=None):
    lengths = torch.full((batch,), num_tokens) if lengths is None else torch.tensor(lengths)
    return {
        "sample": random(batch, LATENT_CHANNELS, height, width),
        "timestep": torch.tensor([999.3, 20.02, 500.0])[:batch],
        "encoder_hidden_states": random(batch, num_tokens, 32, seed=1),
        "context_lengths": lengths,
    }


def predicted(transformer, sample, timestep, encoder_hidden_states, context_lengths):
    """As the pipeline of diffusers does it: in packed latents, and in shares of the whole time."""
    batch, channels, height, width = sample.shape
    rows, columns = height // 2, width // 2
    patches = sample.view(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
    num_tokens = encoder_hidden_states.shape[1]
    mask = torch.arange(num_tokens)[None] < context_lengths[:, None]
    with torch.inference_mode():
        packed = transformer(
            hidden_states=patches.reshape(batch, rows * columns, channels * 4),
            timestep=timestep / 1000,
            encoder_hidden_states=encoder_hidden_states,
            encoder_hidden_states_mask=None if mask.all() else mask.long(),
            img_shapes=[[(1, rows, columns)]] * batch,
        ).sample
    patches = packed.view(batch, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(sample.shape)


@pytest.fixture(scope="module")
def transformer():
    return make_transformer()


@pytest.fixture(scope="module")
def graph(transformer, tmp_path_factory):
    return compile_module(transformer, tmp_path_factory.mktemp("graph"), "transformer")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_prediction_equals_diffusers_at_any_size_batch_and_text(graph, transformer, shape):
    inputs = make_inputs(*shape)
    found = graph.run(**inputs)["model_output"]
    assert_close(found, predicted(transformer, **inputs))
    if shape[0] > 1:
        assert row_differences(found) > 0.1


def test_padding_of_short_texts_is_not_seen(graph, transformer):
    lengths = [9, 2, 5]
    inputs = make_inputs(3, 8, 6, 9, lengths)
    found = graph.run(**inputs)["model_output"]
    assert_close(found, predicted(transformer, **inputs))
    for row, length in enumerate(lengths):
        alone = {name: value[row : row + 1] for name, value in inputs.items()}
        alone["encoder_hidden_states"] = alone["encoder_hidden_states"][:, :length]
        assert_close(graph.run(**alone)["model_output"], found[row : row + 1])
    inputs["encoder_hidden_states"][1, 2:] = 50.0
    again = graph.run(**inputs)["model_output"]
    assert (again - found).abs().max() < 1e-5
    seen = graph.run(**inputs | {"context_lengths": torch.tensor([9, 3, 5])})["model_output"]
    assert (seen[1] - found[1]).abs().max() > 1e-2


def test_many_texts_of_the_longest_length_stay_close(graph, transformer):
    inputs = make_inputs(1, 32, 24, 512)
    assert_close(graph.run(**inputs)["model_output"], predicted(transformer, **inputs), 2e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_layers": 1},
        {"num_attention_heads": 2, "attention_head_dim": 24, "axes_dims_rope": (8, 8, 8)},
        {"axes_dims_rope": (2, 6, 8)},
        {"joint_attention_dim": 32, "num_layers": 3},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_setting_is_followed(tmp_path, changes):
    transformer = make_transformer(**changes)
    inputs = make_inputs(2, 6, 8, 7, [7, 4])
    found = compile_module(transformer, tmp_path, "transformer").run(**inputs)["model_output"]
    assert_close(found, predicted(transformer, **inputs))


def test_int8_by_rows_stays_near_and_sees_no_other_row(transformer, tmp_path):
    inputs = make_inputs(2, 8, 6, 9, [9, 4])
    int8 = compile_module(transformer, tmp_path, "transformer", UniformPrecision("int8"))
    nodes = onnx.load(tmp_path / "transformer.onnx", load_external_data=False).graph.node
    assert "MatMulIntegerToFloat" in {node.op_type for node in nodes}
    found, expected = int8.run(**inputs)["model_output"], predicted(transformer, **inputs)
    error = (found - expected).norm() / expected.norm()
    assert 1e-4 < error < 0.05
    alone = {name: value[1:] for name, value in inputs.items()}
    alone["encoder_hidden_states"] = alone["encoder_hidden_states"][:, :4]
    assert_close(found[1:], int8.run(**alone)["model_output"], 1e-4)
