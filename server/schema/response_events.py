"""`/v1/responses`: the events of a streamed answer, numbered from 0 in `sequence_number`."""

from __future__ import annotations

import msgspec

from server.schema.response_answer import ResponseObject
from server.schema.response_items import OutputItem, OutputText, ReasoningText
from server.schema.usage import TokenLogprob


class _Event(msgspec.Struct, tag_field="type", kw_only=True):
    sequence_number: int = 0  # set when the event is sent


class ResponseCreated(_Event, tag="response.created", kw_only=True):
    response: ResponseObject


class ResponseInProgress(_Event, tag="response.in_progress", kw_only=True):
    response: ResponseObject


class ResponseCompleted(_Event, tag="response.completed", kw_only=True):
    response: ResponseObject


class ResponseIncomplete(_Event, tag="response.incomplete", kw_only=True):
    response: ResponseObject


class ResponseFailed(_Event, tag="response.failed", kw_only=True):
    response: ResponseObject


class ResponseErrorEvent(_Event, tag="error", kw_only=True):
    """What broke off the stream; `response.failed` follows."""

    code: str | None
    message: str
    param: str | None


class OutputItemAdded(_Event, tag="response.output_item.added", kw_only=True):
    output_index: int
    item: OutputItem


class OutputItemDone(_Event, tag="response.output_item.done", kw_only=True):
    output_index: int
    item: OutputItem


class _ItemEvent(_Event, kw_only=True):
    item_id: str
    output_index: int


class _PartEvent(_ItemEvent, kw_only=True):
    content_index: int = 0


class ContentPartAdded(_PartEvent, tag="response.content_part.added", kw_only=True):
    part: OutputText | ReasoningText


class ContentPartDone(_PartEvent, tag="response.content_part.done", kw_only=True):
    part: OutputText | ReasoningText


class OutputTextDelta(_PartEvent, tag="response.output_text.delta", kw_only=True):
    delta: str
    logprobs: list[TokenLogprob]


class OutputTextDone(_PartEvent, tag="response.output_text.done", kw_only=True):
    text: str
    logprobs: list[TokenLogprob]


class ReasoningTextDelta(_PartEvent, tag="response.reasoning_text.delta", kw_only=True):
    delta: str


class ReasoningTextDone(_PartEvent, tag="response.reasoning_text.done", kw_only=True):
    text: str


class FunctionCallArgumentsDelta(
    _ItemEvent, tag="response.function_call_arguments.delta", kw_only=True
):
    delta: str


class FunctionCallArgumentsDone(
    _ItemEvent, tag="response.function_call_arguments.done", kw_only=True
):
    name: str
    arguments: str


ResponseEvent = (
    ResponseCreated
    | ResponseInProgress
    | OutputItemAdded
    | ContentPartAdded
    | OutputTextDelta
    | OutputTextDone
    | ReasoningTextDelta
    | ReasoningTextDone
    | ContentPartDone
    | FunctionCallArgumentsDelta
    | FunctionCallArgumentsDone
    | OutputItemDone
    | ResponseCompleted
    | ResponseIncomplete
    | ResponseFailed
    | ResponseErrorEvent
)
