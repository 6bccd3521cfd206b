"""Deltas of chat answers as OpenAI objects: whole, or as the chunks of a stream."""

from __future__ import annotations

from collections.abc import Sequence

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
from server.schema.chat import (
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatMessage,
    FinishReason,
)
from server.schema.usage import ChoiceLogprobs, TokenLogprob, TopLogprob, finite
from server.text.tokenizer import Tokenizer

# Stands for a chunk's text while its frame is made; nothing behind the text looks like it.
_PLACEHOLDER = "\x00"


class ChatWriter(CompletionEvents):
    """Writes one answer; in a stream the role, text and finish reason of each choice, then usage.

    A chunk of text is put between two halves that are encoded once for each choice.
    """

    def __init__(
        self,
        identity: AnswerIdentity,
        tokenizer: Tokenizer,
        *,
        has_logprobs: bool,
        includes_usage: bool,
    ) -> None:
        self._identity = identity
        self._tokenizer = tokenizer
        self._has_logprobs = has_logprobs
        self._includes_usage = includes_usage
        self._frames: dict[int, tuple[bytes, bytes]] = {}

    def write(self, deltas: list[Delta]) -> bytes:
        written = []
        for delta in deltas:
            if delta.choice not in self._frames:
                written.append(self._open(delta.choice))
            if delta.text or delta.entries:
                written.append(self._text(delta))
            if delta.finish_reason is not None:
                written.append(self._finish(delta.choice, delta.finish_reason))
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
        entries = [entry for delta in deltas for entry in delta.entries]
        logprobs = ChoiceLogprobs(content=chat_logprobs(entries, self._tokenizer))
        return ChatChoice(
            index=index,
            message=ChatMessage(content="".join(delta.text for delta in deltas)),
            logprobs=logprobs if self._has_logprobs else None,
            finish_reason=finish_reason,
        )

    def _open(self, choice: int) -> bytes:
        frame = self._event(choice, ChatDelta(content=_PLACEHOLDER))
        head, _, tail = frame.rpartition(encode(_PLACEHOLDER))
        self._frames[choice] = head, tail
        return self._event(choice, ChatDelta(role="assistant", content=""))

    def _text(self, delta: Delta) -> bytes:
        if not self._has_logprobs:
            head, tail = self._frames[delta.choice]
            return b"%b%b%b" % (head, encode(delta.text), tail)
        return self._event(
            delta.choice,
            ChatDelta(content=delta.text),
            ChoiceLogprobs(content=chat_logprobs(delta.entries, self._tokenizer)),
        )

    def _finish(self, choice: int, reason: FinishReason) -> bytes:
        return self._event(choice, ChatDelta(), finish_reason=reason)

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
        chunk = ChatCompletionChunk(
            id=self._identity.id,
            created=self._identity.created,
            model=self._identity.model,
            system_fingerprint=self._identity.system_fingerprint,
            choices=choices,
        )
        if self._includes_usage:
            chunk.usage = None
        return chunk


def chat_logprobs(entries: Sequence[TokenEntry], tokenizer: Tokenizer) -> list[TokenLogprob]:
    """The tokens of an answer as OpenAI lists them."""
    tokens = []
    for entry in entries:
        assert entry.logprobs is not None
        text, text_bytes = tokenizer.token_text(entry.token_id)
        tokens.append(
            TokenLogprob(
                token=text,
                logprob=finite(entry.logprobs.logprob),
                bytes=text_bytes,
                top_logprobs=[
                    _top_logprob(token_id, logprob, tokenizer)
                    for token_id, logprob in entry.logprobs.top
                ],
            )
        )
    return tokens


def _top_logprob(token_id: int, logprob: float, tokenizer: Tokenizer) -> TopLogprob:
    text, text_bytes = tokenizer.token_text(token_id)
    return TopLogprob(token=text, logprob=finite(logprob), bytes=text_bytes)
