"""A component's CLIP tokenizer: one `tokenizer.json`, made from older files where it has none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from export.checkpoint import read_json_object
from export.diffusion.clip.config import TextEncoderConfig
from export.errors import CheckpointError

_TOKENIZER_FILE = "tokenizer.json"
_VOCAB_FILE = "vocab.json"
_MERGES_FILE = "merges.txt"
_SETTINGS_FILES = ("special_tokens_map.json", "tokenizer_config.json")  # the last one counts
_END_OF_WORD = "</w>"
_DEFAULT_TOKENS = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
}
# What CLIP was trained on: English clitics, runs of letters, single digits, runs of the rest.
_WORDS = (r"'s", r"'t", r"'re", r"'ve", r"'m", r"'ll", r"'d", r"\p{L}+", r"\p{N}")
_OTHER_SIGNS = r"[^\s\p{L}\p{N}]+"
_MIN_LENGTH = 3  # start, one token of text, end


@dataclass(frozen=True, slots=True)
class ClipTokenizer:
    """A tokenizer, the ids that frame and pad a text, and how many ids a text has."""

    tokenizer: Tokenizer
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    max_length: int


def read_clip_tokenizer(folder: Path, encoder: TextEncoderConfig) -> ClipTokenizer:
    """Read the tokenizer of a text encoder.

    Raises:
        CheckpointError: A file is missing or damaged, or the tokenizer does not fit the encoder.
    """
    settings = _read_settings(folder)
    tokens = {
        name: _content(settings.get(name, default)) for name, default in _DEFAULT_TOKENS.items()
    }
    tokenizer = _open(folder, tokens)
    token_ids = {name: _token_id(tokenizer, token, folder) for name, token in tokens.items()}
    last = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if last >= encoder.vocab_size:
        raise CheckpointError(
            f"{folder} knows token {last}, but its text encoder has only {encoder.vocab_size}"
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return ClipTokenizer(
        tokenizer,
        token_ids["bos_token"],
        token_ids["eos_token"],
        token_ids["pad_token"],
        _max_length(folder, settings, encoder),
    )


def _open(folder: Path, tokens: dict[str, str]) -> Tokenizer:
    try:
        if (folder / _TOKENIZER_FILE).is_file():
            return Tokenizer.from_file(str(folder / _TOKENIZER_FILE))
        if (folder / _VOCAB_FILE).is_file() and (folder / _MERGES_FILE).is_file():
            return _build(folder, tokens)
    except CheckpointError:
        raise
    except Exception as error:  # the library raises bare exceptions
        raise CheckpointError(f"{folder} holds no tokenizer that can be read: {error}") from None
    raise CheckpointError(
        f"{folder} holds neither {_TOKENIZER_FILE} nor {_VOCAB_FILE} and {_MERGES_FILE}"
    )


def _build(folder: Path, tokens: dict[str, str]) -> Tokenizer:
    model = BPE.from_file(
        str(folder / _VOCAB_FILE),
        str(folder / _MERGES_FILE),
        unk_token=tokens["unk_token"],
        continuing_subword_prefix="",
        end_of_word_suffix=_END_OF_WORD,
    )
    tokenizer = Tokenizer(model)
    bos, eos = tokens["bos_token"], tokens["eos_token"]
    special = {token: _token_id(tokenizer, token, folder) for token in tokens.values()}
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = "|".join((*_WORDS, _OTHER_SIGNS))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special]
    )
    tokenizer.post_processor = TemplateProcessing(
        single=[bos, "$A", eos],
        special_tokens=[(token, special[token]) for token in dict.fromkeys((bos, eos))],
    )
    return tokenizer


def _token_id(tokenizer: Tokenizer, token: str, folder: Path) -> int:
    token_id: int | None = tokenizer.token_to_id(token)
    if token_id is None:
        raise CheckpointError(f"{folder} names the token {token!r}, but its vocabulary lacks it")
    return token_id


def _read_settings(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in _SETTINGS_FILES:
        if (folder / name).is_file():
            settings |= read_json_object(folder / name)
    return {name: value for name, value in settings.items() if value is not None}


def _content(token: object) -> str:
    """A token is written as its text, or as an object around it."""
    return str(token.get("content")) if isinstance(token, dict) else str(token)


def _max_length(folder: Path, settings: dict[str, Any], encoder: TextEncoderConfig) -> int:
    """What the tokenizer says, where that is not more than the encoder has positions for."""
    longest = encoder.max_position_embeddings
    declared = settings.get("model_max_length", longest)
    if not isinstance(declared, int | float) or declared < _MIN_LENGTH:
        raise CheckpointError(
            f"{folder} has model_max_length {declared!r}, but it must be a number of at least "
            f"{_MIN_LENGTH}"
        )
    return int(min(declared, longest))
