"""What runs next: a decode step of all running sequences, a chunk of one prompt, or both.

Where the cache is ragged, every run advances all that is running, and prompts as far as the chunk
goes. Elsewhere one prompt is computed at a time, its chunks taking turns with decode steps. First
come, first served. Every sequence's `num_computed_tokens` catches up with its `num_tokens`; one
that gave way for want of memory catches up with its answer in the same way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Rows
from dataclasses import dataclass

import numpy as np

from engines.errors import ContextLengthExceeded
from engines.llm.cache import Cache
from engines.llm.chunks import chunk_size
from engines.llm.piece import Piece
from engines.llm.scheduled import ScheduledBatch
from engines.llm.sequence import FinishReason, Sequence, SequenceStatus
from engines.llm.speculation import PromptLookup


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Limits of a step."""

    max_num_seqs: int = 8
    max_context: int
    prefill_chunk: int = 128  # tokens of a prompt in one run while nothing streams
    prefill_chunk_streaming: int = 64  # the same while something does: it bounds the gap
    half_chunk_at: int | None = None  # tokens before a chunk that halve it while something streams
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


class Scheduler:
    """Owns every sequence from `add` until it is finished."""

    def __init__(self, config: SchedulerConfig, cache: Cache) -> None:
        self.config = config
        self.cache = cache
        self.waiting: deque[Sequence] = deque()
        self.prefilling: list[Sequence] = []  # one at a time, unless the cache is ragged
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
        if self.cache.is_ragged:
            return self._schedule_ragged()
        if self.running and self._decode_is_next:
            return self._schedule_decode()
        prefill = self._schedule_prefill()
        if prefill is not None:
            return prefill
        return self._schedule_decode() if self.running else None

    def update(self, scheduled: ScheduledBatch, token_ids: Rows[int]) -> None:
        """Record what a run computed and the tokens sampled from it, and end what has ended."""
        for piece in scheduled.pieces:
            piece.seq.num_computed_tokens += piece.num_new_tokens
        for seq, token_id in zip(scheduled.sampled, token_ids, strict=True):
            if seq.status is SequenceStatus.PREFILLING:
                self.prefilling.remove(seq)
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
        seq = self.prefilling[0] if self.prefilling else self._admit()
        if seq is None:
            return None
        size = self._chunk_size(seq)
        if not self._reserve(seq, size):
            return None
        pieces = (Piece.chunk(seq, size),)
        self._decode_is_next = True
        return ScheduledBatch.of(self.cache.batch(pieces), pieces)

    def _schedule_decode(self) -> ScheduledBatch | None:
        self._decode_is_next = False
        self._bring_together()
        if not self.running:
            return self._schedule_prefill()
        draft = self._draft()
        if draft:
            return self._schedule_verification(self.running[0], draft)
        batch, pieces = self.cache.decode([Piece.next_token(seq) for seq in self.running])
        seqs = tuple([piece.seq for piece in pieces])
        return ScheduledBatch(batch, pieces, seqs, np.arange(len(pieces)))

    def _schedule_ragged(self) -> ScheduledBatch | None:
        self._reserve_running()
        draft = self._draft()
        if draft:
            return self._schedule_verification(self.running[0], draft)
        room = self._chunk
        sizes: dict[Sequence, int] = {}
        for seq in self._prompts():
            size = min(room, seq.num_tokens - seq.num_computed_tokens)
            if not self._reserve(seq, size):
                break
            sizes[seq] = size
            room -= size
            if not room:
                break
        # Only now: for the sake of an older prompt, a younger sequence may have given way.
        pieces = [Piece.next_token(seq) for seq in self.running]
        pieces += [Piece.chunk(seq, sizes[seq]) for seq in self.prefilling if seq in sizes]
        return ScheduledBatch.of(self.cache.batch(pieces), tuple(pieces)) if pieces else None

    def _prompts(self) -> Iterator[Sequence]:
        """The prompts that are being computed, and those that can be begun."""
        for seq in list(self.prefilling):
            if seq in self.prefilling:  # an older one may have sent it back to wait
                yield seq
        while (admitted := self._admit()) is not None:
            yield admitted

    def _reserve_running(self) -> None:
        for seq in list(self.running):
            if seq in self.running:  # an older one may have sent it back to wait
                self._reserve(seq, 1)

    def _bring_together(self) -> None:
        """Move running sequences to the first slots and make room for a token of each."""
        num_running = None
        while num_running != len(self.running):  # one that gave way has left a hole
            num_running = len(self.running)
            self.cache.compact()
            self._reserve_running()

    def _draft(self) -> list[int]:
        """What a sequence that has the engine to itself may say next."""
        if not self.config.max_draft_tokens or self.waiting or self.prefilling:
            return []
        if len(self.running) != 1:
            return []
        (seq,) = self.running
        # A run answers with one token more than its draft.
        left = min(
            seq.sampling.max_tokens - seq.num_output_tokens, self.max_tokens - seq.num_tokens
        )
        draft = self.lookup.propose(seq, left - 1)
        return draft if self.cache.reserve(seq, 1 + len(draft)) else []

    def _schedule_verification(self, seq: Sequence, draft: list[int]) -> ScheduledBatch:
        piece = Piece(seq, [seq.token_ids[-1], *draft], 1 + len(draft), num_new_tokens=1)
        first_row = np.zeros(1, np.int64)
        return ScheduledBatch(self.cache.batch((piece,)), (piece,), (seq,), first_row, tuple(draft))

    def _admit(self) -> Sequence | None:
        num_active = len(self.running) + len(self.prefilling)
        if not self.waiting or num_active >= self.config.max_num_seqs:
            return None
        seq = self.waiting[0]
        if not self.cache.allocate(seq):
            return None
        self.waiting.popleft()
        self.num_cache_queries += seq.num_prompt_tokens
        self.num_cache_hits += seq.num_cached_tokens
        seq.status = SequenceStatus.PREFILLING
        self.prefilling.append(seq)
        return seq

    @property
    def _chunk(self) -> int:
        """Tokens of prompts that a run may take."""
        config = self.config
        return config.prefill_chunk_streaming if self.running else config.prefill_chunk

    def _chunk_size(self, seq: Sequence) -> int:
        config = self.config
        half_at = config.half_chunk_at if self.running else None
        most = max(self._chunk, config.prefill_chunk)
        return self.cache.chunk_size(seq, chunk_size(seq, self._chunk, half_at, most))

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
        active = [*self.running, *self.prefilling]
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
            return
        active = self.prefilling if seq.status is SequenceStatus.PREFILLING else self.running
        active.remove(seq)
        self.cache.free(seq)
