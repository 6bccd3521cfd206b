"""What is asked of a conversation's next message, whichever route it came by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from server.schema.sampling import SamplingFields
from server.text.grammar import GrammarSpec
from server.text.tool_calls import Function

Message = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTask:
    """A conversation, and what its next message may be.

    Attributes:
        messages: As chat requests have them: `role`, `content`, `tool_calls`.
        sampling: How many answers, how sampled, where they end.
        answer_limit: Tokens of an answer; None for what the context has room for.
        is_limit_cut: Whether the limit may be more than the context has room for.
        total_limit: Tokens of the prompt and an answer together, at most.
        num_logprobs: Most likely tokens to tell of each token; None for no logprobs.
        tools: What the template is given, in the form of chat requests; None for none.
        functions: Those that may be called.
        must_call: Whether only a call can be the answer.
        is_parallel: Whether an answer may hold several calls.
        grammar: What an answer has to be, where it is no call.
        thinking_budget: Most tokens of reasoning; None sets no limit.
        variables: For the template, beside the messages.
        opens_turn: Whether the prompt ends with the beginning of an assistant's turn.
        continues: Whether the last message is the beginning of the answer.
        drops_oldest: Whether messages are left out where the context has no room for all.
        functions_field: The request's field that has the functions, for errors.
        messages_field: The one that has the messages.
    """

    messages: list[Message]
    sampling: SamplingFields
    answer_limit: int | None = None
    is_limit_cut: bool = False
    total_limit: int | None = None
    num_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    functions: list[Function] = field(default_factory=list)
    must_call: bool = False
    is_parallel: bool = True
    grammar: GrammarSpec | None = None
    thinking_budget: int | None = None
    variables: dict[str, Any] = field(default_factory=dict)
    opens_turn: bool = True
    continues: bool = False
    drops_oldest: bool = False
    functions_field: str = "tools"
    messages_field: str = "messages"
