"""`qwen.tiktoken` against tiktoken: the same ids for every text."""

from __future__ import annotations

import base64

import pytest

from export.errors import CheckpointError
from export.tiktoken_vocabulary import SPECIAL_TOKENS, read_tiktoken
from server.text.tokenizer import Tokenizer
from tests.export.tiktoken_files import (
    adversarial_texts,
    tiktoken_encoder,
    train_ranks,
    write_tiktoken,
)


@pytest.fixture(scope="module", params=[None, 1], ids=["frequent pairs", "random pairs"])
def ranks(request):
    return train_ranks(seed=request.param)


def test_ten_thousand_texts_encode_as_tiktoken_encodes_them(ranks, tmp_path):
    tokenizer = read_tiktoken(write_tiktoken(tmp_path / "qwen.tiktoken", ranks))
    expected = tiktoken_encoder(ranks)
    for text in adversarial_texts(10_000):
        assert tokenizer.encode(text).ids == expected(text), ascii(text)


def test_every_character_encodes_as_tiktoken_encodes_it(tmp_path):
    ranks = train_ranks()
    tokenizer = read_tiktoken(write_tiktoken(tmp_path / "qwen.tiktoken", ranks))
    expected = tiktoken_encoder(ranks)
    characters = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    texts = ["".join(f"a{c}b {c}\n" for c in characters[i : i + 64]) for i in range(0, 196_608, 64)]
    for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert encoding.ids == expected(text), ascii(text)


def test_tokens_that_merges_do_not_reach_are_still_found_as_whole_words(tmp_path):
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"xyz": 256, b"ab": 257, b"abab": 258}
    tokenizer = read_tiktoken(write_tiktoken(tmp_path / "qwen.tiktoken", ranks))
    expected = tiktoken_encoder(ranks)
    for text in ("xyz", " xyz", "wxyz", "abab", "ababab", "babab"):
        assert tokenizer.encode(text).ids == expected(text)


def test_special_tokens_follow_the_ordinary_ones(tmp_path):
    ranks = train_ranks(300)
    tokenizer = read_tiktoken(write_tiktoken(tmp_path / "qwen.tiktoken", ranks))
    assert len(SPECIAL_TOKENS) == 208
    for offset, text in enumerate(SPECIAL_TOKENS):
        assert tokenizer.token_to_id(text) == 300 + offset
    # The published file has 151,643 ranks: there they are 151643 to 151850.


def test_the_server_encodes_with_it_and_gives_the_text_back(tmp_path):
    ranks = train_ranks()
    read = read_tiktoken(write_tiktoken(tmp_path / "qwen.tiktoken", ranks))
    read.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_folder(tmp_path, {})
    expected = tiktoken_encoder(ranks)
    text = "<|im_start|>user\nn\u00e4h 你好 🙂<|im_end|>\n<|extra_204|><|endoftext|>"
    assert tokenizer.encode(text) == expected(text)
    pieces = [tokenizer.full_table[token] for token in tokenizer.encode(text)]
    assert b"".join(p.encode() if isinstance(p, str) else p for p in pieces).decode() == text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"!!! 0\n", "line 1 is not a token and its rank"),
        (b"YQ== one\n", "line 1 is not a token and its rank"),
        (b"YQ==\n", "line 1 is not a token and its rank"),
        (b"YQ== 0\nYg== 2\n", "ranks are not 0 to 1"),
        (b"YQ== 0\nYg== 1\n", "no token for some of the 256 bytes"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, words):
    path = tmp_path / "qwen.tiktoken"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_tiktoken(path)


def test_a_special_token_among_the_ordinary_ones_is_refused(tmp_path):
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"<|im_end|>": 256}
    lines = [base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()]
    path = tmp_path / "qwen.tiktoken"
    path.write_bytes(b"".join(lines))
    with pytest.raises(CheckpointError, match="special tokens among its ordinary ones"):
        read_tiktoken(path)
