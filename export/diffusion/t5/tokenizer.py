"""The tokenizer of a T5 encoder: a text has no start, ends with a token and is padded."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

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

_SENTENCEPIECE_FILE = "spiece.model"
_LONGEST = 512  # ids of the texts that T5 was trained on, where the tokenizer does not say
_MIN_LENGTH = 2  # one token of text, end


def read_t5_tokenizer(folder: Path, traits: TextTraits) -> PromptTokenizer:
    """Read the tokenizer of a T5 encoder.

    Raises:
        CheckpointError: A file is missing or damaged, or the tokenizer does not fit the encoder.
    """
    settings = read_settings(folder)
    tokenizer = open_tokenizer(folder, lambda: _open(folder), traits)
    end, padding = (
        find_token_id(tokenizer, token_content(settings.get(name, default)), folder)
        for name, default in (("eos_token", "</s>"), ("pad_token", "<pad>"))
    )
    settings.setdefault("model_max_length", _LONGEST)
    max_length = read_max_length(folder, settings, traits.max_positions, _MIN_LENGTH)
    return PromptTokenizer(tokenizer, (), (end,), padding, max_length)


def _open(folder: Path) -> Tokenizer:
    if (folder / TOKENIZER_FILE).is_file():
        return Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    if (folder / _SENTENCEPIECE_FILE).is_file():
        raise CheckpointError(
            f"{folder} holds {_SENTENCEPIECE_FILE}, but no {TOKENIZER_FILE}: save it as one, with "
            "T5TokenizerFast.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    raise CheckpointError(f"{folder} holds no {TOKENIZER_FILE}")
