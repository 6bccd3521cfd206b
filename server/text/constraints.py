"""When grammars hold: after the reasoning, and from where a call begins.

Each class implements `TokenConstraint` for one answer, around others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

import numpy as np

from engines.errors import InvalidRequest
from engines.llm.constraint import TokenConstraint, TokenMask
from server.text.grammar import GrammarState


class AnswerConstraint(TokenConstraint, Protocol):
    """One that can come to a point from which it cannot be followed; the answer ends there."""

    @property
    def failure(self) -> InvalidRequest | None:
        """What is wrong with the request, once that has happened."""
        ...


@dataclass(frozen=True, slots=True)
class ReasoningTokens:
    """What stands around the reasoning of one model.

    `closing` is what ends a block that has used up its budget; it ends with `end`.
    """

    begin: int
    end: int
    closing: tuple[int, ...]
    line_breaks: frozenset[int]  # tokens of nothing else


class _Phase(Enum):
    START = auto()  # the first token decides whether there is reasoning
    REASONING = auto()
    CLOSING = auto()  # the budget is used up
    GAP = auto()  # between the reasoning and the answer
    ANSWER = auto()


class AfterReasoning:
    """Leaves the reasoning free, up to its budget, and constrains the answer behind it.

    Args:
        tokens: The marks of the model's reasoning.
        inner: The constraint of the answer; None leaves it free too.
        is_open: Whether the prompt has begun the reasoning.
        budget: Tokens of reasoning after which the block is closed; None sets no limit.
        vocab_size: Tokens that can be sampled.
    """

    def __init__(
        self,
        tokens: ReasoningTokens,
        inner: AnswerConstraint | None,
        *,
        is_open: bool,
        budget: int | None,
        vocab_size: int,
    ) -> None:
        self._tokens = tokens
        self._inner = inner
        self._budget = budget
        self._vocab_size = vocab_size
        self._phase = _Phase.REASONING if is_open else _Phase.START
        self._num_tokens = 0  # of reasoning
        self._num_closed = 0  # of the closing tokens
        self._close_if_spent()

    @property
    def failure(self) -> InvalidRequest | None:
        return None if self._inner is None else self._inner.failure

    def mask(self) -> TokenMask | None:
        match self._phase:
            case _Phase.REASONING:
                return None
            case _Phase.CLOSING:
                return self._only(self._tokens.closing[self._num_closed])
            case _Phase.START:
                return self._with({self._tokens.begin})
            case _Phase.GAP:
                return self._with(self._tokens.line_breaks)
            case _Phase.ANSWER:
                return None if self._inner is None else self._inner.mask()

    def accept(self, token_id: int) -> None:
        tokens = self._tokens
        if self._phase is _Phase.START and token_id == tokens.begin:
            self._phase = _Phase.REASONING
            self._close_if_spent()
        elif self._phase is _Phase.REASONING:
            self._num_tokens += 1
            if token_id == tokens.end:
                self._phase = _Phase.GAP
            else:
                self._close_if_spent()
        elif self._phase is _Phase.CLOSING:
            self._num_closed += 1
            if self._num_closed == len(tokens.closing):
                self._phase = _Phase.GAP
        elif self._phase is _Phase.GAP and token_id in tokens.line_breaks:
            self._phase = _Phase.ANSWER
        else:
            self._phase = _Phase.ANSWER
            if self._inner is not None:
                self._inner.accept(token_id)

    def forced_tokens(self) -> list[int]:
        if self._phase is _Phase.CLOSING:
            return list(self._tokens.closing[self._num_closed :])
        if self._phase is not _Phase.ANSWER or self._inner is None:
            return []
        return self._inner.forced_tokens()

    def _close_if_spent(self) -> None:
        is_spent = self._budget is not None and self._num_tokens >= self._budget
        if self._phase is _Phase.REASONING and is_spent:
            self._phase = _Phase.CLOSING

    def _only(self, token_id: int) -> TokenMask:
        mask = np.zeros(-(-self._vocab_size // 32), np.uint32)
        _allow(mask, token_id)
        return mask

    def _with(self, token_ids: set[int] | frozenset[int]) -> TokenMask | None:
        """What the answer may begin with, and some tokens beside."""
        inner = None if self._inner is None else self._inner.mask()
        if inner is None:
            return None
        mask = inner.copy()
        for token_id in token_ids:
            _allow(mask, token_id)
        return mask


class WithinCalls:
    """Leaves text free and constrains every call, from behind the mark that begins it.

    Args:
        begin: The token of that mark.
        new_body: The grammar of a call's body, for each call anew.
        end: Tokens that end an answer: all that may follow a call where one is the most.
        is_parallel: Whether several calls are allowed.
        vocab_size: Tokens that can be sampled.
    """

    def __init__(
        self,
        begin: int,
        new_body: Callable[[], GrammarState],
        *,
        end: Sequence[int],
        is_parallel: bool,
        vocab_size: int,
    ) -> None:
        self._begin = begin
        self._new_body = new_body
        self._end_mask = np.zeros(-(-vocab_size // 32), np.uint32)
        for token_id in end:
            _allow(self._end_mask, token_id)
        self._is_parallel = is_parallel
        self._body: GrammarState | None = None
        self._has_called = False
        self.failure: InvalidRequest | None = None

    def mask(self) -> TokenMask | None:
        if self._body is not None:
            return self._body.mask()
        return self._end_mask if self._has_called and not self._is_parallel else None

    def accept(self, token_id: int) -> None:
        if self._body is not None:
            self._body.accept(token_id)
            self.failure = self.failure or self._body.failure
            if self._body.is_complete:
                self._body, self._has_called = None, True
        elif token_id == self._begin:
            self._body = self._new_body()

    def forced_tokens(self) -> list[int]:
        return [] if self._body is None else self._body.forced_tokens()


def _allow(mask: TokenMask, token_id: int) -> None:
    mask[token_id // 32] |= np.uint32(1 << (token_id % 32))
