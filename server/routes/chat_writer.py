"""Deltas of chat answers as OpenAI objects: whole, or as the chunks of a stream."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence

from msgspec import UNSET

from server.answer import Delta, TokenEntry
from server.generation import Generation
from server.routes.answering import (
    DONE,
    AnswerIdentity,
    CompletionEvents,
    by_choice,
    encode,
    event,
)
from server.routes.chat_logprobs import chat_logprobs
from server.schema.chat_answer import (
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatMessage,
    FinishReason,
)
from server.schema.tools import CalledFunction, FunctionDelta, MessageToolCall, ToolCallDelta
from server.schema.usage import ChoiceLogprobs
from server.text.parsing.events import (
    AnswerReader,
    CallArguments,
    CallBegin,
    Content,
    Event,
    Reasoning,
)
from server.text.tokenizer import Tokenizer

# Stands for a chunk's text while its frame is made; nothing behind the text looks like it.
_PLACEHOLDER = "\x00"


class _Choice:
    """One streamed answer: its parser, and the halves of a chunk that text is put between."""

    def __init__(self, parser: AnswerReader, frame: tuple[bytes, bytes]) -> None:
        self.parser = parser
        self.frame = frame


class ChatWriter(CompletionEvents):
    """Writes one answer; in a stream the role, what is said and the finish reason of each choice,
    then usage.

    Args:
        identity: What the answer says of itself.
        tokenizer: Names the tokens of logprobs.
        new_parser: Makes the parser of each choice.
        has_logprobs: Whether they were asked for.
        includes_usage: Whether a stream ends with the usage.
        is_legacy: Whether calls are told in the form before tools, which knows one call.
    """

    def __init__(
        self,
        identity: AnswerIdentity,
        tokenizer: Tokenizer,
        new_parser: Callable[[], AnswerReader],
        *,
        has_logprobs: bool,
        includes_usage: bool,
        is_legacy: bool = False,
    ) -> None:
        self._identity = identity
        self._tokenizer = tokenizer
        self._new_parser = new_parser
        self._has_logprobs = has_logprobs
        self._includes_usage = includes_usage
        self._is_legacy = is_legacy
        self._choices: dict[int, _Choice] = {}

    def write(self, deltas: list[Delta]) -> bytes:
        written: list[bytes] = []
        for delta in deltas:
            if delta.choice not in self._choices:
                written.append(self._open(delta.choice))
            written += self._said(self._choices[delta.choice], delta)
            if delta.finish_reason is not None:
                parser = self._choices[delta.choice].parser
                reason = self._finish_reason(delta.finish_reason, parser)
                written.append(self._event(delta.choice, ChatDelta(), finish_reason=reason))
        return b"".join(written)

    def close(self, generation: Generation) -> bytes:
        if not self._includes_usage:
            return DONE
        chunk = self._chunk([])
        chunk.usage = generation.usage
        return event(chunk) + DONE

    def whole(self, generation: Generation, deltas: list[Delta]) -> ChatCompletion:
        identity = self._identity
        return ChatCompletion(
            id=identity.id,
            created=identity.created,
            model=identity.model,
            system_fingerprint=identity.system_fingerprint,
            choices=[self._choice(index, own) for index, own in by_choice(deltas)],
            usage=generation.usage,
        )

    def _choice(self, index: int, deltas: list[Delta]) -> ChatChoice:
        finish_reason = deltas[-1].finish_reason
        assert finish_reason is not None
        parser = self._new_parser()
        events = parser.push("".join(delta.text for delta in deltas)) + parser.flush()
        entries = [entry for delta in deltas for entry in delta.entries]
        return ChatChoice(
            index=index,
            message=self._message(events),
            logprobs=self._logprobs(entries),
            finish_reason=self._finish_reason(finish_reason, parser),
        )

    def _message(self, events: list[Event]) -> ChatMessage:
        content = "".join(event.text for event in events if isinstance(event, Content))
        reasoning = "".join(event.text for event in events if isinstance(event, Reasoning))
        calls = [
            CalledFunction(name=event.name, arguments=_arguments(events, event.call))
            for event in events
            if isinstance(event, CallBegin)
        ]
        message = ChatMessage(content=None if calls and not content else content)
        if reasoning:
            message.reasoning_content = message.reasoning = reasoning
        if calls and self._is_legacy:
            message.function_call = calls[0]
        elif calls:
            message.tool_calls = [MessageToolCall(id=_call_id(), function=call) for call in calls]
        return message

    def _finish_reason(self, reason: FinishReason, parser: AnswerReader) -> FinishReason:
        if reason != "stop" or not parser.num_calls:
            return reason
        return "function_call" if self._is_legacy else "tool_calls"

    def _open(self, choice: int) -> bytes:
        frame = self._event(choice, ChatDelta(content=_PLACEHOLDER))
        head, _, tail = frame.rpartition(encode(_PLACEHOLDER))
        self._choices[choice] = _Choice(self._new_parser(), (head, tail))
        return self._event(choice, ChatDelta(role="assistant", content=""))

    def _said(self, choice: _Choice, delta: Delta) -> Iterator[bytes]:
        events = choice.parser.push(delta.text)
        if delta.finish_reason is not None:
            events += choice.parser.flush()
        logprobs = self._logprobs(delta.entries) if delta.entries else None
        if logprobs is not None and not events:
            events = [Content("")]  # the text of these tokens comes later, or never
        for said in events:
            if isinstance(said, Content) and logprobs is None:
                head, tail = choice.frame
                yield b"%b%b%b" % (head, encode(said.text), tail)
            elif (told := self._delta(said)) is not None:
                yield self._event(delta.choice, told, logprobs)
            logprobs = None

    def _delta(self, said: Event) -> ChatDelta | None:
        """None for the further calls of an answer in the older form."""
        if isinstance(said, Content):
            return ChatDelta(content=said.text)
        if isinstance(said, Reasoning):
            return ChatDelta(reasoning_content=said.text, reasoning=said.text)
        if isinstance(said, CallBegin):
            function = FunctionDelta(name=said.name, arguments="")
        else:
            function = FunctionDelta(arguments=said.text)
        if self._is_legacy:
            return ChatDelta(function_call=function) if said.call == 0 else None
        call = ToolCallDelta(index=said.call, function=function)
        if isinstance(said, CallBegin):
            call.id, call.type = _call_id(), "function"
        return ChatDelta(tool_calls=[call])

    def _logprobs(self, entries: Sequence[TokenEntry]) -> ChoiceLogprobs | None:
        if not self._has_logprobs:
            return None
        return ChoiceLogprobs(content=chat_logprobs(entries, self._tokenizer))

    def _event(
        self,
        choice: int,
        delta: ChatDelta,
        logprobs: ChoiceLogprobs | None = None,
        finish_reason: FinishReason | None = None,
    ) -> bytes:
        return event(
            self._chunk(
                [
                    ChatChunkChoice(
                        index=choice, delta=delta, logprobs=logprobs, finish_reason=finish_reason
                    )
                ]
            )
        )

    def _chunk(self, choices: list[ChatChunkChoice]) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self._identity.id,
            created=self._identity.created,
            model=self._identity.model,
            system_fingerprint=self._identity.system_fingerprint,
            choices=choices,
            usage=None if self._includes_usage else UNSET,
        )


def _arguments(events: list[Event], call: int) -> str:
    return "".join(
        event.text for event in events if isinstance(event, CallArguments) and event.call == call
    )


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"
