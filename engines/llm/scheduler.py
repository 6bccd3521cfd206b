"""What runs next: a decode step of all running sequences, or a chunk of one prompt.

At most one prompt is computed at a time, first come first served, its chunks taking turns with
decode steps. Every sequence's `num_computed_tokens` catches up with its `num_tokens`; a sequence
that gave way for want of memory catches up with its answer in the same way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Rows
from dataclasses import dataclass

import numpy as np

from engines.errors import ContextLengthExceeded
from engines.llm.kv_cache import KVCache
from engines.llm.runner import Batch
from engines.llm.sequence import FinishReason, Sequence, SequenceStatus
from engines.llm.speculation import PromptLookup


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Limits of a step."""

    max_num_seqs: int = 8
    max_context: int
    prefill_chunk: int = 128  # tokens of a prompt in one run while nothing streams
    prefill_chunk_streaming: int = 64  # the same while something does: it bounds the gap
    eos_token_ids: frozenset[int] = frozenset()
    max_draft_tokens: int = 0  # of a sequence that runs alone; 0 computes one token a run

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_context", "prefill_chunk", "prefill_chunk_streaming"):
            value = getattr(self, name)
            least = 2 if name.startswith("prefill") else 1
            if value < least:
                raise ValueError(f"{name} is {value}, but it must be at least {least}")
        if self.max_draft_tokens < 0:
            raise ValueError(
                f"max_draft_tokens is {self.max_draft_tokens}, but it must be 0 or more"
            )


@dataclass(frozen=True, slots=True)
class ScheduledBatch:
    """A batch and the sequences it advances.

    `sampled` are the sequences that get a token. Without a draft their rows of logits are the last
    ones, behind prompt positions whose logprobs were asked for. With one, there is one sequence,
    and its rows are the positions before the first token of the draft and behind each.
    """

    batch: Batch
    seqs: tuple[Sequence, ...]
    sampled: tuple[Sequence, ...]
    num_new_tokens: int  # of each of `seqs`, the draft not counted
    draft: tuple[int, ...] = ()

    @property
    def first_sampled_row(self) -> int:
        return len(self.batch.logit_indices) - len(self.sampled) - len(self.draft)


