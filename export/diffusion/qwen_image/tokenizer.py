"""Qwen's tokenizer: one `tokenizer.json`, made from older files where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from export.checkpoint import read_json_object
from export.diffusion.qwen_image.template import (
    MAX_TOKENS,
    NUM_DROPPED_ROWS,
    PREFIX,
    SUFFIX,
)
from export.diffusion.tokenizer import (
    TOKENIZER_FILE,
    PromptTokenizer,
    find_token_id,
    open_tokenizer,
    read_max_length,
    read_settings,
)
from export.diffusion.traits import TextTraits
from export.errors import CheckpointError

_VOCAB_FILE = "vocab.json"
_MERGES_FILE = "merges.txt"
_ADDED_TOKENS_FILE = "added_tokens.json"
_ADDED_TOKENS = "added_tokens_decoder"
_FLAGS = ("special", "normalized", "lstrip", "rstrip", "single_word")
_MARKS = ("<|im_start|>", "<|im_end|>")
_NO_TEXT = " "  # what the model is told where nothing is to be avoided
# What Qwen was trained on: English clitics, letters with one sign before them, single digits,
# signs with the ends of lines behind them, ends of lines, and other space.
_PIECES = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def read_qwen_tokenizer(folder: Path, traits: TextTraits) -> PromptTokenizer:
    """Read the tokenizer of a Qwen text encoder; texts are not padded.

    Raises:
        CheckpointError: A file is missing or damaged, or the tokenizer does not fit the encoder.
    """
    settings = read_settings(folder)
    tokenizer = open_tokenizer(folder, lambda: _open(folder, settings), traits)
    for mark in _MARKS:
        find_token_id(tokenizer, mark, folder)
    prefix, suffix, no_text = (
        tuple(tokenizer.encode(text, add_special_tokens=False).ids)
        for text in (PREFIX, SUFFIX, _NO_TEXT)
    )
    if len(prefix) < NUM_DROPPED_ROWS:
        raise CheckpointError(
            f"{folder} makes {len(prefix)} tokens of the words before a prompt, but the pipeline "
            f"drops {NUM_DROPPED_ROWS}"
        )
    longest = MAX_TOKENS if traits.max_positions is None else min(traits.max_positions, MAX_TOKENS)
    least = len(prefix) + len(no_text) + len(suffix)
    return PromptTokenizer(
        tokenizer,
        prefix,
        suffix,
        None,
        read_max_length(folder, settings, longest, least),
        no_text,
    )


def _open(folder: Path, settings: dict[str, Any]) -> Tokenizer:
    if (folder / TOKENIZER_FILE).is_file():
        return Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    if (folder / _VOCAB_FILE).is_file() and (folder / _MERGES_FILE).is_file():
        return _build(folder, settings)
    raise CheckpointError(
        f"{folder} holds neither {TOKENIZER_FILE} nor {_VOCAB_FILE} and {_MERGES_FILE}"
    )


def _build(folder: Path, settings: dict[str, Any]) -> Tokenizer:
    model = BPE.from_file(str(folder / _VOCAB_FILE), str(folder / _MERGES_FILE))
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for token_id, token in sorted(_added_tokens(folder, settings), key=lambda entry: entry[0]):
        tokenizer.add_tokens([token])
        found = tokenizer.token_to_id(token.content)
        if found != token_id:
            raise CheckpointError(
                f"{folder} names the token {token.content!r} as number {token_id}, but behind its "
                f"vocabulary it is number {found}"
            )
    return tokenizer


def _added_tokens(folder: Path, settings: dict[str, Any]) -> Iterator[tuple[int, AddedToken]]:
    """The tokens that are not in the vocabulary, from the newer file or the older one."""
    declared = settings.get(_ADDED_TOKENS)
    if declared is not None:
        for token_id, entry in declared.items():
            flags = {name: bool(entry[name]) for name in _FLAGS if name in entry}
            yield int(token_id), AddedToken(entry["content"], **flags)
    elif (folder / _ADDED_TOKENS_FILE).is_file():
        for content, token_id in read_json_object(folder / _ADDED_TOKENS_FILE).items():
            yield int(token_id), AddedToken(content, special=True, normalized=False)
