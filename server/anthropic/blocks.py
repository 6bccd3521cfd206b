"""An answer's text as content blocks, and as the events that tell of them in a stream."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from server.schema.anthropic import TextBlock, ThinkingBlock, ToolUseBlock
from server.schema.anthropic_answer import (
    ContentBlock,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    InputJsonDelta,
    MessageEvent,
    TextDelta,
    ThinkingDelta,
)
from server.text.parsing.events import AnswerReader, CallBegin, Content, Event, Reasoning


class ContentBlocks:
    """The blocks of one answer, in the order in which they begin; one is open at a time.

    Args:
        parser: A fresh one.
    """

    def __init__(self, parser: AnswerReader) -> None:
        self.blocks: list[ContentBlock] = []
        self._parser = parser
        self._is_open = False  # the last block goes on
        self._pieces: list[str] = []  # of its text or input

    @property
    def has_calls(self) -> bool:
        return self._parser.num_calls > 0

    def push(self, text: str) -> Iterator[MessageEvent]:
        """Take in what a step brought."""
        yield from self._tell(self._parser.push(text))

    def finish(self) -> Iterator[MessageEvent]:
        """The answer has ended."""
        yield from self._tell(self._parser.flush())
        if self._is_open:
            yield self._close()

    @property
    def _index(self) -> int:
        return len(self.blocks) - 1

    def _tell(self, events: list[Event]) -> Iterator[MessageEvent]:
        for said in events:
            if isinstance(said, CallBegin):
                block = ToolUseBlock(id=f"toolu_{uuid.uuid4().hex[:24]}", name=said.name, input={})
                yield from self._begin(block)
                continue
            delta: TextDelta | ThinkingDelta | InputJsonDelta
            if isinstance(said, Content):
                if not self._continues(TextBlock):
                    yield from self._begin(TextBlock(text=""))
                delta = TextDelta(text=said.text)
            elif isinstance(said, Reasoning):
                if not self._continues(ThinkingBlock):
                    yield from self._begin(ThinkingBlock(thinking=""))
                delta = ThinkingDelta(thinking=said.text)
            else:
                delta = InputJsonDelta(partial_json=said.text)
            self._pieces.append(said.text)
            yield ContentBlockDelta(index=self._index, delta=delta)

    def _continues(self, kind: type[TextBlock | ThinkingBlock]) -> bool:
        return self._is_open and isinstance(self.blocks[-1], kind)

    def _begin(self, block: ContentBlock) -> Iterator[MessageEvent]:
        if self._is_open:
            yield self._close()
        self.blocks.append(block)
        self._is_open, self._pieces = True, []
        yield ContentBlockStart(index=self._index, content_block=msgspec.structs.replace(block))

    def _close(self) -> MessageEvent:
        block, text = self.blocks[-1], "".join(self._pieces)
        self._is_open = False
        if isinstance(block, ToolUseBlock):
            block.input = _object(text)
        elif isinstance(block, ThinkingBlock):
            block.thinking = text
        else:
            block.text = text
        return ContentBlockStop(index=self._index)


def _object(text: str) -> dict[str, Any]:
    """A call's input; one that was cut off has none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
