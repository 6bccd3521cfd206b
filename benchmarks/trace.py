"""Recorded arrivals to replay: a JSONL file with a time and a prompt, or its length, a line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.errors import BenchmarkFailed
from benchmarks.prompts import Prompt, TextSource, TokenScale


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedRequest:
    """One line: when it arrived, and a prompt or the number of its tokens."""

    due_s: float
    prompt: Prompt | None
    input_tokens: int | None
    output_tokens: int | None

    def to_prompt(self, source: TextSource, scale: TokenScale) -> Prompt:
        """The prompt as it was, or one of that length."""
        prompt = self.prompt or source.prompt(scale.num_words(self.input_tokens or 1))
        return replace(prompt, max_tokens=self.output_tokens or prompt.max_tokens)


def read_trace(path: Path) -> list[TracedRequest]:
    """Read a trace; the first arrival becomes second 0.

    A line has `arrival_s` (seconds) or `timestamp` (milliseconds), then `prompt`, `messages`,
    `input_tokens` or `input_length`, and perhaps `output_tokens`, `output_length` or `max_tokens`.

    Raises:
        BenchmarkFailed: A line is not of that form, or there are none; the message names the line.
    """
    requests = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            requests.append(_parse(line, f"{path} line {number}"))
    if not requests:
        raise BenchmarkFailed(f"{path} holds no requests")
    requests.sort(key=lambda request: request.due_s)
    first = requests[0].due_s
    return [replace(request, due_s=request.due_s - first) for request in requests]


class _Row(msgspec.Struct):
    arrival_s: float | None = None
    timestamp: float | None = None  # milliseconds
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    input_tokens: int | None = None
    input_length: int | None = None
    output_tokens: int | None = None
    output_length: int | None = None
    max_tokens: int | None = None


def _parse(line: bytes, where: str) -> TracedRequest:
    try:
        row = msgspec.json.decode(line, type=_Row)
    except msgspec.DecodeError as error:
        raise BenchmarkFailed(f"{where} is no request: {error}") from None
    due_s = row.arrival_s
    if due_s is None and row.timestamp is not None:
        due_s = row.timestamp / 1e3
    if due_s is None:
        raise BenchmarkFailed(f"{where} has no `arrival_s` or `timestamp`")
    input_tokens = row.input_tokens or row.input_length
    output_tokens = row.output_tokens or row.output_length or row.max_tokens
    prompt = None
    if row.prompt is not None or row.messages:
        messages = tuple(row.messages) if row.messages else None
        prompt = Prompt(row.prompt, messages)
    elif input_tokens is None:
        raise BenchmarkFailed(f"{where} has no `prompt`, `messages`, `input_tokens` or its length")
    for name, value in (("input", input_tokens), ("output", output_tokens)):
        if value is not None and value < 1:
            raise BenchmarkFailed(f"{where} has {value} {name} tokens, but at least 1 is needed")
    return TracedRequest(
        due_s=due_s, prompt=prompt, input_tokens=input_tokens, output_tokens=output_tokens
    )
