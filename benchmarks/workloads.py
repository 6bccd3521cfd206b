"""What the clients of a load say: unrelated prompts, prompts that begin alike, conversations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.prompts import Prompt, TextSource, TokenScale
from benchmarks.results import RequestResult

WorkloadName = Literal["random", "shared-prefix", "conversation"]


@dataclass(frozen=True, slots=True)
class Session:
    """What one client sends, one request after another; each has what was said before it."""

    turns: tuple[Prompt, ...]


async def run_session(
    send: Callable[[Prompt], Awaitable[RequestResult]], session: Session
) -> list[RequestResult]:
    """Send every turn with the conversation so far; a failure ends it."""
    results: list[RequestResult] = []
    said: list[dict[str, object]] = []
    for turn in session.turns:
        prompt = turn
        if said:
            prompt = replace(turn, text=None, messages=(*said, *turn.as_messages()))
        result = await send(prompt)
        results.append(result)
        if result.error is not None:
            break
        said = [*prompt.as_messages(), {"role": "assistant", "content": result.text}]
    return results


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticWorkload:
    """Prompts drawn from a text, about `input_tokens` long by the server's own count.

    With `shared-prefix`, `prefix_tokens` come before them, the same for all; in a `conversation`
    each of `turns` requests adds a message of that length to what was said.
    """

    kind: WorkloadName
    input_tokens: int
    prefix_tokens: int
    turns: int
    is_chat: bool

    def sessions(self, count: int, source: TextSource, scale: TokenScale) -> list[Session]:
        """Sessions of at least `count` requests in all."""
        num_words = scale.num_words(self.input_tokens)
        if self.kind == "conversation":
            return [
                Session(tuple(source.prompt(num_words) for _ in range(self.turns)))
                for _ in range(-(-count // self.turns))
            ]
        if self.kind == "random":
            return [Session((source.prompt(num_words),)) for _ in range(count)]
        prefix = source.prefix(max(1, round(self.prefix_tokens / scale.per_word)))
        return [Session((self._begun(prefix, source.text(num_words)),)) for _ in range(count)]

    def _begun(self, prefix: str, text: str) -> Prompt:
        if not self.is_chat:
            return Prompt(text=f"{prefix} {text}")
        system, user = {"role": "system", "content": prefix}, {"role": "user", "content": text}
        return Prompt(messages=(system, user))
