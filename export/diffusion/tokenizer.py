"""The tokenizer of a text encoder and how it frames a text, whatever the encoder's class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from export.checkpoint import read_json_object
from export.diffusion.traits import TextTraits
from export.errors import CheckpointError

TOKENIZER_FILE = "tokenizer.json"

_SETTINGS_FILES = ("special_tokens_map.json", "tokenizer_config.json")  # the last one counts


@dataclass(frozen=True, slots=True)
class PromptTokenizer:
    """A tokenizer, the ids that frame and pad a text, and the most ids of a framed one.

    Texts are not padded where `pad_token_id` is None. `empty_token_ids` are those of the text that
    stands for none.
    """

    tokenizer: Tokenizer
    prefix_token_ids: tuple[int, ...]
    suffix_token_ids: tuple[int, ...]
    pad_token_id: int | None
    max_length: int
    empty_token_ids: tuple[int, ...] = ()


def read_settings(folder: Path) -> dict[str, Any]:
    """What the files beside a tokenizer say of it."""
    settings: dict[str, Any] = {}
    for name in _SETTINGS_FILES:
        if (folder / name).is_file():
            settings |= read_json_object(folder / name)
    return {name: value for name, value in settings.items() if value is not None}


def token_content(token: object) -> str:
    """A token is written as its text, or as an object around it."""
    return str(token.get("content")) if isinstance(token, dict) else str(token)


def open_tokenizer(folder: Path, read: Callable[[], Tokenizer], traits: TextTraits) -> Tokenizer:
    """Read a tokenizer, without padding and truncation, and hold its ids against the encoder's.

    Raises:
        CheckpointError: It cannot be read, or knows ids that the encoder lacks.
    """
    try:
        tokenizer = read()
    except CheckpointError:
        raise
    except Exception as error:  # the library raises bare exceptions
        raise CheckpointError(f"{folder} holds no tokenizer that can be read: {error}") from None
    last = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if last >= traits.vocab_size:
        raise CheckpointError(
            f"{folder} knows token {last}, but its text encoder has only {traits.vocab_size}"
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def find_token_id(tokenizer: Tokenizer, token: str, folder: Path) -> int:
    """The id of a token that has to be there.

    Raises:
        CheckpointError: It is not.
    """
    token_id: int | None = tokenizer.token_to_id(token)
    if token_id is None:
        raise CheckpointError(f"{folder} names the token {token!r}, but its vocabulary lacks it")
    return token_id


def read_max_length(
    folder: Path, settings: dict[str, Any], longest: int | None, minimum: int
) -> int:
    """What the tokenizer says, where that is not more than the encoder has positions for.

    Raises:
        CheckpointError: It is no number, or leaves no room for a text.
    """
    declared = settings.get("model_max_length", longest)
    if not isinstance(declared, int | float) or declared < minimum:
        raise CheckpointError(
            f"{folder} has model_max_length {declared!r}, but it must be a number of at least "
            f"{minimum}"
        )
    return int(declared if longest is None else min(declared, longest))
