"""GPU memory for the states of slots: one array a state, which tokens are written to in place."""

from __future__ import annotations

from collections.abc import Sequence

from engines.backends.cuda import Buffer, Stream
from engines.backends.gpu_session import ITEM_SIZES, DeviceArray
from engines.manifest import StateSpec


class DeviceSlots:
    """Arrays `[num_slots, heads, num_rows, width]`, one a state."""

    def __init__(
        self, stream: Stream, states: Sequence[StateSpec], num_slots: int, num_rows: int
    ) -> None:
        self._stream = stream
        self._num_rows = num_rows
        self._states = [(state, Buffer(num_slots * self._slot_bytes(state))) for state in states]

    @property
    def bytes_per_token(self) -> int:
        return sum(state.heads * _row_bytes(state) for state, _ in self._states)

    def view(self, first_slot: int, num_slots: int) -> dict[str, DeviceArray]:
        """The memory of some slots, under the names of inputs and of outputs."""
        views: dict[str, DeviceArray] = {}
        for state, buffer in self._states:
            array = DeviceArray(
                buffer.pointer + first_slot * self._slot_bytes(state),
                state.dtype,
                (num_slots, state.heads, self._num_rows, state.width),
            )
            views[state.input] = views[state.output] = array
        return views

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Copy what a slot holds of its first tokens."""
        for state, buffer in self._states:
            size = self._slot_bytes(state)
            self._copy_rows(
                state, buffer.pointer + source * size, buffer.pointer + target * size, num_tokens
            )

    def swap(self, first: int, second: int, num_first: int, num_second: int) -> None:
        """Exchange what two slots hold."""
        for state, buffer in self._states:
            size = self._slot_bytes(state)
            one, other = buffer.pointer + first * size, buffer.pointer + second * size
            with Buffer(size) as kept:
                self._copy_rows(state, one, kept.pointer, num_first)
                self._copy_rows(state, other, one, num_second)
                self._copy_rows(state, kept.pointer, other, num_first)
                self._stream.synchronize()  # before the scratch memory goes

    def close(self) -> None:
        for _, buffer in self._states:
            buffer.close()
        self._states = []

    def _copy_rows(self, state: StateSpec, source: int, target: int, num_tokens: int) -> None:
        """The tokens of a head lie together, those of the next a whole slot's rows later."""
        if num_tokens:
            row = _row_bytes(state)
            self._stream.copy_rows(
                source, target, self._num_rows * row, num_tokens * row, state.heads
            )

    def _slot_bytes(self, state: StateSpec) -> int:
        return state.heads * self._num_rows * _row_bytes(state)


def slot_bytes(states: Sequence[StateSpec], num_rows: int) -> int:
    """What one slot takes in all states together."""
    return sum(state.heads * num_rows * _row_bytes(state) for state in states)


def _row_bytes(state: StateSpec) -> int:
    return state.width * ITEM_SIZES[state.dtype]
