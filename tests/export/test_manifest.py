"""What the compiler writes about an engine, and that its files are what it says."""

from __future__ import annotations

import hashlib
import json

import onnx_ir as ir
import pytest

from engines.manifest import read_manifest
from export.checkpoint import open_checkpoint
from tests.checkpoints import edit_json


def test_every_file_is_listed_with_its_size_and_hash(compiled, checkpoint):
    folder = compiled(checkpoint("qwen3"), precision="int8").folder
    manifest = read_manifest(folder)
    assert set(manifest.files) == {path.name for path in folder.iterdir()} - {"engine.json"}
    for name, entry in manifest.files.items():
        content = (folder / name).read_bytes()
        assert entry.size == len(content)
        assert entry.sha256 == hashlib.sha256(content).hexdigest()


def test_the_graph_has_the_inputs_and_outputs_of_the_contract(compiled, checkpoint):
    folder = compiled(checkpoint("qwen3"), precision="int8", max_context=100).folder
    graph = ir.load(folder / "model.onnx").graph
    cache = ("FLOAT", ["n", 2, "rows", 32])
    states = [f"past_key_values.{layer}.{kind}" for layer in (0, 1) for kind in ("key", "value")]
    expected = {
        "input_ids": ("INT64", ["n", "S"]),
        "seqlens_k": ("INT32", ["n"]),
        "total_sequence_length": ("INT32", []),
        "logit_indices": ("INT64", ["R"]),
    } | dict.fromkeys(states, cache)
    assert {value.name: describe(value) for value in graph.inputs} == expected
    outputs = [state.replace("past_key_values", "present") for state in states]
    assert {value.name: describe(value) for value in graph.outputs} == {
        "logits": ("FLOAT", ["R", 512]),
        "block_maxima": ("FLOAT", ["R", 4]),
    } | dict.fromkeys(outputs, cache)


def describe(value):
    sizes = [size if isinstance(size, int) else size.value for size in value.shape]
    return value.dtype.name, sizes


def test_the_states_and_limits_are_those_of_the_graph(compiled, checkpoint):
    chat = read_manifest(compiled(checkpoint("qwen3"), max_context=100).folder).chat
    assert (chat.max_context, chat.spare_rows, chat.graph) == (100, 1, "model.onnx")
    assert [state.input for state in chat.states][:2] == [
        "past_key_values.0.key",
        "past_key_values.0.value",
    ]
    assert {(state.heads, state.width, state.dtype) for state in chat.states} == {
        (2, 32, "float32")
    }


def test_large_weights_start_at_a_page(compiled, checkpoint):
    folder = compiled(checkpoint("qwen3"), precision="int4").folder
    initializers = ir.load(folder / "model.onnx").graph.initializers.values()
    external = [v.const_value for v in initializers if isinstance(v.const_value, ir.ExternalTensor)]
    assert len(external) > 20
    for tensor in external:
        assert tensor.offset % (4096 if tensor.length >= 4096 else 64) == 0
        assert tensor.location == "model.onnx.data"


def test_the_graph_file_names_no_folder_of_this_machine(compiled, checkpoint):
    engine = compiled(checkpoint("qwen3"), precision="int8")
    content = (engine.folder / "model.onnx").read_bytes()
    for folder in (engine.folder, engine.checkpoint):
        assert str(folder.parent).encode() not in content


def test_parameters_are_counted_once_where_embeddings_are_tied(compiled, checkpoint):
    tied = read_manifest(compiled(checkpoint("qwen2.5")).folder).chat.num_parameters
    untied = checkpoint("qwen2.5", tie_word_embeddings=False)
    assert read_manifest(compiled(untied).folder).chat.num_parameters == tied + 512 * 64


def test_the_source_hash_follows_the_weights_and_not_the_config(own_checkpoint):
    folder = own_checkpoint("qwen2.5")

    def source_hash():
        done = []
        digest = open_checkpoint(folder, "x").tensors.sha256(done.append)
        assert sum(done) == (folder / "model.safetensors").stat().st_size
        return digest

    first = source_hash()
    edit_json(folder / "config.json", extra=1)
    assert source_hash() == first
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert source_hash() != first


@pytest.mark.parametrize("window", [64, 100])
def test_a_context_within_the_sliding_window_is_compiled(compiled, own_checkpoint, window):
    settings = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 1}
    folder = own_checkpoint(config=settings | {"layer_types": None})
    assert read_manifest(compiled(folder, max_context=64).folder).chat.max_context == 64


def test_a_window_that_no_layer_uses_is_ignored(compiled, own_checkpoint):
    settings = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2}
    folder = own_checkpoint(config=settings | {"layer_types": None})
    assert read_manifest(compiled(folder).folder).chat.max_context == 256


def test_yarn_lengthens_the_context_where_the_config_kept_the_old_length(compiled, own_checkpoint):
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    folder = own_checkpoint(config={"rope_parameters": yarn})
    assert read_manifest(compiled(folder).folder).chat.max_context == 1024


def test_a_new_file_in_the_engine_is_not_executable(compiled, checkpoint):
    folder = compiled(checkpoint("qwen2")).folder
    assert not any(path.stat().st_mode & 0o111 for path in folder.iterdir())
    assert json.loads((folder / "engine.json").read_text())["format_version"] == 1
