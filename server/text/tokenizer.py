"""Text to token ids with the checkpoint's byte-level BPE tokenizer, and ids back to pieces of text.

Special tokens are found here, before the library sees the text, so that the caller decides which
occurrences are tokens and which are words about tokens.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from engines.errors import EngineCorrupt, EngineIncompatible
from server.text.detokenizer import TokenTable

# Above this many characters the batch call, which releases the GIL, is worth its overhead.
_LONG_TEXT = 16_384


class Tokenizer:
    """The tokenizer of one engine; frozen once built, so any thread may encode."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        added = tokenizer.get_added_tokens_decoder()
        special = {id: token for id, token in added.items() if token.special}
        tokenizer.encode_special_tokens = True  # what is left in a piece is text, see `encode`
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.vocab_size = tokenizer.get_vocab_size(with_added_tokens=True)
        self.special_tokens = {token.content: id for id, token in special.items()}
        self._special_pattern = _pattern(list(special.values()))
        self._prefix_ids, self._suffix_ids = _affixes(tokenizer)
        self.table = TokenTable(tokenizer.id_to_token, frozenset(special))
        self.full_table = TokenTable(tokenizer.id_to_token)

    @classmethod
    def from_folder(cls, folder: Path, config: dict[str, Any]) -> Tokenizer:
        """Load `tokenizer.json`; `config` is `tokenizer_config.json`, which may add tokens to it.

        Raises:
            EngineCorrupt: A file is missing or cannot be read.
            EngineIncompatible: The tokenizer is not byte-level BPE.
        """
        path = folder / "tokenizer.json"
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for everything
            raise EngineCorrupt(f"{path} cannot be read: {error}") from None
        if not isinstance(tokenizer.decoder, tokenizers.decoders.ByteLevel):
            raise EngineIncompatible(
                f"{path} decodes with {type(tokenizer.decoder).__name__}, "
                "but only byte-level BPE is supported"
            )
        _add_missing_tokens(tokenizer, config)
        return cls(tokenizer)

    def encode(self, text: str, mark: str = "") -> list[int]:
        """The ids of a text in which special tokens count, without a beginning or an end.

        Args:
            text: For example a rendered chat template.
            mark: Is taken out of the text after special tokens were found. A special token that
                holds it is therefore encoded as the characters that it is written with.
        """
        ids: list[int] = []
        for index, piece in enumerate(self._special_pattern.split(text)):
            if index % 2:
                ids.append(self._special_id(piece))
            elif piece:
                ids += self.encode_plain(piece.replace(mark, "") if mark else piece)
        return ids

    def token_id(self, text: str) -> int | None:
        """The token that stands for a whole text, special or added; None if none does."""
        token_id: int | None = self._tokenizer.token_to_id(text)
        return token_id

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of a bare prompt, with the beginning and end that the tokenizer gives it."""
        return [*self._prefix_ids, *self.encode(text), *self._suffix_ids]

    def token_text(self, token_id: int) -> tuple[str, list[int]]:
        """One token for a list of logprobs: as readable text and as its bytes."""
        piece = self.full_table[token_id]
        if isinstance(piece, str):
            return piece, list(piece.encode())
        return piece.decode(errors="backslashreplace"), list(piece)

    def _special_id(self, matched: str) -> int:
        # The match includes the spaces that a token with lstrip or rstrip swallows.
        token_id = self.special_tokens.get(matched)
        return self.special_tokens[matched.strip()] if token_id is None else token_id

    def encode_plain(self, piece: str) -> list[int]:
        """The ids of a text in which special tokens are the characters that spell them."""
        if len(piece) < _LONG_TEXT:
            return self._tokenizer.encode(piece, add_special_tokens=False).ids
        return self._tokenizer.encode_batch_fast([piece], add_special_tokens=False)[0].ids


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """`tokenizer_config.json`, {} if there is none.

    Raises:
        EngineCorrupt: It is not a JSON object.
    """
    path = folder / "tokenizer_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise EngineCorrupt(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise EngineCorrupt(f"{path} is not a JSON object")
    return config


def _add_missing_tokens(tokenizer: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """Older checkpoints name some added tokens in `tokenizer_config.json` alone."""
    listed = config.get("added_tokens_decoder") or {}
    for token_id, token in sorted((int(id), AddedToken(**token)) for id, token in listed.items()):
        if tokenizer.token_to_id(token.content) is None:
            tokenizer.add_tokens([token])
            given_id = tokenizer.token_to_id(token.content)
            if given_id != token_id:
                raise EngineIncompatible(
                    f"tokenizer_config.json gives {token.content!r} the id {token_id}, "
                    f"but tokenizer.json leaves {given_id} for it"
                )


def _pattern(tokens: list[AddedToken]) -> re.Pattern[str]:
    """Any of the tokens, as one group; of two that begin together the longer."""
    tokens.sort(key=lambda token: len(token.content), reverse=True)
    return re.compile("(" + "|".join(map(_source, tokens)) + ")" if tokens else "((?!))")


def _source(token: AddedToken) -> str:
    source = re.escape(token.content)
    if token.single_word:
        source = rf"(?<!\w){source}(?!\w)"
    return (r"\s*" if token.lstrip else "") + source + (r"\s*" if token.rstrip else "")


def _affixes(tokenizer: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and behind a text, for example a bos token."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a").ids
    start = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
    return whole[:start], whole[start + len(plain) :]
