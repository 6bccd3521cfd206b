"""Deltas of an answer as a message in Anthropic's shape: whole, or as the events of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from server.answer import Delta, EndReason
from server.anthropic.blocks import ContentBlocks
from server.anthropic.errors import anthropic_error
from server.errors import ApiError
from server.generation import Generation
from server.routes.answering import event
from server.schema.anthropic_answer import (
    AnthropicMessage,
    MessageDelta,
    MessageEvent,
    MessageStart,
    MessageStop,
    MessageUsage,
    StopDelta,
    StopReason,
)


class MessageWriter:
    """Writes one answer.

    Args:
        message: What is known of it; changed as the answer comes.
        blocks: Fresh ones.
        is_limit_cut: Whether the context has less room than was asked for.
    """

    def __init__(
        self,
        message: AnthropicMessage,
        blocks: ContentBlocks,
        generation: Generation,
        max_tokens: int,
    ) -> None:
        self._message = message
        self._blocks = blocks
        self._generation = generation
        self._max_tokens = max_tokens
        self._has_begun = False
        self._end: EndReason | None = None

    def open(self) -> bytes:
        return b""  # how much of the prompt was cached is not known yet

    def write(self, deltas: list[Delta]) -> bytes:
        events = self._opening()
        for delta in deltas:
            events += self._read(delta)
        return _send(events)

    def close(self, generation: Generation) -> bytes:
        self._complete(generation)
        message = self._message
        assert message.stop_reason is not None
        ending = StopDelta(stop_reason=message.stop_reason, stop_sequence=message.stop_sequence)
        return _send([MessageDelta(delta=ending, usage=message.usage), MessageStop()])

    def fail(self, error: ApiError) -> bytes:
        return _send([anthropic_error(error)])

    def whole(self, generation: Generation, deltas: list[Delta]) -> AnthropicMessage:
        for delta in deltas:
            for _ in self._read(delta):
                pass
        self._complete(generation)
        self._message.content = self._blocks.blocks
        return self._message

    def _opening(self) -> list[MessageEvent]:
        if self._has_begun:
            return []
        self._has_begun = True
        self._message.usage = MessageUsage.of(self._generation.usage)
        return [MessageStart(message=self._message)]

    def _read(self, delta: Delta) -> Iterator[MessageEvent]:
        yield from self._blocks.push(delta.text)
        if delta.finish_reason is not None:
            self._end = delta.finish_reason
            yield from self._blocks.finish()

    def _complete(self, generation: Generation) -> None:
        message = self._message
        message.usage = MessageUsage.of(generation.usage)
        # A call in lines of text ends with a stop string that is not the client's.
        message.stop_sequence = None if self._blocks.has_calls else generation.stop_string
        message.stop_reason = self._stop_reason(generation)

    def _stop_reason(self, generation: Generation) -> StopReason:
        if self._end == "length":
            is_full = generation.usage.completion_tokens < self._max_tokens
            return "model_context_window_exceeded" if is_full else "max_tokens"
        if self._message.stop_sequence is not None:
            return "stop_sequence"
        return "tool_use" if self._blocks.has_calls else "end_turn"


def _send(events: Iterable[MessageEvent]) -> bytes:
    return b"".join(event(told, str(told.__struct_config__.tag)) for told in events)
