"""The text side of an engine: tokenizer, chat template, generation defaults; copied and checked."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from export.chatml import CHATML, CHATML_TEMPLATE
from export.checkpoint import Checkpoint, read_json_object
from export.errors import CheckpointError
from export.tiktoken_vocabulary import (
    END_OF_TEXT,
    TIKTOKEN_FILE,
    TURN_BEGIN,
    TURN_END,
    read_tiktoken,
)

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
GENERATION_CONFIG_FILE = "generation_config.json"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the manifest says of the tokenizer: ids it knows, and those that end an answer."""

    num_tokens: int
    eos_token_ids: tuple[int, ...]
    tokenizer: Tokenizer


def read_vocabulary(checkpoint: Checkpoint, vocab_size: int) -> Vocabulary:
    """Load the tokenizer and hold it against the embedding.

    Raises:
        CheckpointError: The tokenizer is missing or damaged, or knows ids beyond the embedding.
    """
    path, tokenizer = _load_tokenizer(checkpoint)
    ids = tokenizer.get_vocab(with_added_tokens=True).values()
    num_tokens = max(ids, default=-1) + 1
    if num_tokens > vocab_size:
        raise CheckpointError(
            f"{path} knows token {num_tokens - 1}, but the embedding has only {vocab_size} rows"
        )
    return Vocabulary(num_tokens, _eos_token_ids(checkpoint, tokenizer), tokenizer)


def copy_tokenizer_files(checkpoint: Checkpoint, engine_dir: Path, vocabulary: Vocabulary) -> None:
    """Copy what serving needs; an inlined chat template becomes a file of its own."""
    if (checkpoint.folder / TOKENIZER_FILE).is_file():
        shutil.copyfile(checkpoint.folder / TOKENIZER_FILE, engine_dir / TOKENIZER_FILE)
    else:
        vocabulary.tokenizer.save(str(engine_dir / TOKENIZER_FILE))
    generation_config = checkpoint.folder / GENERATION_CONFIG_FILE
    if generation_config.is_file():
        read_json_object(generation_config)
        shutil.copyfile(generation_config, engine_dir / GENERATION_CONFIG_FILE)
    tokenizer_config = _read_optional(checkpoint, TOKENIZER_CONFIG_FILE)
    inlined = tokenizer_config.pop("chat_template", None)
    _write_text(
        engine_dir / TOKENIZER_CONFIG_FILE,
        json.dumps(tokenizer_config, ensure_ascii=False, indent=2) + "\n",
    )
    template = _chat_template(checkpoint, inlined)
    if template is not None:
        _write_text(engine_dir / CHAT_TEMPLATE_FILE, template)


def _load_tokenizer(checkpoint: Checkpoint) -> tuple[Path, Tokenizer]:
    """The file and what it holds; the first Qwen's is put into the form of the others."""
    path, tiktoken = checkpoint.folder / TOKENIZER_FILE, checkpoint.folder / TIKTOKEN_FILE
    if not path.is_file() and tiktoken.is_file():
        return tiktoken, read_tiktoken(tiktoken)
    if not path.is_file():
        raise CheckpointError(
            f"{checkpoint.folder} holds no {TOKENIZER_FILE}: save the tokenizer in its fast form"
        )
    try:
        return path, Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare exceptions
        raise CheckpointError(f"{path} is not a tokenizer: {error}") from None


def _chat_template(checkpoint: Checkpoint, inlined: Any) -> str | None:
    """The template file, or the one inlined in the tokenizer's config (the default of several).

    The first Qwen has neither: its chat models say `chat_format` instead.
    """
    path = checkpoint.folder / CHAT_TEMPLATE_FILE
    if path.is_file():
        return path.read_text(encoding="utf-8")
    if isinstance(inlined, list):
        named = {entry["name"]: entry["template"] for entry in inlined}
        inlined = named.get("default")
    if inlined is None and _chat_format(checkpoint) == CHATML:
        return CHATML_TEMPLATE
    return inlined if isinstance(inlined, str) else None


def _chat_format(checkpoint: Checkpoint) -> str | None:
    """What the generation config of the first Qwen calls its form of conversations."""
    chat_format = _read_optional(checkpoint, GENERATION_CONFIG_FILE).get("chat_format")
    if chat_format not in (None, CHATML, "raw"):
        raise CheckpointError(
            f"generation_config.json has chat_format {chat_format!r}, but only chatml and raw are "
            "supported"
        )
    return chat_format


def _eos_token_ids(checkpoint: Checkpoint, tokenizer: Tokenizer) -> tuple[int, ...]:
    """From the generation config, else config.json, else the tokenizer's own end token.

    The first Qwen has more in `stop_words_ids`, and its chat models end with their turn, or where
    another begins.
    """
    declared = _declared_eos_token_ids(checkpoint, tokenizer)
    for words in _read_optional(checkpoint, GENERATION_CONFIG_FILE).get("stop_words_ids") or []:
        if len(words) != 1:
            raise CheckpointError(
                f"generation_config.json has the stop word {words}, but only single tokens can end "
                "an answer"
            )
        declared += tuple(id for id in _checked_ids(words, tokenizer) if id not in declared)
    if _chat_format(checkpoint) == CHATML:
        turns = (tokenizer.token_to_id(text) for text in (TURN_END, TURN_BEGIN))
        declared += tuple(id for id in turns if id is not None and id not in declared)
    return declared


def _declared_eos_token_ids(checkpoint: Checkpoint, tokenizer: Tokenizer) -> tuple[int, ...]:
    generation_config = _read_optional(checkpoint, GENERATION_CONFIG_FILE)
    for config in (generation_config, checkpoint.config):
        declared = config.get("eos_token_id")
        if declared is not None:
            return _checked_ids(declared, tokenizer)
    token = _read_optional(checkpoint, TOKENIZER_CONFIG_FILE).get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    if token is None and not (checkpoint.folder / TOKENIZER_FILE).is_file():
        token = END_OF_TEXT
    token_id = tokenizer.token_to_id(token) if token else None
    return () if token_id is None else (token_id,)


def _checked_ids(declared: Any, tokenizer: Tokenizer) -> tuple[int, ...]:
    token_ids = declared if isinstance(declared, list) else [declared]
    for token_id in token_ids:
        if type(token_id) is not int or tokenizer.id_to_token(token_id) is None:
            raise CheckpointError(
                f"the checkpoint has eos_token_id {declared}, but its tokenizer has no token "
                f"{token_id!r}"
            )
    return tuple(token_ids)


def _read_optional(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    path = checkpoint.folder / name
    return read_json_object(path) if path.is_file() else {}


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
