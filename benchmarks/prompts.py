"""Prompts for a load: text of about a wanted number of tokens, or the lines of a JSONL file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.errors import BenchmarkFailed

_TOKENS_PER_WORD = 1.3  # English prose with a large vocabulary; used where a server reports none
_SENTENCE_ENDS = ".!?"
_PREFIX_SEED = 0x5EED  # keeps a common beginning apart from what follows it


@dataclass(frozen=True, slots=True)
class Prompt:
    """Either a text or a conversation; `max_tokens` overrides the run's."""

    text: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    max_tokens: int | None = None

    def as_messages(self) -> list[dict[str, Any]]:
        if self.messages is not None:
            return list(self.messages)
        return [{"role": "user", "content": self.text or ""}]

    def as_text(self) -> str:
        """The prompt of the completions endpoint; a conversation has none (see `read_dataset`)."""
        return self.text or ""


@dataclass(frozen=True, slots=True)
class TokenScale:
    """How many tokens a server counts for a prompt of some words."""

    per_word: float = _TOKENS_PER_WORD
    overhead: float = 0.0  # of an empty prompt: the chat template

    @classmethod
    def from_counts(cls, short: tuple[int, int], long: tuple[int, int]) -> TokenScale:
        """From two prompts, each as (words, tokens)."""
        per_word = (long[1] - short[1]) / (long[0] - short[0])
        if per_word <= 0:
            return cls()
        return cls(per_word, max(0.0, short[1] - per_word * short[0]))

    def num_words(self, num_tokens: int) -> int:
        """Words of a prompt that takes about `num_tokens` tokens, at least one."""
        return max(1, round((num_tokens - self.overhead) / self.per_word))


class TextSource:
    """Draws sentences like cards, shuffled again when all are out.

    So no two prompts share a long prefix, and short ones are not the same until every sentence
    has begun one: a prompt sent twice would be measured with its prefix cached.
    """

    def __init__(self, sentences: list[str], seed: int) -> None:
        if not sentences:
            raise ValueError("the text for the prompts is empty")
        self._sentences = sentences
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._deck: list[str] = []

    @classmethod
    def from_file(cls, path: Path, seed: int) -> TextSource:
        """Cut a text file into sentences.

        Raises:
            BenchmarkFailed: The file is empty or not UTF-8.
        """
        try:
            words = path.read_text(encoding="utf-8").split()
        except UnicodeDecodeError:
            raise BenchmarkFailed(f"{path} is not UTF-8 text") from None
        if not words:
            raise BenchmarkFailed(f"{path} holds no text to make prompts from")
        return cls(_sentences(words), seed)

    def text(self, num_words: int) -> str:
        """Exactly `num_words` words."""
        words: list[str] = []
        while len(words) < num_words:
            words += self._draw().split()
        return " ".join(words[:num_words])

    def prompt(self, num_words: int) -> Prompt:
        return Prompt(text=self.text(num_words))

    def prefix(self, num_words: int) -> str:
        """The same words each time, for prompts that are to begin alike."""
        return TextSource(self._sentences, self._seed ^ _PREFIX_SEED).text(num_words)

    def _draw(self) -> str:
        if not self._deck:
            order = self._rng.permutation(len(self._sentences))
            self._deck = [self._sentences[index] for index in order]
        return self._deck.pop()


def read_dataset(path: Path, *, needs_text: bool) -> list[Prompt]:
    """Read a JSONL file: `{"prompt": "..."}` or `{"messages": [...]}`, with `max_tokens` if wanted.

    Args:
        path: One JSON object a line; blank lines are skipped.
        needs_text: Whether every line must have a `prompt` (the completions endpoint).

    Raises:
        BenchmarkFailed: A line is not of that form, or there are none; the message names the line.
    """
    prompts = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=_Row)
        except msgspec.DecodeError as error:
            raise BenchmarkFailed(f"{path} line {number} is no prompt: {error}") from None
        if row.prompt is None and (needs_text or not row.messages):
            needed = "`prompt`" if needs_text else "`prompt` or `messages`"
            raise BenchmarkFailed(f"{path} line {number} has no {needed}")
        messages = tuple(row.messages) if row.messages else None
        prompts.append(Prompt(row.prompt, messages, row.max_tokens))
    if not prompts:
        raise BenchmarkFailed(f"{path} holds no prompts")
    return prompts


def _sentences(words: list[str]) -> list[str]:
    sentences, start = [], 0
    for end, word in enumerate(words, start=1):
        if word[-1] in _SENTENCE_ENDS or end == len(words):
            sentences.append(" ".join(words[start:end]))
            start = end
    return sentences


class _Row(msgspec.Struct):
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    max_tokens: int | None = None
