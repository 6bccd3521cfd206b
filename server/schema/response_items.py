"""`/v1/responses`: the items that go in and come out; a conversation is a list of them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from server.schema.usage import TokenLogprob

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class InputText(msgspec.Struct, tag_field="type", tag="input_text", kw_only=True):
    """A piece of what the user or the developer says."""

    text: str


class OutputText(msgspec.Struct, tag_field="type", tag="output_text", kw_only=True):
    """A piece of what the model says."""

    text: str
    annotations: list[Any] = []
    logprobs: list[TokenLogprob] = []


class OutputRefusal(msgspec.Struct, tag_field="type", tag="refusal", kw_only=True):
    """What a model once said instead of an answer; read like text."""

    refusal: str


class MessageItem(msgspec.Struct, tag_field="type", tag="message", kw_only=True):
    """A message that goes in; `type` may be left out."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputText | OutputText | OutputRefusal]
    id: str | None = None
    status: ItemStatus | None = None


class FunctionCallItem(msgspec.Struct, tag_field="type", tag="function_call", kw_only=True):
    """A call that the model makes or made; `arguments` is JSON in a string."""

    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: ItemStatus | None = None


class OutputPart(msgspec.Struct, kw_only=True):
    """A piece of what a function answered."""

    type: Literal["input_text"]
    text: str


class FunctionCallOutputItem(
    msgspec.Struct, tag_field="type", tag="function_call_output", kw_only=True
):
    """What a function answered."""

    call_id: str
    output: str | list[OutputPart]
    id: str | None = None
    status: ItemStatus | None = None


class SummaryPart(msgspec.Struct, kw_only=True):
    """A piece of a summary of the reasoning; this server writes none."""

    type: Literal["summary_text"]
    text: str


class ReasoningPart(msgspec.Struct, kw_only=True):
    """A piece of the reasoning."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text", kw_only=True):
    """A piece of the reasoning, in a stream."""

    text: str


class ReasoningItem(msgspec.Struct, tag_field="type", tag="reasoning", kw_only=True):
    """What the model thinks or thought. `encrypted_content` is asked for with `include`, by clients
    that keep nothing else of it: here it is the text in base64, not a secret.
    """

    summary: list[SummaryPart] = []
    content: list[ReasoningPart] | None = None
    encrypted_content: str | None = None
    id: str | None = None
    status: ItemStatus | None = None


class ItemReference(msgspec.Struct, tag_field="type", tag="item_reference", kw_only=True):
    """An item of an earlier response that is stored."""

    id: str


InputItem = MessageItem | FunctionCallItem | FunctionCallOutputItem | ReasoningItem | ItemReference
ConversationItem = MessageItem | FunctionCallItem | FunctionCallOutputItem | ReasoningItem


class OutputMessage(msgspec.Struct, tag_field="type", tag="message", kw_only=True):
    """A message that comes out."""

    id: str
    role: Literal["assistant"] = "assistant"
    status: ItemStatus
    content: list[OutputText]


OutputItem = OutputMessage | FunctionCallItem | ReasoningItem


class ItemList(msgspec.Struct, kw_only=True):
    """What went into a response, a page of it."""

    object: Literal["list"] = "list"
    data: list[ConversationItem]
    first_id: str | None
    last_id: str | None
    has_more: bool
