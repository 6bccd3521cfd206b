"""`SnapshotCache`: slots that hold, beside keys and values, states that cannot be rolled back.

Such a state stands for all tokens before it. So no slot runs idle, since that would change its
state, and a prefix is reused up to where a copy of the state was taken, or whole.
"""

from __future__ import annotations

from engines.llm.kv_cache import MIN_REUSED_TOKENS, KVCache, Slot, common_prefix
from engines.llm.runner import StatefulRunner
from engines.llm.sequence import Sequence, SequenceStatus
from engines.llm.snapshots import Snapshot, cut, thin_out


class SnapshotCache(KVCache):
    """A `KVCache` whose running sequences have the first slots, and which copies states.

    A copy is taken behind every chunk of a prompt, at most `MAX_SNAPSHOTS` a slot, within the limit
    of the cache's memory; sequences come first.
    """

    def __init__(self, runner: StatefulRunner, limit_bytes: int) -> None:
        super().__init__(runner, limit_bytes)
        self._runner = runner

    @property
    def used_bytes(self) -> int:
        num_states = sum(slot.num_touched > 0 for slot in self._slots) + len(self._snapshots())
        return super().used_bytes + num_states * self._runner.bytes_per_slot

    @property
    def max_tokens(self) -> int:
        left = max(self.limit_bytes - self._runner.bytes_per_slot, 0)
        return left // self._memory.bytes_per_token

    def allocate(self, seq: Sequence) -> bool:
        self.compact()  # so that the slot is behind all that run, and stays there
        return super().allocate(seq)

    def reserve(self, seq: Sequence, num_new_tokens: int) -> bool:
        slot = self._owned_slot(seq)
        if seq.status is SequenceStatus.PREFILLING:
            self._take_snapshot(slot)
        while not super().reserve(seq, num_new_tokens):
            if not self._drop_oldest():
                return False
        return True

    def compact(self) -> None:
        """Bring the running sequences into the first slots, whatever has to be moved for it."""
        running = [slot for slot in self._slots if _is_running(slot)]
        holes = [slot for slot in self._slots[: len(running)] if not _is_running(slot)]
        for hole, mover in zip(holes, reversed(running), strict=False):
            assert hole.owner is None, "a prompt is computed in front of running sequences"
            self._swap(hole, mover)

    def chunk_size(self, seq: Sequence, size: int) -> int:
        parting = self._owned_slot(seq).parting
        return cut(seq.num_computed_tokens, seq.num_tokens, size, parting)

    def check_integrity(self) -> None:
        super().check_integrity()
        for slot in self._slots:
            ends = [snapshot.position for snapshot in slot.snapshots]
            assert all(0 < end <= slot.num_valid for end in ends), "a snapshot of lost tokens"
            assert ends == sorted(set(ends)), "snapshots are not in order"

    def _reusable(self, slot: Slot, length: int) -> int:
        if length == slot.num_valid:
            return length
        ends = [snapshot.position for snapshot in slot.snapshots]
        return max((end for end in ends if end <= length), default=0)

    def _take_over(self, seq: Sequence, target: Slot, source: Slot | None, num_reused: int) -> None:
        target.parting = self._parting(seq, num_reused)
        if source is None:
            target.snapshots = []
            return
        kept = [snapshot for snapshot in source.snapshots if snapshot.position <= num_reused]
        if num_reused < source.num_valid:  # else the state itself was copied
            kept[-1].last_used = self._tick()
            self._runner.load_state(target.index, kept[-1].state)
        target.snapshots = kept

    def _growth(self, slot: Slot, num_rows: int) -> int:
        is_new = slot.num_touched == 0 and num_rows > 0
        return super()._growth(slot, num_rows) + is_new * self._runner.bytes_per_slot

    def _parting(self, seq: Sequence, num_reused: int) -> int | None:
        """Where a prompt leaves the longest prefix that is held, if no state is known there."""
        if seq.sampling.prompt_logprobs:
            return None
        usable = len(seq.token_ids) - 2
        longest = max(
            common_prefix(slot.held_ids, seq.token_ids, max(min(slot.num_valid, usable), 0))
            for slot in self._slots
        )
        return longest if longest >= num_reused + MIN_REUSED_TOKENS else None

    def _take_snapshot(self, slot: Slot) -> None:
        """Copy the states of a slot, where donors or older copies can make room for it."""
        position = slot.num_valid
        if position < MIN_REUSED_TOKENS or position in [s.position for s in slot.snapshots]:
            return
        while self.used_bytes + self._runner.bytes_per_slot > self.limit_bytes:
            donors = [other for other in self._slots if other.is_donor]
            if donors:
                self._evict(min(donors, key=lambda donor: donor.last_used))
            elif not self._drop_oldest():
                return
        state = self._runner.save_state(slot.index)
        slot.snapshots = thin_out([*slot.snapshots, Snapshot(position, state, self._tick())])

    def _drop_oldest(self) -> bool:
        """Give up the copy that was not used for longest; False if there is none."""
        oldest = min(self._snapshots(), key=lambda snapshot: snapshot.last_used, default=None)
        for slot in self._slots:
            slot.snapshots = [snapshot for snapshot in slot.snapshots if snapshot is not oldest]
        return oldest is not None

    def _snapshots(self) -> set[Snapshot]:
        return {snapshot for slot in self._slots for snapshot in slot.snapshots}


def _is_running(slot: Slot) -> bool:
    return slot.owner is not None and slot.owner.status is SequenceStatus.RUNNING
