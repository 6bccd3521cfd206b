"""Compiled text encoders against transformers in fp32."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from export.diffusion.compile import plan_component
from export.diffusion.pipelines import PipelineGraph
from export.tensor_files import open_tensor_files
from tests.export.diffusion.graphs import (
    assert_close,
    compile_graph,
    compile_module,
    row_differences,
    save_component,
)
from tests.export.diffusion.tiny_pipelines import (
    EOS_TOKEN_ID,
    TEXT_ENCODER,
    V2_TEXT_ENCODER,
    XL_TEXT_ENCODER_2,
    randomize,
)

SHAPES = [(1, 77), (3, 20)]


def make_encoder(model_class=CLIPTextModel, **config):
    return randomize(model_class(CLIPTextConfig(**config)))


def random_ids(batch, num_tokens):
    """Texts of different lengths, each ended and then padded by the token that ends it."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, EOS_TOKEN_ID - 1, (batch, num_tokens), generator=generator)
    for row in range(batch):
        ids[row, num_tokens // 2 - 3 * row :] = EOS_TOKEN_ID
    return ids


def reference(encoder, input_ids):
    with torch.inference_mode():
        return encoder(input_ids, output_hidden_states=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("config", [TEXT_ENCODER, V2_TEXT_ENCODER], ids=["quick_gelu", "gelu"])
def test_the_last_hidden_state_equals_transformers(tmp_path, config, shape):
    encoder, ids = make_encoder(**config), random_ids(*shape)
    found = compile_module(encoder, tmp_path, "text_encoder").run(input_ids=ids)
    assert list(found) == ["hidden_states"]
    assert_close(found["hidden_states"], reference(encoder, ids).last_hidden_state)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_penultimate_hidden_state_is_what_the_last_layer_reads(tmp_path, shape):
    encoder, ids = make_encoder(**TEXT_ENCODER), random_ids(*shape)
    graph = compile_module(encoder, tmp_path, "text_encoder", hidden_state="penultimate")
    found = graph.run(input_ids=ids)["hidden_states"]
    assert_close(found, reference(encoder, ids).hidden_states[-2])


def test_a_last_layer_that_nobody_reads_is_not_compiled(tmp_path):
    encoder = make_encoder(**TEXT_ENCODER)
    sizes = []
    for hidden_state in ("last", "penultimate"):
        folder = tmp_path / hidden_state
        compile_module(encoder, folder, "text_encoder", hidden_state=hidden_state)
        sizes.append((folder / "text_encoder.onnx.data").stat().st_size)
    last_layer = sum(p.numel() for p in encoder.encoder.layers[-1].parameters()) * 4
    assert sizes[0] - sizes[1] >= last_layer


@pytest.mark.parametrize("eos_token_id", [EOS_TOKEN_ID, 2], ids=["first eos", "highest id"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_pooled_text_and_both_layers_equal_transformers(tmp_path, shape, eos_token_id):
    config = XL_TEXT_ENCODER_2 | {"eos_token_id": eos_token_id}
    encoder, ids = make_encoder(CLIPTextModelWithProjection, **config), random_ids(*shape)
    expected = reference(encoder, ids)
    for hidden_state, layer in (
        ("penultimate", expected.hidden_states[-2]),
        ("last", expected.last_hidden_state),
    ):
        folder = tmp_path / hidden_state
        graph = compile_module(encoder, folder, "text_encoder", hidden_state=hidden_state)
        found = graph.run(input_ids=ids)
        assert_close(found["hidden_states"], layer)
        assert_close(found["text_embeds"], expected.text_embeds)
    if shape[0] > 1:
        assert row_differences(found["text_embeds"]) > 0.1


def test_an_eos_that_is_not_the_highest_id_is_found(tmp_path):
    eos = 40
    config = XL_TEXT_ENCODER_2 | {"eos_token_id": eos}
    encoder = make_encoder(CLIPTextModelWithProjection, **config)
    ids = torch.tensor([[298, 90, 80, eos, 299, eos], [298, 70, eos, 299, 299, 60]])
    found = compile_module(encoder, tmp_path, "text_encoder").run(input_ids=ids)["text_embeds"]
    assert_close(found, reference(encoder, ids).text_embeds)
    highest = make_encoder(CLIPTextModelWithProjection, **config | {"eos_token_id": 2})
    assert (found - reference(highest, ids).text_embeds).abs().max() > 0.1


def test_names_with_the_prefix_of_most_checkpoints_give_the_same_rows(tmp_path):
    encoder, ids = make_encoder(**TEXT_ENCODER), random_ids(2, 20)
    component = save_component(encoder, tmp_path, "text_encoder")
    path = tmp_path / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{name}": value for name, value in load_file(path).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, path)
    component = dataclasses.replace(component, tensors=open_tensor_files(path.parent))
    graph = PipelineGraph(name="text_encoder", component="text_encoder", kind="text_encoder")
    found = compile_graph(plan_component(graph, component), tmp_path).run(input_ids=ids)
    assert_close(found["hidden_states"], reference(encoder, ids).last_hidden_state)


def test_a_token_does_not_see_those_behind_it(tmp_path):
    ids = random_ids(1, 20)
    graph = compile_module(make_encoder(**TEXT_ENCODER), tmp_path, "text_encoder")
    whole = graph.run(input_ids=ids)["hidden_states"]
    start = graph.run(input_ids=ids[:, :8])["hidden_states"]
    assert (whole[:, :8] - start).abs().max() < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_norm_eps": 1e-2},
        {"num_hidden_layers": 1},
        {"num_attention_heads": 1},
        {"intermediate_size": 40},
        {"max_position_embeddings": 20},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_setting_is_followed(tmp_path, changes):
    encoder, ids = make_encoder(**TEXT_ENCODER | changes), random_ids(2, 20)
    found = compile_module(encoder, tmp_path, "text_encoder").run(input_ids=ids)
    assert_close(found["hidden_states"], reference(encoder, ids).last_hidden_state)
