"""A byte-level BPE vocabulary of a published size, made from a few sentences and chance.

The merges that the built-in sentences ask for come first, so that ordinary words are single tokens;
the rest are random joins of what is there, which give generated text pieces of a few letters.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.checkpoints.shapes import SPECIAL_TOKENS
from benchmarks.text import SENTENCES

_SPACE = "Ġ"  # the byte-level stand-in of a space
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MAX_TOKEN_LENGTH = 12
# The pre-tokenizer of every Qwen checkpoint: contractions, words, digits, punctuation, space.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_merges(count: int, seed: int) -> list[tuple[str, str]]:
    """`count` merges in the order of their ranks; no two give the same token."""
    merges = _merges_of_words(_words())[:count]
    tokens = [*_LETTERS, *(_SPACE + letter for letter in _LETTERS)]
    known = set(_byte_tokens()) | {left + right for left, right in merges}
    for letter in _LETTERS[: max(0, count - len(merges))]:
        if _SPACE + letter not in known:
            merges.append((_SPACE, letter))
            known.add(_SPACE + letter)
    rng = np.random.default_rng(seed)
    while len(merges) < count:
        drawn = rng.integers(len(tokens), size=(4096, 2)).tolist()
        for left, right in ((tokens[i], tokens[j]) for i, j in drawn):
            joined = left + right
            is_new = joined not in known and not right.startswith(_SPACE)
            if is_new and len(joined) <= _MAX_TOKEN_LENGTH and len(merges) < count:
                merges.append((left, right))
                known.add(joined)
                tokens.append(joined)
    return merges


def tokenizer_files(num_text_tokens: int, seed: int) -> dict[str, Any]:
    """File name -> content (JSON, or the text of `merges.txt`) of a tokenizer of that size."""
    byte_tokens = _byte_tokens()
    merges = make_merges(num_text_tokens - len(byte_tokens), seed)
    vocabulary = {token: index for index, token in enumerate(byte_tokens)}
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    ranked = [f"{left} {right}" for left, right in merges]
    special = [_added(num_text_tokens + i, token) for i, token in enumerate(SPECIAL_TOKENS)]
    return {
        "tokenizer.json": _tokenizer(vocabulary, ranked, special),
        "vocab.json": vocabulary,
        "merges.txt": "\n".join(["#version: 0.2", *ranked]) + "\n",
        "tokenizer_config.json": _tokenizer_config(special),
    }


def _tokenizer(
    vocabulary: dict[str, int], ranked: list[str], special: list[dict[str, Any]]
) -> dict[str, Any]:
    split = {
        "type": "Split",
        "pattern": {"Regex": _SPLIT},
        "behavior": "Isolated",
        "invert": False,
    }
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocabulary,
            "merges": ranked,
        },
    }


def _tokenizer_config(special: list[dict[str, Any]]) -> dict[str, Any]:
    end_of_text, _, end_of_turn = SPECIAL_TOKENS
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(token["id"]): {name: token[name] for name in token if name != "id"}
            for token in special
        },
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": end_of_turn,
        "errors": "replace",
        "model_max_length": 32_768,
        "pad_token": end_of_text,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _added(token_id: int, content: str) -> dict[str, Any]:
    return {
        "id": token_id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _byte_tokens() -> list[str]:
    """The stand-in of each byte: itself if it prints, else a code point from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    num_hidden = 256 - len(printable)
    return [chr(code) for code in (*printable, *range(256, 256 + num_hidden))]


def _words() -> Counter[tuple[str, ...]]:
    """The words of the built-in sentences as their letters, with the space before them."""
    words: Counter[tuple[str, ...]] = Counter()
    for sentence in SENTENCES:
        first, *others = "".join(c if c.isalpha() else " " for c in sentence).split()
        words.update([tuple(first), *(tuple(_SPACE + word) for word in others)])
    return words


def _merges_of_words(words: Counter[tuple[str, ...]]) -> list[tuple[str, str]]:
    """Byte-pair encoding: the most frequent pair is joined, until every word is one token."""
    merges: list[tuple[str, str]] = []
    made: set[str] = set()
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if "".join(best) not in made:
            merges.append(best)
            made.add("".join(best))
        joined: Counter[tuple[str, ...]] = Counter()
        for word, count in words.items():
            joined[_join(word, best)] += count
        words = joined


def _join(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    parts: list[str] = []
    for part in word:
        if parts and (parts[-1], part) == pair:
            parts[-1] += part
        else:
            parts.append(part)
    return tuple(parts)
