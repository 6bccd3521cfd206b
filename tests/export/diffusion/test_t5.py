"""Compiled T5 encoders against transformers in fp32."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

from export.diffusion.t5.config import read_t5_config, t5_tensors
from export.diffusion.t5.positions import bucket_distances
from export.errors import CheckpointError
from tests.export.diffusion.graphs import (
    assert_close,
    compile_module,
    compile_opened,
    open_component,
    row_differences,
    save_component,
)
from tests.export.diffusion.tiny_pipelines import T5, make_t5

XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}


def make_encoder(**changes) -> T5EncoderModel:
    return make_t5(**changes)


def random_ids(*shape):
    return torch.randint(0, T5["vocab_size"], shape, generator=torch.Generator().manual_seed(0))


def reference(encoder, input_ids):
    with torch.inference_mode():
        return encoder(input_ids).last_hidden_state


@pytest.mark.parametrize("shape", [(1, 7), (3, 40)])
@pytest.mark.parametrize("feed_forward", ["gated-gelu", "relu"])
def test_the_rows_equal_transformers(tmp_path, feed_forward, shape):
    encoder, ids = make_encoder(feed_forward_proj=feed_forward), random_ids(*shape)
    found = compile_module(encoder, tmp_path, "text_encoder").run(input_ids=ids)
    assert list(found) == ["hidden_states"]
    assert_close(found["hidden_states"], reference(encoder, ids))


def test_tokens_further_apart_than_all_buckets_are_seen_as_in_transformers(tmp_path):
    encoder, ids = make_encoder(relative_attention_max_distance=16), random_ids(1, 60)
    found = compile_module(encoder, tmp_path, "text_encoder").run(input_ids=ids)
    assert_close(found["hidden_states"], reference(encoder, ids))


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 16), (64, 1000)])
def test_every_distance_is_in_the_bucket_of_transformers(num_buckets, max_distance):
    distances = torch.arange(-max_distance, max_distance + 1)
    expected = T5Attention._relative_position_bucket(
        distances, num_buckets=num_buckets, max_distance=max_distance
    )
    assert bucket_distances(num_buckets, max_distance).tolist() == expected.tolist()


def test_the_embedding_may_be_stored_under_either_name(tmp_path):
    encoder, ids = make_encoder(), random_ids(2, 9)
    save_component(encoder, tmp_path, "text_encoder")
    path = tmp_path / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    assert not {"shared.weight", "encoder.embed_tokens.weight"} <= tensors.keys()
    found = []
    for name in ("shared.weight", "encoder.embed_tokens.weight"):
        embedding = tensors.pop(next(key for key in tensors if len(tensors[key]) == 300))
        tensors[name] = embedding
        save_file(tensors, path)
        component = open_component(tmp_path, "text_encoder", "T5EncoderModel")
        graph = compile_opened(component, tmp_path, "text_encoder")
        found.append(graph.run(input_ids=ids)["hidden_states"])
    assert torch.equal(*found)


def test_texts_do_not_see_each_other(tmp_path):
    encoder, ids = make_encoder(), random_ids(3, 12)
    graph = compile_module(encoder, tmp_path, "text_encoder")
    together = graph.run(input_ids=ids)["hidden_states"]
    alone = torch.cat([graph.run(input_ids=row[None])["hidden_states"] for row in ids])
    assert_close(together, alone)
    assert row_differences(together) > 0.1


def test_a_true_encoder_has_exactly_the_tensors_that_the_graph_reads():
    with torch.device("meta"):
        encoder = T5EncoderModel(T5Config(**XXL))
    shapes = t5_tensors(read_t5_config("text_encoder_3/config.json", XXL))
    expected = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    assert expected.pop("encoder.embed_tokens.weight") == expected["shared.weight"]
    assert shapes == expected


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"feed_forward_proj": "gated-silu"}, 'feed_forward_proj = "gated-silu", but only'),
        ({"relative_attention_num_buckets": 6}, "relative_attention_num_buckets = 6, but it must"),
        ({"relative_attention_max_distance": 8}, "relative_attention_max_distance = 8, but it"),
        ({"d_kv": 0}, "d_kv = 0, which is not an integer of 1 or more"),
    ],
)
def test_an_encoder_that_is_not_supported_is_told_why(changes, sentence):
    with pytest.raises(CheckpointError) as caught:
        read_t5_config("text_encoder_2/config.json", json.loads(json.dumps(T5 | changes)))
    assert str(caught.value).startswith(f"text_encoder_2/config.json has {sentence}")
