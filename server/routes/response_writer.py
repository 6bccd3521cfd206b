"""Deltas of an answer as a response object: whole, or as the events of a stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from server.answer import Delta
from server.errors import ApiError
from server.generation import Generation
from server.responses.items import OutputItems
from server.routes.answering import event
from server.routes.chat_logprobs import chat_logprobs
from server.schema.response_answer import (
    IncompleteDetails,
    ResponseError,
    ResponseObject,
    ResponseUsage,
)
from server.schema.response_events import (
    ResponseCompleted,
    ResponseCreated,
    ResponseErrorEvent,
    ResponseEvent,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
)
from server.schema.usage import TokenLogprob
from server.text.tokenizer import Tokenizer


class ResponseWriter:
    """Writes one answer, its events numbered in the order in which they are sent.

    Args:
        response: What is known of it; changed as the answer comes.
        items: Fresh ones.
        tokenizer: Names the tokens of logprobs.
        has_logprobs: Whether they were asked for.
        keep: Is given the response when it is complete.
    """

    def __init__(
        self,
        response: ResponseObject,
        items: OutputItems,
        tokenizer: Tokenizer,
        *,
        has_logprobs: bool,
        keep: Callable[[ResponseObject], None],
    ) -> None:
        self._response = response
        self._items = items
        self._tokenizer = tokenizer
        self._has_logprobs = has_logprobs
        self._keep = keep
        self._num_sent = 0
        self._is_cut = False

    def open(self) -> bytes:
        response = self._response
        return self._send(
            [ResponseCreated(response=response), ResponseInProgress(response=response)]
        )

    def write(self, deltas: list[Delta]) -> bytes:
        return self._send(told for delta in deltas for told in self._read(delta))

    def close(self, generation: Generation) -> bytes:
        self._complete(generation)
        kind = ResponseIncomplete if self._is_cut else ResponseCompleted
        return self._send([kind(response=self._response)])

    def fail(self, error: ApiError) -> bytes:
        response = self._response
        response.status = "failed"
        response.error = ResponseError.of(error.status, error.message)
        response.output = self._items.items
        broken = ResponseErrorEvent(code=error.code, message=error.message, param=error.param)
        return self._send([broken, ResponseFailed(response=response)])

    def whole(self, generation: Generation, deltas: list[Delta]) -> ResponseObject:
        for delta in deltas:
            for _ in self._read(delta):
                pass
        self._complete(generation)
        return self._response

    def _read(self, delta: Delta) -> Iterator[ResponseEvent]:
        yield from self._items.push(delta.text, self._logprobs(delta))
        if delta.finish_reason is not None:
            self._is_cut = delta.finish_reason == "length"
            yield from self._items.finish(is_cut=self._is_cut)

    def _logprobs(self, delta: Delta) -> list[TokenLogprob]:
        return chat_logprobs(delta.entries, self._tokenizer) if self._has_logprobs else []

    def _complete(self, generation: Generation) -> None:
        response = self._response
        response.output = self._items.items
        response.usage = ResponseUsage.of(generation.usage)
        response.completed_at = int(time.time())
        response.status = "incomplete" if self._is_cut else "completed"
        if self._is_cut:
            response.incomplete_details = IncompleteDetails(reason="max_output_tokens")
        self._keep(response)

    def _send(self, events: Iterable[ResponseEvent]) -> bytes:
        sent = []
        for told in events:
            told.sequence_number = self._num_sent
            self._num_sent += 1
            sent.append(event(told, str(told.__struct_config__.tag)))
        return b"".join(sent)