class Scheduler:
    """Owns every sequence from `add` until it is finished."""

    def __init__(self, config: SchedulerConfig, cache: KVCache) -> None:
        self.config = config
        self.cache = cache
        self.waiting: deque[Sequence] = deque()
        self.prefilling: Sequence | None = None
        self.running: list[Sequence] = []
        self.num_cache_queries = 0
        self.num_cache_hits = 0
        self.lookup = PromptLookup(config.max_draft_tokens)
        self._decode_is_next = False

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.prefilling or self.running)

    @property
    def max_tokens(self) -> int:
        """Prompt and answer together: the context, or less where the cache's memory is smaller."""
        return min(self.config.max_context, self.cache.max_tokens)

    def add(self, seq: Sequence) -> None:
        """Queue a sequence.

        Raises:
            ContextLengthExceeded: Its prompt leaves no room for an answer, or can never fit into
                the memory of the cache.
        """
        limit = self.max_tokens
        room = limit if seq.sampling.max_tokens == 0 else limit - 1
        if seq.num_prompt_tokens > room:
            raise ContextLengthExceeded(
                f"the prompt has {seq.num_prompt_tokens} tokens, but the engine has a context of "
                f"{limit} tokens for prompt and answer"
            )
        self.waiting.append(seq)

    def abort(self, seq: Sequence) -> None:
        """End a sequence; what it computed stays as a prefix for others."""
        if not seq.is_finished:
            self._finish(seq, FinishReason.ABORT)

    def schedule(self) -> ScheduledBatch | None:
        """The next run, or None when there is nothing to do."""
        if self.running and self._decode_is_next:
            return self._schedule_decode()
        prefill = self._schedule_prefill()
        if prefill is not None:
            return prefill
        return self._schedule_decode() if self.running else None

    def update(self, scheduled: ScheduledBatch, token_ids: Rows[int]) -> None:
        """Record what a run computed and the tokens sampled from it, and end what has ended."""
        for seq in scheduled.seqs:
            seq.num_computed_tokens += scheduled.num_new_tokens
        for seq, token_id in zip(scheduled.sampled, token_ids, strict=True):
            if seq is self.prefilling:
                self.prefilling = None
                seq.status = SequenceStatus.RUNNING
                self.running.append(seq)
            if seq.sampling.max_tokens == 0:
                self._finish(seq, FinishReason.LENGTH)
            else:
                self._append(seq, token_id)

    def accept(self, seq: Sequence, token_id: int) -> None:
        """Record that the last token was drafted, so that it is computed, and the one behind it."""
        seq.num_computed_tokens += 1
        self._append(seq, token_id)

    def _append(self, seq: Sequence, token_id: int) -> None:
        seq.token_ids.append(token_id)
        reason = self._finish_reason(seq, token_id)
        if reason is not None:
            self._finish(seq, reason)

    def _schedule_prefill(self) -> ScheduledBatch | None:
        seq = self.prefilling or self._admit()
        if seq is None:
            return None
        size = self._chunk_size(seq)
        if not self._reserve(seq, size):
            return None
        start, end = seq.num_computed_tokens, seq.num_computed_tokens + size
        is_last = end == seq.num_tokens
        if seq.sampling.prompt_logprobs and start < seq.num_prompt_tokens:
            logit_indices = np.arange(size)
        else:
            logit_indices = np.arange(size - 1, size) if is_last else np.arange(0)
        assert seq.slot is not None
        batch = Batch(
            first_slot=seq.slot,
            input_ids=np.array([seq.token_ids[start:end]], np.int64),
            past_lens=np.array([start], np.int32),
            logit_indices=logit_indices,
        )
        self._decode_is_next = True
        return ScheduledBatch(batch, (seq,), (seq,) if is_last else (), size)

    def _schedule_decode(self) -> ScheduledBatch | None:
        self._decode_is_next = False
        self.cache.compact()
        for seq in list(self.running):
            if seq in self.running:  # an older one may have sent it back to wait
                self._reserve(seq, 1)
        if not self.running:
            return self._schedule_prefill()
        draft = self._draft()
        if draft:
            return self._schedule_verification(self.running[0], draft)
        seqs = tuple(sorted(self.running, key=lambda seq: seq.slot or 0))
        slots = np.array([seq.slot for seq in seqs], np.int64)
        num_slots = int(slots[-1]) + 1
        input_ids = np.zeros((num_slots, 1), np.int64)
        input_ids[slots, 0] = [seq.token_ids[-1] for seq in seqs]
        # An idle slot runs along; its junk row lands behind the tokens that it holds.
        past_lens = np.array([self.cache.num_valid(slot) for slot in range(num_slots)], np.int32)
        return ScheduledBatch(Batch(0, input_ids, past_lens, slots), seqs, seqs, 1)

    def _draft(self) -> list[int]:
        """What a sequence that has the engine to itself may say next."""
        if not self.config.max_draft_tokens or self.waiting or self.prefilling:
            return []
        seq, *others = self.running
        if others:
            return []
        # A run answers with one token more than its draft.
        left = min(
            seq.sampling.max_tokens - seq.num_output_tokens, self.max_tokens - seq.num_tokens
        )
        draft = self.lookup.propose(seq, left - 1)
        return draft if self.cache.reserve(seq, 1 + len(draft)) else []

    def _schedule_verification(self, seq: Sequence, draft: list[int]) -> ScheduledBatch:
        assert seq.slot is not None
        batch = Batch(
            first_slot=seq.slot,
            input_ids=np.array([[seq.token_ids[-1], *draft]], np.int64),
            past_lens=np.array([seq.num_computed_tokens], np.int32),
            logit_indices=np.arange(1 + len(draft)),
        )
        return ScheduledBatch(batch, (seq,), (seq,), 1, tuple(draft))

    def _admit(self) -> Sequence | None:
        if not self.waiting or len(self.running) >= self.config.max_num_seqs:
            return None
        seq = self.waiting[0]
        if not self.cache.allocate(seq):
            return None
        self.waiting.popleft()
        self.num_cache_queries += seq.num_prompt_tokens
        self.num_cache_hits += seq.num_cached_tokens
        seq.status = SequenceStatus.PREFILLING
        self.prefilling = seq
        return seq

    def _chunk_size(self, seq: Sequence) -> int:
        config = self.config
        chunk = config.prefill_chunk_streaming if self.running else config.prefill_chunk
        remaining = seq.num_tokens - seq.num_computed_tokens
        if remaining == chunk + 1:
            return chunk - 1  # a tail of one token would meet the kernels of decode
        return min(chunk, remaining)

    def _reserve(self, seq: Sequence, num_new_tokens: int) -> bool:
        """Make room in the cache; True if `seq` has it, False if `seq` itself gave way."""
        while not self.cache.reserve(seq, num_new_tokens):
            youngest = self._youngest(excluding=seq)
            if youngest is None:
                self._give_way(seq)
                return False
            self._give_way(youngest)
        return True

    def _youngest(self, excluding: Sequence) -> Sequence | None:
        """The sequence that came last and after `excluding`; it gives way first."""
        active = [*self.running, *([self.prefilling] if self.prefilling else [])]
        later = [seq for seq in active if seq.seq_id > excluding.seq_id]
        return max(later, key=lambda seq: seq.seq_id, default=None)

    def _give_way(self, seq: Sequence) -> None:
        self._release(seq)
        seq.status = SequenceStatus.WAITING
        seq.num_computed_tokens = 0
        self.waiting.appendleft(seq)

    def _finish_reason(self, seq: Sequence, token_id: int) -> FinishReason | None:
        sampling = seq.sampling
        is_eos = token_id in self.config.eos_token_ids and not sampling.ignore_eos
        if is_eos or token_id in sampling.stop_token_ids:
            return FinishReason.STOP
        if seq.num_output_tokens >= sampling.max_tokens or seq.num_tokens >= self.max_tokens:
            return FinishReason.LENGTH
        return None

    def _finish(self, seq: Sequence, reason: FinishReason) -> None:
        self._release(seq)
        self.lookup.forget(seq)
        seq.status = SequenceStatus.FINISHED
        seq.finish_reason = reason

    def _release(self, seq: Sequence) -> None:
        if seq.status is SequenceStatus.WAITING:
            self.waiting.remove(seq)
        elif seq is self.prefilling:
            self.prefilling = None
        else:
            self.running.remove(seq)
        if seq.slot is not None:
            self.cache.free(seq)
