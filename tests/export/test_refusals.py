"""Checkpoints and options that cannot be compiled: one sentence each, and nothing is written."""

from __future__ import annotations

import json
import shutil
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from engines.errors import EngineryError
from export.command import export_engine
from export.config import ExportConfig
from export.report import QuietProgress
from tests.checkpoints import edit_json


@pytest.fixture
def refusal(tmp_path):
    """`refusal(folder, **options)`: the sentence, after a check that nothing was written."""

    def export(folder, **options) -> str:
        output = tmp_path / "out" / "engines"
        settings = {"checkpoint_path": str(folder), "output": output, "verify": False} | options
        with pytest.raises((EngineryError, ValueError)) as caught:
            export_engine(ExportConfig(**settings), QuietProgress())
        assert not (tmp_path / "out").exists()
        sentence = str(caught.value)
        assert "\n" not in sentence
        return sentence

    return export


def test_a_folder_that_is_not_there(refusal, tmp_path):
    assert "there is no folder" in refusal(tmp_path / "absent")


def test_a_folder_that_is_not_a_checkpoint(refusal, tmp_path):
    assert "is not a checkpoint: it holds no config.json" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '"text"'])
def test_a_config_that_is_not_json(refusal, own_checkpoint, content):
    folder = own_checkpoint()
    (folder / "config.json").write_text(content)
    assert "config.json" in refusal(folder)


@pytest.mark.parametrize(
    "architectures", [["LlamaForCausalLM"], ["Qwen2AudioForConditionalGeneration"], [], None]
)
def test_an_unsupported_architecture_names_the_supported_ones(
    refusal, own_checkpoint, architectures
):
    sentence = refusal(own_checkpoint(config={"architectures": architectures}))
    assert "only QWenLMHeadModel, Qwen2ForCausalLM, Qwen3ForCausalLM, " in sentence
    assert (architectures or ["none"])[0] in sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": None}, "has no field 'hidden_size'"),
        ({"hidden_size": "large"}, "field of the wrong type"),
        ({"num_hidden_layers": 0}, "num_layers = 0"),
        ({"num_attention_heads": 3}, "no multiple"),
        ({"head_dim": 24}, "only multiples of 16"),
        ({"hidden_act": "gelu"}, "only silu"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8}}, "only default and yarn"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": "x"}}, "no numbers"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "only whole heads"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "each kind of layer"),
        ({"quantization_config": {"quant_method": "aqlm"}}, "quantized by 'aqlm', but only gptq"),
    ],
)
def test_a_config_that_makes_no_sense_names_the_field(refusal, own_checkpoint, change, words):
    assert words in refusal(own_checkpoint(config=change))


SLIDING = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}


def test_a_sliding_window_shorter_than_the_context(refusal, own_checkpoint):
    folder = own_checkpoint(config=SLIDING | {"layer_types": None})
    assert "add --max-context 64 or less" in refusal(folder)


def test_no_weights_at_all(refusal, own_checkpoint):
    folder = own_checkpoint()
    (folder / "model.safetensors").unlink()
    assert "holds neither model.safetensors nor" in refusal(folder)


def test_pickled_weights(refusal, own_checkpoint):
    folder = own_checkpoint()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickled weights (pytorch_model.bin)" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 5, 100, -1, -5000])
def test_a_truncated_tensor_file(refusal, own_checkpoint, keep):
    path = own_checkpoint() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "is truncated" in refusal(path.parent)


def _header(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 64,
        _header(b"not json at all"),
        _header(b"[1, 2]"),
        _header(b'{"a": 3}'),
        _header(b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}') + b"1234",
        _header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}') + b"1234",
    ],
)
def test_a_file_that_is_not_safetensors(refusal, own_checkpoint, content):
    path = own_checkpoint() / "model.safetensors"
    path.write_bytes(content)
    assert "is not a safetensors file" in refusal(path.parent)


