"""Qwen-Image's compiled text encoder against transformers in fp32."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from export.diffusion.compile import plan_component
from export.diffusion.pipelines import PipelineGraph
from export.errors import CheckpointError
from export.tensor_files import open_tensor_files
from tests.export.diffusion.graphs import (
    assert_close,
    compile_graph,
    compile_module,
    save_component,
)
from tests.export.diffusion.qwen_image.tiny import TEXT_ENCODER, make_text_encoder

SHAPES = [(1, 40), (2, 61)]
NUM_DROPPED = 34
PLACE = PipelineGraph(name="text_encoder", component="text_encoder", kind="text_encoder")


def random_ids(batch, num_tokens):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, TEXT_ENCODER["vocab_size"], (batch, num_tokens), generator=generator)


def reference(encoder, input_ids):
    """As the pipeline of diffusers does it."""
    with torch.inference_mode():
        found = encoder(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            output_hidden_states=True,
        )
    return found.hidden_states[-1][:, NUM_DROPPED:]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_rows_behind_the_template_equal_transformers(tmp_path, shape):
    encoder, ids = make_text_encoder(), random_ids(*shape)
    graph = compile_module(encoder, tmp_path, "text_encoder")
    assert list(graph.outputs) == ["hidden_states"]
    assert_close(graph.run(input_ids=ids)["hidden_states"], reference(encoder, ids))


def test_the_longest_text_that_the_pipeline_takes_fits(tmp_path):
    encoder, ids = make_text_encoder(), random_ids(1, NUM_DROPPED + 512)
    found = compile_module(encoder, tmp_path, "text_encoder").run(input_ids=ids)
    assert_close(found["hidden_states"], reference(encoder, ids), 2e-5)


def test_a_text_is_not_changed_by_padding_behind_it(tmp_path):
    encoder, ids = make_text_encoder(), random_ids(1, 50)
    graph = compile_module(encoder, tmp_path, "text_encoder")
    padded = torch.nn.functional.pad(ids, (0, 9))
    found = graph.run(input_ids=padded)["hidden_states"][:, : 50 - NUM_DROPPED]
    assert_close(found, reference(encoder, ids))


def test_neither_the_head_nor_what_sees_pictures_is_compiled(tmp_path):
    encoder = make_text_encoder()
    compile_module(encoder, tmp_path, "text_encoder")
    needed = sum(p.numel() for p in encoder.model.language_model.parameters()) * 4
    written = (tmp_path / "text_encoder.onnx.data").stat().st_size
    rope = 2 * 4 * (NUM_DROPPED + 512) * 8
    assert needed <= written < needed + rope + 64 * 1024
    assert sum(p.numel() for p in encoder.model.visual.parameters()) * 4 > 64 * 1024


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model."])
def test_newer_names_of_tensors_give_the_same_rows(tmp_path, prefix):
    encoder, ids = make_text_encoder(), random_ids(1, 40)
    component = save_component(encoder, tmp_path, "text_encoder")
    path = tmp_path / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    renamed = {
        f"{prefix}{name.removeprefix('model.')}" if name.startswith("model.") else name: value
        for name, value in tensors.items()
    }
    assert renamed.keys() != tensors.keys()
    save_file(renamed, path)
    component = dataclasses.replace(component, tensors=open_tensor_files(path.parent))
    found = compile_graph(plan_component(PLACE, component), tmp_path).run(input_ids=ids)
    assert_close(found["hidden_states"], reference(encoder, ids))


def test_a_config_that_is_not_nested_is_read_too(tmp_path):
    encoder, ids = make_text_encoder(), random_ids(1, 40)
    component = save_component(encoder, tmp_path, "text_encoder")
    nested = component.config
    flat = {k: v for k, v in nested["text_config"].items() if k != "rope_parameters"}
    flat |= {k: v for k, v in nested.items() if k != "text_config"}
    flat |= {
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }
    assert json.loads(json.dumps(flat)) == flat
    component = dataclasses.replace(component, config=flat)
    found = compile_graph(plan_component(PLACE, component), tmp_path).run(input_ids=ids)
    assert_close(found["hidden_states"], reference(encoder, ids))


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3], "rope_theta": 100.0}},
        {"num_key_value_heads": 2},
        {"rms_norm_eps": 1e-2},
        {"tie_word_embeddings": True},
        {"num_hidden_layers": 1, "intermediate_size": 40},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_setting_is_followed(tmp_path, changes):
    encoder, ids = make_text_encoder(**changes), random_ids(1, 45)
    found = compile_module(encoder, tmp_path, "text_encoder").run(input_ids=ids)
    assert_close(found["hidden_states"], reference(encoder, ids))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu', but only silu is supported"),
        ({"num_attention_heads": 3}, "3 attention heads"),
        ({"hidden_size": None}, "field of the wrong type"),
    ],
)
def test_what_cannot_be_compiled_is_named(tmp_path, change, sentence):
    component = save_component(make_text_encoder(), tmp_path, "text_encoder")
    nested = component.config["text_config"] | {"num_key_value_heads": 2} | change
    config = component.config | {"text_config": nested}
    with pytest.raises(CheckpointError, match=sentence) as caught:
        plan_component(PLACE, dataclasses.replace(component, config=config))
    assert str(caught.value).startswith("text_encoder/config.json has ")
