"""Deltas of text completions as OpenAI objects: whole, or as the chunks of a stream."""

from __future__ import annotations

from collections.abc import Sequence

from server.answer import Delta, EndReason, TokenEntry
from server.generation import Generation
from server.routes.answering import (
    DONE,
    AnswerIdentity,
    CompletionEvents,
    by_choice,
    encode,
    event,
)
from server.schema.completions import Completion, CompletionChoice
from server.schema.usage import CompletionLogprobs, finite
from server.text.tokenizer import Tokenizer

# Stands for a chunk's text while its frame is made; nothing behind the text looks like it.
_PLACEHOLDER = "\x00"


class CompletionWriter(CompletionEvents):
    """Writes one answer; in a stream the text and finish reason of each choice, then usage."""

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
            if delta.text or delta.entries:
                written.append(self._text(delta))
            if delta.finish_reason is not None:
                written.append(self._event(delta.choice, "", None, delta.finish_reason))
        return b"".join(written)

    def close(self, generation: Generation) -> bytes:
        if not self._includes_usage:
            return DONE
        completion = self._completion([])
        completion.usage = generation.usage
        return event(completion) + DONE

    def whole(self, generation: Generation, deltas: list[Delta]) -> Completion:
        choices = [self._choice(index, own) for index, own in by_choice(deltas)]
        completion = self._completion(choices)
        completion.usage = generation.usage
        return completion

    def _choice(self, index: int, deltas: list[Delta]) -> CompletionChoice:
        entries = [entry for delta in deltas for entry in delta.entries]
        logprobs = completion_logprobs(entries, self._tokenizer)
        return CompletionChoice(
            index=index,
            text="".join(delta.text for delta in deltas),
            logprobs=logprobs if self._has_logprobs else None,
            finish_reason=deltas[-1].finish_reason,
        )

    def _completion(self, choices: list[CompletionChoice]) -> Completion:
        return Completion(
            id=self._identity.id,
            created=self._identity.created,
            model=self._identity.model,
            system_fingerprint=self._identity.system_fingerprint,
            choices=choices,
        )

    def _text(self, delta: Delta) -> bytes:
        if self._has_logprobs:
            logprobs = completion_logprobs(delta.entries, self._tokenizer)
            return self._event(delta.choice, delta.text, logprobs, None)
        frame = self._frames.get(delta.choice)
        if frame is None:
            framed = self._event(delta.choice, _PLACEHOLDER, None, None)
            head, _, tail = framed.rpartition(encode(_PLACEHOLDER))
            frame = self._frames[delta.choice] = head, tail
        return b"%b%b%b" % (frame[0], encode(delta.text), frame[1])

    def _event(
        self,
        choice: int,
        text: str,
        logprobs: CompletionLogprobs | None,
        reason: EndReason | None,
    ) -> bytes:
        completion = self._completion(
            [CompletionChoice(index=choice, text=text, logprobs=logprobs, finish_reason=reason)],
        )
        if self._includes_usage:
            completion.usage = None
        return event(completion)


def completion_logprobs(entries: Sequence[TokenEntry], tokenizer: Tokenizer) -> CompletionLogprobs:
    """Tokens as text completions list them; the most likely ones include the chosen one."""
    logprobs = CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
    for entry in entries:
        token = _token_text(entry.token_id, tokenizer)
        logprobs.tokens.append(token)
        logprobs.text_offset.append(entry.offset)
        if entry.logprobs is None:
            logprobs.token_logprobs.append(None)
            logprobs.top_logprobs.append(None)
            continue
        logprob = finite(entry.logprobs.logprob)
        top = {_token_text(id, tokenizer): finite(value) for id, value in entry.logprobs.top}
        logprobs.token_logprobs.append(logprob)
        logprobs.top_logprobs.append(top | {token: logprob})
    return logprobs


def _token_text(token_id: int, tokenizer: Tokenizer) -> str:
    """A token that is no whole text is named by its bytes, so that no two share a name."""
    text, _ = tokenizer.token_text(token_id)
    return text if isinstance(tokenizer.full_table[token_id], str) else f"bytes:{text}"
