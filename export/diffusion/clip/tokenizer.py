"""A CLIP tokenizer: one `tokenizer.json`, made from older files where there is none."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from export.diffusion.tokenizer import (
    TOKENIZER_FILE,
    PromptTokenizer,
    find_token_id,
    open_tokenizer,
    read_max_length,
    read_settings,
    token_content,
)
from export.diffusion.traits import TextTraits
from export.errors import CheckpointError

_VOCAB_FILE = "vocab.json"
_MERGES_FILE = "merges.txt"
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


def read_clip_tokenizer(folder: Path, traits: TextTraits) -> PromptTokenizer:
    """Read the tokenizer of a CLIP text encoder.

    Raises:
        CheckpointError: A file is missing or damaged, or the tokenizer does not fit the encoder.
    """
    settings = read_settings(folder)
    tokens = {
        name: token_content(settings.get(name, default))
        for name, default in _DEFAULT_TOKENS.items()
    }
    tokenizer = open_tokenizer(folder, lambda: _open(folder, tokens), traits)
    token_ids = {name: find_token_id(tokenizer, token, folder) for name, token in tokens.items()}
    return PromptTokenizer(
        tokenizer,
        (token_ids["bos_token"],),
        (token_ids["eos_token"],),
        token_ids["pad_token"],
        read_max_length(folder, settings, traits.max_positions, _MIN_LENGTH),
    )


def _open(folder: Path, tokens: dict[str, str]) -> Tokenizer:
    if (folder / TOKENIZER_FILE).is_file():
        return Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    if (folder / _VOCAB_FILE).is_file() and (folder / _MERGES_FILE).is_file():
        return _build(folder, tokens)
    raise CheckpointError(
        f"{folder} holds neither {TOKENIZER_FILE} nor {_VOCAB_FILE} and {_MERGES_FILE}"
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
    special = {token: find_token_id(tokenizer, token, folder) for token in tokens.values()}
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
