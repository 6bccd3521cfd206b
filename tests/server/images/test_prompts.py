"""Prompts to the token ids of every text encoder, and what is too long for all of them."""

from __future__ import annotations

import msgspec
import pytest

from engines.errors import ContextLengthExceeded, EngineCorrupt
from engines.image.prompt import frame_token_ids
from server.images.prompts import PromptEncoder
from tests.server.images.apps import WORDS, image_spec, word_tokenizer


def two_encoders(first_length, second_length):
    (encoder,) = image_spec().text_encoders
    return image_spec(), tuple(
        msgspec.structs.replace(encoder, max_length=length)
        for length in (first_length, second_length)
    )


def encoder_of(first_length, second_length):
    spec, encoders = two_encoders(first_length, second_length)
    spec = msgspec.structs.replace(spec, text_encoders=encoders)
    return PromptEncoder(spec, [word_tokenizer(), word_tokenizer()])


def ids_of(text):
    return [WORDS.index(word) + 1 for word in text.split()]


def test_a_prompt_is_framed_for_every_encoder():
    _, encoders = two_encoders(5, 8)
    encoded = encoder_of(5, 8).encode("red star", "prompt")
    expected = tuple(frame_token_ids(ids_of("red star"), encoder) for encoder in encoders)
    assert encoded.token_ids == expected
    assert [len(ids) for ids in encoded.token_ids] == [5, 8]
    assert encoded.num_tokens == 2


@pytest.mark.parametrize("lengths", [(5, 8), (8, 5)])
def test_a_prompt_may_be_as_long_as_the_encoder_reads_that_reads_most(lengths):
    encoder = encoder_of(*lengths)
    assert encoder.max_tokens == 6
    encoded = encoder.encode("red " * 6, "prompt")
    assert encoded.num_tokens == 6
    assert {len(ids) for ids in encoded.token_ids} == {5, 8}
    with pytest.raises(ContextLengthExceeded, match=r"negative_prompt has 7 tokens, .* at most 6"):
        encoder.encode("red " * 7, "negative_prompt")


def test_the_empty_prompt_has_no_tokens():
    assert encoder_of(5, 8).encode("", "prompt").num_tokens == 0


def test_special_tokens_and_settings_of_a_file_do_not_count(tmp_path):
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.enable_padding(length=9)
    tokenizer.enable_truncation(max_length=3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    special_id = tokenizer.token_to_id("<|end|>")
    encoder = PromptEncoder.load(tmp_path, image_spec())
    (ids,) = encoder.encode("red <|end|> star sea", "prompt").token_ids
    assert special_id not in ids
    assert set(ids_of("red star sea")) < set(ids), "nothing was cut off"
    assert encoder.encode("red star", "prompt").num_tokens == 2, "nor padded"


@pytest.mark.parametrize("content", [None, "{"])
def test_a_tokenizer_that_cannot_be_read_is_one_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(EngineCorrupt, match=r"tokenizer\.json cannot be read"):
        PromptEncoder.load(tmp_path, image_spec())
