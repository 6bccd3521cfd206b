"""CLIP tokenizers, beside that of transformers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from export.diffusion.clip.config import read_text_encoder_config
from export.diffusion.clip.tokenizer import read_clip_tokenizer
from export.errors import CheckpointError

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = ["t h", "th e</w>", "c a", "ca t</w>", "1 2</w>", "r e</w>", "' re</w>", "! !</w>"]
START, END = "<|startoftext|>", "<|endoftext|>"
TEXTS = [
    "the cat",
    "The  CAT,\n\tthe cats' cat!!! we're 12 or 123",
    "caf\u00e9 cafe\u0301 \u00c5ngstr\u00f6m \u4f60\u597d \U0001f600",
    "I'LL don't 'twas",
    "the <|endoftext|> cat <|startoftext|>",
    "hi! the! !",
    "",
    "   ",
]
ENCODER = read_text_encoder_config("config.json", {"vocab_size": 2000}, has_projection=False).traits


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory):
    def make(**tokenizer_config):
        tokens = BYTES + [f"{byte}</w>" for byte in BYTES]
        tokens += [merge.replace(" ", "") for merge in MERGES] + [START, END]
        folder = tmp_path_factory.mktemp("tokenizer")
        vocab = {token: index for index, token in enumerate(tokens)}
        (folder / "vocab.json").write_text(json.dumps(vocab))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
        (folder / "tokenizer_config.json").write_text(
            json.dumps(
                {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77} | tokenizer_config
            )
        )
        return folder

    return make


@pytest.mark.parametrize("pad_token", [END, "!"])
def test_the_old_files_give_the_ids_of_transformers(make_folder, pad_token):
    folder = make_folder(pad_token=pad_token)
    reference, found = CLIPTokenizer.from_pretrained(folder), read_clip_tokenizer(folder, ENCODER)
    for text in TEXTS:
        assert found.tokenizer.encode(text).ids == reference(text).input_ids, text
    assert found.prefix_token_ids == (reference.bos_token_id,)
    assert found.suffix_token_ids == (reference.eos_token_id,)
    assert found.pad_token_id == reference.pad_token_id
    assert found.max_length == 77


def test_any_text_gives_the_ids_of_transformers(make_folder):
    folder = make_folder()
    reference, found = CLIPTokenizer.from_pretrained(folder), read_clip_tokenizer(folder, ENCODER)

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=40))
    def check(text):
        assert found.tokenizer.encode(text).ids == reference(text).input_ids

    check()


def test_the_fast_form_is_taken_as_it_is_without_padding_and_truncation(make_folder, tmp_path):
    reference = CLIPTokenizer.from_pretrained(make_folder())
    reference("the cat", padding="max_length", truncation=True, max_length=6)
    reference.save_pretrained(tmp_path)
    found = read_clip_tokenizer(tmp_path, ENCODER)
    expected = reference("the cat, the cat, the cat").input_ids
    assert found.tokenizer.encode("the cat, the cat, the cat").ids == expected


def test_a_text_is_never_longer_than_the_encoder_has_positions(make_folder):
    folder = make_folder(model_max_length=1e30)
    encoder = replace(ENCODER, max_positions=64)
    assert read_clip_tokenizer(folder, encoder).max_length == 64


def test_tokens_written_as_objects_are_read(make_folder):
    folder = make_folder(pad_token={"__type": "AddedToken", "content": "!", "normalized": True})
    assert read_clip_tokenizer(folder, ENCODER).pad_token_id == BYTES.index("!")


def test_a_missing_file_is_named(make_folder):
    folder = make_folder()
    (folder / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor vocab\.json and"):
        read_clip_tokenizer(folder, ENCODER)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pad_token": "<pad>"}, r"names the token '<pad>', but its vocabulary lacks it"),
        ({"model_max_length": 2}, r"model_max_length 2, but it must be a number of at least 3"),
    ],
)
def test_a_setting_that_cannot_be_is_named(make_folder, config, message):
    with pytest.raises(CheckpointError, match=message):
        read_clip_tokenizer(make_folder(**config), ENCODER)


def test_ids_beyond_the_text_encoder_are_refused(make_folder):
    with pytest.raises(CheckpointError, match="but its text encoder has only 100"):
        read_clip_tokenizer(make_folder(), replace(ENCODER, vocab_size=100))


def test_a_damaged_vocabulary_is_refused(make_folder):
    folder = make_folder()
    (folder / "vocab.json").write_text("{")
    with pytest.raises(CheckpointError, match="holds no tokenizer that can be read"):
        read_clip_tokenizer(folder, ENCODER)
