"""An answer's text as output items, and as the events that tell of them in a stream."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import msgspec

from server.responses.conversation import sealed
from server.schema.response_events import (
    ContentPartAdded,
    ContentPartDone,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTextDone,
    ReasoningTextDelta,
    ReasoningTextDone,
    ResponseEvent,
)
from server.schema.response_items import (
    FunctionCallItem,
    ItemStatus,
    OutputItem,
    OutputMessage,
    OutputText,
    ReasoningItem,
    ReasoningPart,
    ReasoningText,
)
from server.schema.usage import TokenLogprob
from server.text.parsing.events import AnswerReader, CallBegin, Content, Event, Reasoning


class OutputItems:
    """The items of one answer, in the order in which they begin; one is open at a time.

    Args:
        parser: A fresh one.
        seals_reasoning: Whether reasoning is also given as `encrypted_content`.
    """

    def __init__(self, parser: AnswerReader, *, seals_reasoning: bool) -> None:
        self.items: list[OutputItem] = []
        self._parser = parser
        self._seals_reasoning = seals_reasoning
        self._is_open = False  # the last item goes on
        self._pieces: list[str] = []  # of its text or arguments
        self._logprobs: list[TokenLogprob] = []  # of its text

    def push(self, text: str, logprobs: list[TokenLogprob]) -> Iterator[ResponseEvent]:
        """Take in what a step brought; logprobs belong to the text, if it is of a message."""
        yield from self._tell(self._parser.push(text), logprobs)

    def finish(self, *, is_cut: bool) -> Iterator[ResponseEvent]:
        """The answer has ended, or was cut off; one without items gets an empty message."""
        yield from self._tell(self._parser.flush(), [])
        if not self.items:
            yield from self._open(_new_message())
        yield from self._close("incomplete" if is_cut else "completed")

    @property
    def _index(self) -> int:
        return len(self.items) - 1

    def _tell(self, events: list[Event], logprobs: list[TokenLogprob]) -> Iterator[ResponseEvent]:
        for said in events:
            if isinstance(said, CallBegin):
                yield from self._begin(_new_call(said.name))
                continue
            if isinstance(said, Content):
                if not self._continues(OutputMessage):
                    yield from self._begin(_new_message())
                yield self._text_delta(said.text, logprobs)
                logprobs = []
            elif isinstance(said, Reasoning):
                if not self._continues(ReasoningItem):
                    yield from self._begin(_new_reasoning())
                yield ReasoningTextDelta(
                    item_id=self._id, output_index=self._index, delta=said.text
                )
            else:
                yield FunctionCallArgumentsDelta(
                    item_id=self._id, output_index=self._index, delta=said.text
                )
            self._pieces.append(said.text)

    def _text_delta(self, text: str, logprobs: list[TokenLogprob]) -> ResponseEvent:
        self._logprobs += logprobs
        return OutputTextDelta(
            item_id=self._id, output_index=self._index, delta=text, logprobs=logprobs
        )

    def _continues(self, kind: type[OutputMessage | ReasoningItem]) -> bool:
        return self._is_open and isinstance(self.items[-1], kind)

    @property
    def _id(self) -> str:
        item_id = self.items[-1].id
        assert item_id is not None
        return item_id

    def _begin(self, item: OutputItem) -> Iterator[ResponseEvent]:
        if self._is_open:
            yield from self._close("completed")
        yield from self._open(item)

    def _open(self, item: OutputItem) -> Iterator[ResponseEvent]:
        self.items.append(item)
        self._is_open, self._pieces, self._logprobs = True, [], []
        yield OutputItemAdded(output_index=self._index, item=msgspec.structs.replace(item))
        if not isinstance(item, FunctionCallItem):
            part = (
                OutputText(text="") if isinstance(item, OutputMessage) else ReasoningText(text="")
            )
            yield ContentPartAdded(item_id=self._id, output_index=self._index, part=part)

    def _close(self, status: ItemStatus) -> Iterator[ResponseEvent]:
        item, text = self.items[-1], "".join(self._pieces)
        id, index = self._id, self._index
        self._is_open = False
        item.status = status
        if isinstance(item, FunctionCallItem):
            item.arguments = text
            yield FunctionCallArgumentsDone(
                item_id=id, output_index=index, name=item.name, arguments=text
            )
        elif isinstance(item, ReasoningItem):
            item.content = [ReasoningPart(type="reasoning_text", text=text)]
            item.encrypted_content = sealed(text) if self._seals_reasoning else None
            yield ReasoningTextDone(item_id=id, output_index=index, text=text)
            yield ContentPartDone(item_id=id, output_index=index, part=ReasoningText(text=text))
        else:
            part = OutputText(text=text, logprobs=self._logprobs)
            item.content = [part]
            yield OutputTextDone(item_id=id, output_index=index, text=text, logprobs=self._logprobs)
            yield ContentPartDone(item_id=id, output_index=index, part=part)
        yield OutputItemDone(output_index=self._index, item=item)


def _new_message() -> OutputMessage:
    return OutputMessage(id=new_id("msg"), status="in_progress", content=[])


def _new_reasoning() -> ReasoningItem:
    return ReasoningItem(id=new_id("rs"), status="in_progress", content=[])


def _new_call(name: str) -> FunctionCallItem:
    return FunctionCallItem(
        id=new_id("fc"),
        call_id=f"call_{uuid.uuid4().hex[:24]}",
        name=name,
        arguments="",
        status="in_progress",
    )


def new_id(prefix: str) -> str:
    """The id of an item that goes in or comes out."""
    return f"{prefix}_{uuid.uuid4().hex}"
