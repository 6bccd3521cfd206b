"""Which slot of the KV cache holds which tokens: allocation, prefix reuse, eviction, compaction.

The arrays themselves belong to the runner, which copies and releases them when told to. A slot is

    free      holds nothing
    active    belongs to a sequence, whose first `num_computed_tokens` tokens it holds
    donor     belongs to nobody; its tokens wait to be the prefix of a later prompt
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from engines.llm.piece import Piece
from engines.llm.runner import Batch
from engines.llm.sequence import Sequence
from engines.llm.snapshots import Snapshot

MIN_REUSED_TOKENS = 8  # below, looking after the reuse costs more than it saves
MAX_LOST_TOKENS = 32  # of a donor's tail when it is reused in place instead of copied
MAX_SWAP_BYTES = 256 << 20  # a larger move holds up whoever streams for longer than a chunk does


class SlotMemory(Protocol):
    """The part of a runner that moves the states of slots."""

    @property
    def num_slots(self) -> int: ...

    @property
    def bytes_per_token(self) -> int: ...

    @property
    def decodes_from_first(self) -> bool: ...

    def copy_slot(self, source: int, target: int, num_tokens: int) -> None: ...

    def swap_slots(self, first: int, second: int, num_first: int, num_second: int) -> None: ...

    def release_slot(self, slot: int) -> None: ...


@dataclass(slots=True, eq=False)
class Slot:
    """`donated_ids` is what a donor holds; an active slot's tokens are its sequence's."""

    index: int
    owner: Sequence | None = None
    donated_ids: list[int] = field(default_factory=list)
    num_touched: int = 0  # rows whose memory is resident
    snapshots: list[Snapshot] = field(default_factory=list)  # of a cache that takes some
    parting: int | None = None  # where the owner's prompt leaves one that is held
    last_used: int = 0

    @property
    def num_valid(self) -> int:
        return self.owner.num_computed_tokens if self.owner else len(self.donated_ids)

    @property
    def held_ids(self) -> list[int]:
        """Tokens of which the first `num_valid` are held."""
        return self.owner.token_ids if self.owner else self.donated_ids

    @property
    def is_donor(self) -> bool:
        return self.owner is None and bool(self.donated_ids)


class KVCache:
    """Assigns slots to sequences within `limit_bytes` of resident memory.

    `allocate` sets `slot`, `num_computed_tokens` and `num_cached_tokens` of a sequence on the
    scheduler's behalf; nothing else here changes one. Implements `Cache`.
    """

    is_ragged = False

    def __init__(self, memory: SlotMemory, limit_bytes: int) -> None:
        self._memory = memory
        self._slots = [Slot(index) for index in range(memory.num_slots)]
        self._clock = 0
        self.limit_bytes = limit_bytes

    @property
    def used_bytes(self) -> int:
        return sum(slot.num_touched for slot in self._slots) * self._memory.bytes_per_token

    @property
    def max_tokens(self) -> int:
        """Tokens that fit within the limit when one sequence has the cache to itself."""
        return self.limit_bytes // self._memory.bytes_per_token

    def allocate(self, seq: Sequence) -> bool:
        """Give `seq` a slot that already holds the longest known prefix of it.

        At least two tokens are left to compute: a chunk of one would meet the kernels of decode.
        Returns False when every slot is active.
        """
        source, num_reused = self._longest_prefix(seq)
        target = self._target_slot(source, num_reused)
        if target is None:
            return False
        if source is not None and source is not target:
            if self._make_room(target, num_reused, keep=(source, target)):
                self._memory.copy_slot(source.index, target.index, num_reused)
                source.last_used = self._tick()
            else:
                num_reused = 0  # a copy does not fit: compute those tokens again
        self._take_over(seq, target, source if num_reused else None, num_reused)
        target.owner = seq
        target.donated_ids = []
        seq.slot = target.index
        seq.num_computed_tokens = num_reused
        seq.num_cached_tokens = min(num_reused, seq.num_prompt_tokens)
        return True

    def free(self, seq: Sequence) -> None:
        """Take the slot of a sequence back; its computed tokens stay for later prompts."""
        slot = self._owned_slot(seq)
        slot.donated_ids = seq.token_ids[: seq.num_computed_tokens]
        slot.owner = None
        slot.last_used = self._tick()
        seq.slot = None

    def reserve(self, seq: Sequence, num_new_tokens: int) -> bool:
        """Make room for more tokens of `seq`, evicting donors, least recently used first.

        Returns False when no donor is left and the limit is reached: a sequence has to give way.
        """
        slot = self._owned_slot(seq)
        return self._make_room(slot, seq.num_computed_tokens + num_new_tokens, keep=(slot,))

    def compact(self) -> None:
        """Move active slots beside each other, so that decode runs few idle rows.

        They gather where that moves the least. A donor in a hole changes places with a sequence;
        above `MAX_SWAP_BYTES` that is left undone, and the hole runs along as an idle row.
        """
        active = [slot for slot in self._slots if slot.owner]
        window = self._window(active)
        holes = [slot for slot in window if slot.owner is None]
        movers = [slot for slot in active if slot not in window]
        for hole, mover in zip(holes, movers, strict=True):
            num_bytes = (hole.num_valid + mover.num_valid) * self._memory.bytes_per_token
            if num_bytes <= MAX_SWAP_BYTES or self._memory.decodes_from_first:
                self._swap(hole, mover)

    def decode(self, pieces: Rows[Piece]) -> tuple[Batch, tuple[Piece, ...]]:
        """One token of each piece, in the order of their slots.

        An idle slot between them runs along; its junk row lands behind the tokens that it holds.
        """
        ordered = tuple(sorted(pieces, key=lambda piece: piece.seq.slot or 0))
        slots = np.array([piece.seq.slot for piece in ordered], np.int64)
        first = 0 if self._memory.decodes_from_first else int(slots[0])
        window = self._slots[first : int(slots[-1]) + 1]
        rows = slots - first
        input_ids = np.zeros((len(window), 1), np.int64)
        input_ids[rows, 0] = [piece.token_ids[0] for piece in ordered]
        past_lens = np.array([slot.num_valid for slot in window], np.int32)
        return Batch(first, input_ids, past_lens, rows), ordered

    def batch(self, pieces: Rows[Piece]) -> Batch:
        """The tokens of one piece, on a view of its slot."""
        (piece,) = pieces
        assert piece.seq.slot is not None
        size = len(piece.token_ids)
        return Batch(
            first_slot=piece.seq.slot,
            input_ids=np.array([piece.token_ids], np.int64),
            past_lens=np.array([piece.seq.num_computed_tokens], np.int32),
            logit_indices=np.arange(size - piece.num_logits, size),
        )

    def chunk_size(self, seq: Sequence, size: int) -> int:
        """The tokens of the next chunk of `seq`, of which `size` are allowed."""
        return size

    def check_integrity(self) -> None:
        """Raise AssertionError if a slot is shared, lost or claims what it does not hold."""
        owners = [slot.owner for slot in self._slots if slot.owner]
        assert len(owners) == len(set(owners)), "a sequence owns two slots"
        for slot in self._slots:
            assert slot.owner is None or slot.owner.slot == slot.index, "slot and owner disagree"
            assert slot.owner is None or not slot.donated_ids, "an active slot is also a donor"
            assert slot.num_valid <= slot.num_touched, "a slot holds more than it touched"
        assert self.used_bytes <= self.limit_bytes, "the cache is larger than its limit"

    def _longest_prefix(self, seq: Sequence) -> tuple[Slot | None, int]:
        if seq.sampling.prompt_logprobs:
            return None, 0
        usable = len(seq.token_ids) - 2
        best, best_length = None, MIN_REUSED_TOKENS - 1
        for slot in self._slots:
            length = min(slot.num_valid, usable)
            if length > best_length:
                length = self._reusable(slot, common_prefix(slot.held_ids, seq.token_ids, length))
                if length > best_length:
                    best, best_length = slot, length
        return best, best_length if best else 0

    def _target_slot(self, source: Slot | None, num_reused: int) -> Slot | None:
        if source and source.is_donor and source.num_valid - num_reused <= MAX_LOST_TOKENS:
            return source
        idle = [slot for slot in self._slots if slot.owner is None]
        spare = [slot for slot in idle if slot is not source]
        empty = [slot for slot in spare if not slot.donated_ids]
        if empty:
            return empty[0]
        return min(spare or idle, key=lambda slot: slot.last_used, default=None)

    def _window(self, active: list[Slot]) -> list[Slot]:
        """The neighbouring slots into which the active ones come with the least moving."""
        size = len(active)
        if self._memory.decodes_from_first or not active:
            return self._slots[:size]
        # An active slot in the window is one that stays; a donor there has to leave.
        costs = [-slot.num_valid if slot.owner else slot.num_valid for slot in self._slots]
        sums = np.convolve(costs, np.ones(size, np.int64), "valid")
        first = int(sums.argmin())
        return self._slots[first : first + size]

    def _make_room(self, slot: Slot, num_rows: int, keep: tuple[Slot, ...]) -> bool:
        growth = self._growth(slot, num_rows)
        while growth and self.used_bytes + growth > self.limit_bytes:
            donors = [s for s in self._slots if s.owner is None and s.num_touched and s not in keep]
            if not donors:
                return False
            self._evict(min(donors, key=lambda donor: donor.last_used))
        slot.num_touched = max(slot.num_touched, num_rows)
        return True

    def _growth(self, slot: Slot, num_rows: int) -> int:
        """Bytes that become resident when a slot has `num_rows` rows."""
        return max(num_rows - slot.num_touched, 0) * self._memory.bytes_per_token

    def _reusable(self, slot: Slot, length: int) -> int:
        """Of the first `length` tokens of a slot as many as another sequence can go on from."""
        return length

    def _take_over(self, seq: Sequence, target: Slot, source: Slot | None, num_reused: int) -> None:
        """Called before `seq` owns `target`, which holds `num_reused` tokens of `source` for it."""

    def _evict(self, slot: Slot) -> None:
        self._memory.release_slot(slot.index)
        slot.donated_ids = []
        slot.snapshots = []
        slot.num_touched = 0

    def _swap(self, hole: Slot, mover: Slot) -> None:
        self._memory.swap_slots(hole.index, mover.index, hole.num_valid, mover.num_valid)
        num_in_hole, num_moved = hole.num_valid, mover.num_valid
        hole.owner, mover.owner = mover.owner, hole.owner
        hole.donated_ids, mover.donated_ids = mover.donated_ids, hole.donated_ids
        hole.snapshots, mover.snapshots = mover.snapshots, hole.snapshots
        hole.parting, mover.parting = mover.parting, hole.parting
        hole.last_used, mover.last_used = mover.last_used, hole.last_used
        hole.num_touched = max(hole.num_touched, num_moved)
        mover.num_touched = max(mover.num_touched, num_in_hole)
        for slot in (hole, mover):
            if slot.owner:
                slot.owner.slot = slot.index
        if mover.num_valid == 0 or self.used_bytes > self.limit_bytes:
            self._evict(mover)

    def _owned_slot(self, seq: Sequence) -> Slot:
        assert seq.slot is not None
        slot = self._slots[seq.slot]
        assert slot.owner is seq
        return slot

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def common_prefix(first: list[int], second: list[int], limit: int) -> int:
    """Length of the common beginning of two lists, at most `limit`.

    Compares slices, which run at the speed of C, and halves them at the first difference.
    """
    start, step = 0, limit
    while step and start < limit:
        end = min(start + step, limit)
        if first[start:end] == second[start:end]:
            start = end
        else:
            step = (end - start) // 2
    return start
