"""One request to an OpenAI-compatible server, timed as its tokens arrive."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import msgspec

from benchmarks.prompts import Prompt
from benchmarks.results import RequestResult

Endpoint = Literal["chat", "completions"]
PATHS: dict[Endpoint, str] = {"chat": "/chat/completions", "completions": "/completions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """What every request of a run has in common."""

    model: str
    endpoint: Endpoint
    max_tokens: int
    stream: bool = True
    ignore_eos: bool = False
    temperature: float | None = None  # None: the server's default
    seed: int | None = None


class Client:
    """Sends prompts and times the answers; failures become results, never exceptions."""

    def __init__(self, http: httpx.AsyncClient, options: RequestOptions) -> None:
        self._http = http
        self._options = options
        self._origin = time.perf_counter()
        self.num_chunks = 0  # that carried text, of all requests so far
        self.num_in_flight = 0

    async def send(self, prompt: Prompt, max_tokens: int | None = None) -> RequestResult:
        """Send one prompt. `max_tokens` overrides the prompt's and the run's."""
        answer = _Answer(time.perf_counter(), self._count_chunk)
        error = None
        self.num_in_flight += 1
        try:
            await self._exchange(self._body(prompt, max_tokens), answer)
        except httpx.HTTPError as failure:
            error = error_kind(failure)
        except msgspec.DecodeError:
            error = "not the JSON of an OpenAI response"
        except _AnswerError as failure:
            error = str(failure)
        finally:
            self.num_in_flight -= 1
        return answer.result(time.perf_counter(), self._origin, error)

    def _count_chunk(self) -> None:
        self.num_chunks += 1

    def _body(self, prompt: Prompt, max_tokens: int | None) -> dict[str, Any]:
        options = self._options
        body: dict[str, Any] = {
            "model": options.model,
            "max_tokens": max_tokens or prompt.max_tokens or options.max_tokens,
            "stream": options.stream,
        }
        if options.endpoint == "chat":
            body["messages"] = prompt.as_messages()
        else:
            body["prompt"] = prompt.as_text()
        if options.stream:
            body["stream_options"] = {"include_usage": True}
        if options.ignore_eos:
            body["ignore_eos"] = True
        if options.temperature is not None:
            body["temperature"] = options.temperature
        if options.seed is not None:
            body["seed"] = options.seed
        return body

    async def _exchange(self, body: dict[str, Any], answer: _Answer) -> None:
        path = PATHS[self._options.endpoint]
        async with self._http.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                raise _AnswerError(status_kind(response.status_code, await response.aread()))
            if self._options.stream:
                await _read_events(response.aiter_lines(), answer)
            else:
                answer.add(await response.aread())


class _AnswerError(Exception):
    """The server answered, but not with a completion; the message is the kind of error."""


class _Answer:
    """An answer while it arrives: when there was text and what the usage said."""

    def __init__(self, sent_at: float, on_text: Callable[[], None]) -> None:
        self._sent_at = sent_at
        self._on_text = on_text
        self._pieces: list[str] = []
        self._text_times: list[float] = []
        self._usage: _Usage | None = None
        self._streamed = False

    def add_chunk(self, payload: bytes | str) -> None:
        self._streamed = True
        if self.add(payload):
            self._text_times.append(time.perf_counter())
            self._on_text()

    def add(self, payload: bytes | str) -> bool:
        """Take in one JSON object; return whether it carried text."""
        body = msgspec.json.decode(payload, type=_Body)
        if body.error is not None:
            raise _AnswerError(f"error in the stream: {_error_name(body.error)}")
        self._usage = body.usage or self._usage
        if body.choices:
            self._pieces.append(body.choices[0].content)
        return any(choice.has_text for choice in body.choices)

    def result(self, now: float, origin: float, error: str | None) -> RequestResult:
        times = self._text_times
        usage = self._usage
        return RequestResult(
            started_s=self._sent_at - origin,
            latency_s=now - self._sent_at,
            ttft_s=times[0] - self._sent_at if self._streamed and times else None,
            gaps_s=tuple(b - a for a, b in itertools.pairwise(times)),
            num_prompt_tokens=usage.prompt_tokens if usage else None,
            num_output_tokens=usage.completion_tokens if usage else len(times),
            tokens_from_usage=usage is not None,
            text="".join(self._pieces),
            error=error,
        )


async def _read_events(lines: AsyncIterator[str], answer: _Answer) -> None:
    async for line in lines:
        field, _, value = line.partition(":")
        if field != "data":
            continue  # comments (pings), blank lines and other fields of an event
        payload = value.strip()
        if payload == "[DONE]":
            return
        answer.add_chunk(payload)
    raise _AnswerError("the stream ended without [DONE]")


def status_kind(status: int, body: bytes) -> str:
    """What to call an answer of another status than 200: its code where it is OpenAI's error."""
    try:
        error = msgspec.json.decode(body, type=_Body).error
    except msgspec.DecodeError:
        error = None
    return f"HTTP {status}" + (f" {_error_name(error)}" if error is not None else "")


def error_kind(failure: httpx.HTTPError) -> str:
    """What to call an exchange that broke."""
    if isinstance(failure, httpx.TimeoutException):
        return "timeout"
    if isinstance(failure, httpx.ConnectError):
        return "cannot connect"
    return f"connection broken ({type(failure).__name__})"


def _error_name(error: _Error | str) -> str:
    if isinstance(error, str):
        return error
    return str(error.code or error.type or error.message or "unnamed")


class _Error(msgspec.Struct):
    message: str | None = None
    type: str | None = None
    code: str | int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    text: str | None = None  # completions
    delta: _Delta | None = None  # chat, streamed
    message: _Delta | None = None  # chat, whole

    @property
    def content(self) -> str:
        said = self.delta or self.message or _Delta()
        return self.text or said.content or ""

    @property
    def has_text(self) -> bool:
        delta = self.delta or _Delta()
        return bool(
            self.text
            or delta.content
            or delta.reasoning_content
            or delta.reasoning
            or delta.tool_calls
        )


class _Body(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Error | str | None = None
