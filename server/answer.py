"""The growing text of one sequence: token ids in, deltas out; it knows no engine and no HTTP."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal, NamedTuple

from engines.llm.output import StepOutput, TokenLogprobs
from engines.llm.sequence import FinishReason
from server.text.chat_format import ReasoningCounter
from server.text.detokenizer import Detokenizer
from server.text.stop_strings import StopMatcher

EndReason = Literal["stop", "length"]


class TokenEntry(NamedTuple):
    """One token of an answer with its logprobs, which the first of an echoed prompt lacks."""

    token_id: int
    offset: int  # where it begins, in characters from the beginning of the text
    logprobs: TokenLogprobs | None


class Delta(NamedTuple):
    """What some steps added to one answer; the last one has the `finish_reason`."""

    choice: int
    text: str
    finish_reason: EndReason | None
    entries: Sequence[TokenEntry]


class Answer:
    """One of a request's answers.

    The token that ends an answer (end of sequence or stop token) counts, but has no text and no
    entry; so do tokens that are wholly part of a stop string.

    Args:
        index: Of the choice.
        detokenizer: A fresh one.
        stop_matcher: A fresh one, or None without stop strings.
        echo: The prompt's text, to come before the answer, or None.
        reasoning: Counts the tokens of the answer's reasoning.
    """

    __slots__ = (
        "_decoded",
        "_detokenizer",
        "_echo",
        "_emitted",
        "_entries",
        "_reasoning",
        "_stop_matcher",
        "finish_reason",
        "index",
        "num_tokens",
    )

    def __init__(
        self,
        index: int,
        detokenizer: Detokenizer,
        stop_matcher: StopMatcher | None = None,
        echo: str | None = None,
        reasoning: ReasoningCounter | None = None,
    ) -> None:
        self.index = index
        self.num_tokens = 0
        self.finish_reason: EndReason | None = None
        self._detokenizer = detokenizer
        self._stop_matcher = stop_matcher
        self._echo = echo
        self._reasoning = reasoning
        self._decoded = 0  # characters of all tokens so far
        self._emitted = 0  # those that are certain to belong to the answer
        self._entries: deque[TokenEntry] = deque()  # of tokens that may yet turn out not to

    def push(self, output: StepOutput) -> str:
        """Take in one step; returns the text that it made certain.

        Sets `finish_reason` when the answer is complete, be it by the engine or by a stop string.
        """
        text = "" if self._echo is None else self._take_echo()
        token_id = output.token_id
        if token_id is not None:
            self.num_tokens += 1
            if self._reasoning is not None:
                self._reasoning.push(token_id)
            if output.finish_reason is not FinishReason.STOP:
                text += self._add_token(token_id, output.logprobs)
        if output.finish_reason is not None and self.finish_reason is None:
            text += self._finish(output.finish_reason)
        self._emitted += len(text)
        return text

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the answer, if one did."""
        return None if self._stop_matcher is None else self._stop_matcher.matched

    @property
    def num_reasoning_tokens(self) -> int:
        return 0 if self._reasoning is None else self._reasoning.count

    def add_prompt_entries(self, entries: list[TokenEntry]) -> None:
        """Put the tokens of an echoed prompt before those of the answer."""
        self._entries.extend(entries)

    def take_entries(self) -> Sequence[TokenEntry]:
        """The tokens whose text has been returned by now, each once."""
        entries = self._entries
        if not entries:
            return ()
        if self.finish_reason is not None and not self._is_stopped:
            self._entries = deque()
            return list(entries)
        taken = []
        while entries and entries[0].offset < self._emitted:
            taken.append(entries.popleft())
        return taken

    @property
    def _is_stopped(self) -> bool:
        return self._stop_matcher is not None and self._stop_matcher.is_stopped

    def _take_echo(self) -> str:
        echo, self._echo = self._echo or "", None
        self._decoded += len(echo)
        return echo

    def _add_token(self, token_id: int, logprobs: TokenLogprobs | None) -> str:
        text = self._detokenizer.push(token_id)
        if logprobs is not None:
            self._entries.append(TokenEntry(token_id, self._decoded, logprobs))
        self._decoded += len(text)
        return self._match(text)

    def _match(self, text: str) -> str:
        matcher = self._stop_matcher
        if matcher is None:
            return text
        text = matcher.push(text)
        if matcher.is_stopped:
            self.finish_reason = "stop"
        return text

    def _finish(self, reason: FinishReason) -> str:
        text = self._match(self._detokenizer.flush())
        if self.finish_reason is None:
            self.finish_reason = "length" if reason is FinishReason.LENGTH else "stop"
            if self._stop_matcher is not None:
                text += self._stop_matcher.flush()
        return text
