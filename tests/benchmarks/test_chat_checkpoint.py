import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

from benchmarks.__main__ import main
from benchmarks.checkpoints.catalogue import SHAPES
from benchmarks.checkpoints.shapes import ChatShape
from benchmarks.checkpoints.vocabulary import make_merges
from benchmarks.checkpoints.writer import make_chat_checkpoint, to_bf16
from benchmarks.errors import BenchmarkFailed

TINY = ChatShape(
    family="qwen3",
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    intermediate_size=24,
    head_dim=8,
    max_position_embeddings=128,
    tie_word_embeddings=False,
    vocab_size=2048,
    num_text_tokens=2000,
)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen3-0.6b", 596_049_920),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen3-30b-a3b", 30_532_122_624),
    ],
)
def test_shapes_have_the_published_number_of_parameters(name, parameters):
    tensors = SHAPES[name].tensors()
    assert sum(np.prod(shape, dtype=np.int64) for shape in tensors.values()) == parameters


def test_a_hybrid_shape_has_the_tensors_that_transformers_asks_for():
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    shape = SHAPES["qwen3.5-0.8b"]
    with torch.device("meta"):
        config = transformers.Qwen3_5TextConfig(**shape.config())
        model = transformers.Qwen3_5ForCausalLM(config)
    tensors = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    assert shape.tensors() == tensors


TINY_MIXTURE = replace(
    TINY, family="qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8
)


@pytest.mark.parametrize("shape", [TINY, TINY_MIXTURE], ids=["dense", "mixture"])
def test_a_checkpoint_is_one_that_transformers_can_load(tmp_path, shape):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "tiny"
    make_chat_checkpoint(folder, shape, max_shard_bytes=40_000)
    assert len(list(folder.glob("*.safetensors"))) > 1
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert sum(p.numel() for p in model.parameters()) == sum(
        np.prod(size) for size in shape.tensors().values()
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text == "<|im_start|>user\nHi<|im_end|>\n"
    assert tokenizer(text)["input_ids"][0] == TINY.num_text_tokens + 1


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_chat_checkpoint(tmp_path / name, TINY, seed=seed)
    first, again, other = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b", "c")
    )
    assert first == again != other
    with safe_open(tmp_path / "a" / "model.safetensors", "numpy") as file:
        assert set(file.keys()) == set(TINY.tensors())


def test_words_are_single_tokens_and_every_text_survives(tmp_path):
    make_chat_checkpoint(tmp_path / "tiny", TINY)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tiny" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == TINY.num_text_tokens + 3
    assert tokenizer.encode("The ferry leaves").tokens == ["The", "\u0120ferry", "\u0120leaves"]
    text = "Grüße, 3 + 4!\n\t語 🙂"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_no_merge_gives_a_token_twice():
    joined = ["".join(pair) for pair in make_merges(5000, 0)]
    assert len(set(joined)) == len(joined) == 5000


def test_values_are_rounded_to_the_nearest_bf16():
    values = np.array([1.0, 1.00390625, 1.01171875, -0.1], np.float32)
    torch = pytest.importorskip("torch")
    expected = torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
    np.testing.assert_array_equal(to_bf16(values), expected)


def test_an_existing_folder_is_left_alone(tmp_path, capsys):
    with pytest.raises(BenchmarkFailed, match="exists already"):
        make_chat_checkpoint(tmp_path, TINY)
    with pytest.raises(SystemExit) as end:
        main(["chat-checkpoint", "--output", str(tmp_path)])
    assert end.value.code == 1
    assert "exists already" in capsys.readouterr().err


def test_the_configuration_names_the_end_of_a_turn(tmp_path):
    make_chat_checkpoint(tmp_path / "tiny", TINY)
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    vocabulary = Tokenizer.from_file(str(tmp_path / "tiny" / "tokenizer.json"))
    assert vocabulary.id_to_token(config["eos_token_id"]) == "<|im_end|>"