def _edit_tensors(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


DOWN = "model.layers.1.mlp.down_proj.weight"


def test_a_missing_tensor_is_named(refusal, own_checkpoint):
    folder = _edit_tensors(own_checkpoint(), lambda tensors: tensors.pop(DOWN))
    assert f"has no tensor '{DOWN}'" in refusal(folder)


def test_an_untied_head_that_is_missing(refusal, own_checkpoint):
    folder = own_checkpoint("qwen2.5", config={"tie_word_embeddings": False})
    assert "has no tensor 'lm_head.weight'" in refusal(folder)


def test_a_tensor_of_another_shape_is_named(refusal, own_checkpoint):
    def transpose(tensors):
        tensors[DOWN] = np.ascontiguousarray(tensors[DOWN].T)

    sentence = refusal(_edit_tensors(own_checkpoint(), transpose))
    assert f"'{DOWN}' in model.safetensors has the shape [96, 64]" in sentence
    assert "asks for [64, 96]" in sentence


def test_a_tensor_of_another_type_is_named(refusal, own_checkpoint):
    def to_int8(tensors):
        tensors[DOWN] = tensors[DOWN].astype(np.int8)

    assert f"'{DOWN}' in model.safetensors is stored as I8" in refusal(
        _edit_tensors(own_checkpoint(), to_int8)
    )


def test_a_tensor_with_nan_is_named_and_nothing_is_left(refusal, own_checkpoint):
    def poison(tensors):
        tensors[DOWN][3, 5] = np.nan

    assert f"'{DOWN}' in model.safetensors holds NaN" in refusal(
        _edit_tensors(own_checkpoint(), poison)
    )


def test_an_index_that_names_a_missing_shard(refusal, own_checkpoint):
    folder = own_checkpoint("qwen2", max_shard_size="100KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert f"names {shard.name}, which is not in" in refusal(folder)


def test_an_index_that_is_damaged(refusal, own_checkpoint):
    folder = own_checkpoint("qwen2", max_shard_size="100KB")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ["x"]}')
    assert "is not an index" in refusal(folder)


def test_an_index_that_leaves_its_folder(refusal, own_checkpoint):
    folder = own_checkpoint("qwen2", max_shard_size="100KB")
    edit_json(folder / "model.safetensors.index.json", weight_map={DOWN: "../x.safetensors"})
    assert "is not a file of its folder" in refusal(folder)


def test_an_index_that_promises_a_tensor_which_no_shard_holds(refusal, own_checkpoint):
    folder = own_checkpoint("qwen2", max_shard_size="100KB")
    path = folder / "model.safetensors.index.json"
    weight_map = json.loads(path.read_text())["weight_map"]
    edit_json(path, weight_map=weight_map | {"model.extra": weight_map[DOWN]})
    assert "holds 'model.extra', but no file does" in refusal(folder)


def test_a_missing_tokenizer(refusal, own_checkpoint):
    folder = own_checkpoint()
    (folder / "tokenizer.json").unlink()
    assert "holds no tokenizer.json" in refusal(folder)


def test_a_damaged_tokenizer(refusal, own_checkpoint):
    folder = own_checkpoint()
    (folder / "tokenizer.json").write_text('{"model": 3}')
    assert "tokenizer.json is not a tokenizer" in refusal(folder)


def test_a_tokenizer_with_ids_beyond_the_embedding(refusal, checkpoint):
    assert "but the embedding has only 300 rows" in refusal(checkpoint("qwen2.5", vocab_size=300))


@pytest.mark.parametrize("ids", ["end", [1, "end"], True, [9000]])
def test_end_tokens_that_are_no_token_ids(refusal, own_checkpoint, ids):
    folder = own_checkpoint()
    edit_json(folder / "generation_config.json", eos_token_id=ids)
    assert "eos_token_id" in refusal(folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_context": 257}, "more than the 256 positions"),
        ({"max_context": 1}, "has to be 2 at least"),
        ({"name": "../up"}, "name '../up' may hold"),
        ({"name": "a/b/c"}, "name 'a/b/c' may hold"),
        ({"override": ("heads=fp32",)}, "heads=fp32 matches no node"),
        ({"override": ("head",)}, "NODE=LAYOUT"),
        ({"revision": "main"}, "--revision main is for hub ids"),
    ],
)
def test_options_that_do_not_fit_name_the_option(refusal, checkpoint, options, words):
    assert words in refusal(checkpoint(), **options)


def test_a_folder_whose_name_is_no_engine_id(refusal, own_checkpoint):
    folder = own_checkpoint()
    renamed = folder.rename(folder.with_name("my model"))
    assert "name 'my model' may hold" in refusal(renamed)


def test_a_name_that_is_taken(checkpoint, tmp_path):
    config = ExportConfig(checkpoint_path=str(checkpoint()), output=tmp_path, verify=False)
    export_engine(config, QuietProgress())
    with pytest.raises(EngineryError, match="exists already: choose another --name, or add"):
        export_engine(config, QuietProgress())
    assert len(list(tmp_path.iterdir())) == 1


def test_force_replaces_an_engine_but_no_other_folder(checkpoint, tmp_path):
    config = ExportConfig(
        checkpoint_path=str(checkpoint()), output=tmp_path, verify=False, force=True, name="mine"
    )
    export_engine(config, QuietProgress())
    (tmp_path / "mine" / "old-file").touch()
    export_engine(config, QuietProgress())
    assert not (tmp_path / "mine" / "old-file").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]

    shutil.rmtree(tmp_path / "mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(EngineryError, match="is not an engine, so it is not replaced"):
        export_engine(config, QuietProgress())
    assert (tmp_path / "mine" / "thesis.txt").exists()
