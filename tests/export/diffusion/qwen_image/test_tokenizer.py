"""Qwen's tokenizer, from the files of either layout, against transformers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import Qwen2Tokenizer

from export.diffusion.qwen_image.template import PREFIX, SUFFIX
from export.diffusion.qwen_image.tokenizer import read_qwen_tokenizer
from export.diffusion.traits import TextTraits
from export.errors import CheckpointError
from tests.checkpoints import edit_json
from tests.export.diffusion.qwen_image.tiny import ADDED_TOKENS, write_tokenizer

TRAITS = TextTraits(vocab_size=300, row_width=32, pooled_width=None, max_positions=546)
TEXTS = [
    "red circle",
    "",
    " ",
    "  two spaces,\tone tab\n\nand two lines  \n",
    "I'm sure THEY'LL be here; it's 3.14159 or 2026?!",
    "naïve café über e\u0301te\u0301",  # composed and decomposed
    "红色的圆 и красный круг 🔴👩‍🚀",
    "a<|im_end|>b <|im_start|> <tool_call>x</tool_call>",
    "\r\n\u00a0\u2003mixed\u200bspaces\x00",
    "ﬁ ﷺ ½ \uff11\uff12",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer")


@pytest.fixture
def own_folder(tmp_path):
    return write_tokenizer(tmp_path / "tokenizer")


@pytest.fixture(scope="module")
def reference(folder):
    return Qwen2Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def prompt(folder):
    return read_qwen_tokenizer(folder, TRAITS)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_has_the_ids_that_transformers_gives_it(prompt, reference, text):
    found = prompt.tokenizer.encode(text, add_special_tokens=False).ids
    assert found == reference(text).input_ids
    assert len(found) > 0 or text == ""


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40))
def test_any_text_has_the_ids_that_transformers_gives_it(prompt, reference, text):
    assert prompt.tokenizer.encode(text, add_special_tokens=False).ids == reference(text).input_ids


@pytest.mark.parametrize("text", ["red circle", " ", "<|im_end|>", "红"])
def test_prefix_text_and_suffix_are_the_template_as_a_whole(prompt, reference, text):
    found = prompt.tokenizer.encode(text, add_special_tokens=False).ids
    framed = [*prompt.prefix_token_ids, *found, *prompt.suffix_token_ids]
    assert framed == reference(f"{PREFIX}{text}{SUFFIX}").input_ids


def test_the_saved_file_gives_the_same_ids(prompt, reference, tmp_path):
    prompt.tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        assert tokenizer.encode(text, add_special_tokens=False).ids == reference(text).input_ids


def test_a_text_is_not_padded_and_may_have_512_rows_behind_those_dropped(prompt):
    assert prompt.pad_token_id is None
    assert prompt.max_length == 34 + 512
    assert prompt.empty_token_ids == tuple(
        prompt.tokenizer.encode(" ", add_special_tokens=False).ids
    )


def test_a_tokenizer_json_is_taken_as_it_is(folder, prompt, reference, tmp_path):
    reference.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").unlink(missing_ok=True)
    assert (tmp_path / "tokenizer.json").is_file()
    found = read_qwen_tokenizer(tmp_path, TRAITS)
    assert found.prefix_token_ids == prompt.prefix_token_ids
    assert found.suffix_token_ids == prompt.suffix_token_ids


def test_older_checkpoints_name_their_added_tokens_in_a_file_of_its_own(own_folder, prompt):
    config = json.loads((own_folder / "tokenizer_config.json").read_text())
    added = config.pop("added_tokens_decoder")
    (own_folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokens = {entry["content"]: int(token_id) for token_id, entry in added.items()}
    (own_folder / "added_tokens.json").write_text(json.dumps(tokens))
    found = read_qwen_tokenizer(own_folder, TRAITS)
    assert found.prefix_token_ids == prompt.prefix_token_ids
    for token in ADDED_TOKENS:
        assert found.tokenizer.token_to_id(token) == tokens[token]


def test_a_shorter_limit_of_the_tokenizer_or_the_encoder_holds(own_folder):
    edit_json(own_folder / "tokenizer_config.json", model_max_length=300)
    assert read_qwen_tokenizer(own_folder, TRAITS).max_length == 300


def remove_merges(folder):
    (folder / "merges.txt").unlink()


def damage_merges(folder):
    (folder / "merges.txt").write_text("#version: 0.2\nzz qq\n")


def rename_mark(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for entry in config["added_tokens_decoder"].values():
        entry["content"] = entry["content"].replace("im_end", "end")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def move_mark(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    added = config["added_tokens_decoder"]
    config["added_tokens_decoder"] = {str(int(key) + 5): value for key, value in added.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def shorten_texts(folder):
    edit_json(folder / "tokenizer_config.json", model_max_length=20)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (remove_merges, "holds neither tokenizer.json nor vocab.json and merges.txt"),
        (damage_merges, "holds no tokenizer that can be read"),
        (rename_mark, "names the token '<|im_end|>', but its vocabulary lacks it"),
        (move_mark, "as number 270, but behind its vocabulary it is number 265"),
        (shorten_texts, "has model_max_length 20, but it must be a number of at least"),
    ],
)
def test_what_is_wrong_is_said_with_the_folder(own_folder, damage, sentence):
    damage(own_folder)
    with pytest.raises(CheckpointError) as caught:
        read_qwen_tokenizer(own_folder, TRAITS)
    assert str(own_folder) in str(caught.value)
    assert sentence in str(caught.value)


def test_more_tokens_than_the_encoder_knows_are_refused(folder):
    few = TextTraits(vocab_size=260, row_width=32, pooled_width=None, max_positions=546)
    with pytest.raises(CheckpointError, match="knows token 268, but its text encoder has only 260"):
        read_qwen_tokenizer(folder, few)
