"""One prompt and its growing answer: the only mutable object of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from engines.llm.constraint import TokenConstraint
from engines.llm.sampling_params import SamplingParams


class SequenceStatus(StrEnum):
    WAITING = "waiting"  # in the queue, without a slot
    PREFILLING = "prefilling"  # has a slot; its prompt is being computed
    RUNNING = "running"  # decodes one token a step
    FINISHED = "finished"


class FinishReason(StrEnum):
    STOP = "stop"  # an end-of-sequence or stop token
    LENGTH = "length"  # max_tokens, or the context is full
    ABORT = "abort"  # the caller gave it up


@dataclass(slots=True, eq=False)
class Sequence:
    """Only the scheduler changes a sequence, and the sampler its constraint; `eq=False` makes
    identity its hash.

    `token_ids` is the prompt and the answer so far. The KV cache holds the first
    `num_computed_tokens` of them; while running that is all but the last.
    """

    seq_id: int
    token_ids: list[int]
    num_prompt_tokens: int
    sampling: SamplingParams
    constraint: TokenConstraint | None = None
    status: SequenceStatus = SequenceStatus.WAITING
    finish_reason: FinishReason | None = None
    slot: int | None = None
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0  # of the prompt, reused from another sequence

    @classmethod
    def from_prompt(
        cls,
        seq_id: int,
        prompt_ids: list[int],
        sampling: SamplingParams,
        constraint: TokenConstraint | None = None,
    ) -> Sequence:
        """A waiting sequence; the prompt is copied."""
        if not prompt_ids:
            raise ValueError("the prompt is empty, but a model needs at least one token")
        return cls(seq_id, list(prompt_ids), len(prompt_ids), sampling, constraint)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def output_ids(self) -> list[int]:
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def is_finished(self) -> bool:
        return self.status is SequenceStatus.FINISHED
