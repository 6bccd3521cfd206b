"""How one model marks its reasoning and its calls: told from its template and its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from server.text.constraints import ReasoningTokens
from server.text.parsing.events import CALL_BEGIN
from server.text.parsing.reasoning import BEGIN as REASONING_BEGIN
from server.text.parsing.reasoning import END as REASONING_END
from server.text.tokenizer import Tokenizer
from server.text.tool_calls import CallForm, call_form

_TURN_BEGIN = "<|im_start|>"

_LONGEST_ROLE = 16  # tokens of a small vocabulary

# Whether an answer begins within the reasoning, may begin one, or has none.
ReasoningState = Literal["open", "possible", "none"]


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """What is special in a model's answers.

    Attributes:
        call_form: How it calls functions; None where its template teaches none.
        call_begin: The token that begins a call; None where that takes several.
        reasoning: The tokens around its reasoning; None where it has none.
        turn_begin: The token that begins a turn.
    """

    call_form: CallForm | None = None
    call_begin: int | None = None
    reasoning: ReasoningTokens | None = None
    turn_begin: int | None = None

    @classmethod
    def of(cls, tokenizer: Tokenizer, template: str) -> ChatFormat:
        """The format that a template's source teaches."""
        return cls(
            form := call_form(template),
            None if form == "react" else tokenizer.token_id(CALL_BEGIN),
            _reasoning_tokens(tokenizer) if REASONING_END in template else None,
            tokenizer.token_id(_TURN_BEGIN),
        )

    def reasoning_state(self, prompt: Sequence[int]) -> ReasoningState:
        """Where the answer to a prompt begins, from the turn that the prompt leaves open."""
        if self.reasoning is None:
            return "none"
        for distance, token_id in enumerate(reversed(prompt)):
            if token_id == self.reasoning.end:
                return "none"
            if token_id == self.reasoning.begin:
                return "open"
            if token_id == self.turn_begin:
                # The role and a line break, and no word of an answer that is to be continued.
                return "possible" if distance <= _LONGEST_ROLE else "none"
        return "none"


class ReasoningCounter:
    """Counts the tokens of one answer's reasoning, its marks included."""

    def __init__(self, tokens: ReasoningTokens, state: ReasoningState) -> None:
        self.count = 0
        self._tokens = tokens
        self._state = state

    def push(self, token_id: int) -> None:
        """Take in the answer's next token."""
        if self._state == "possible":
            self._state = "open" if token_id == self._tokens.begin else "none"
        if self._state == "open":
            self.count += 1
            if token_id == self._tokens.end:
                self._state = "none"


def _reasoning_tokens(tokenizer: Tokenizer) -> ReasoningTokens | None:
    begin, end = tokenizer.token_id(REASONING_BEGIN), tokenizer.token_id(REASONING_END)
    if begin is None or end is None:
        return None
    line_breaks = [ids[0] for text in ("\n", "\n\n") if len(ids := tokenizer.encode(text)) == 1]
    return ReasoningTokens(begin, end, (*tokenizer.encode("\n"), end), frozenset(line_breaks))
