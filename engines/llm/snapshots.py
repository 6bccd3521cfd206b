"""Copies of states that cannot be rolled back, taken where a later prompt may part from this one.

Keys and values of a slot can be cut to any length. A recurrent state stands for all tokens before
it and nothing else, so a prefix is reused only up to a position where the state was copied, or to
the slot's own end.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_SNAPSHOTS = 8  # of a slot; what lies between two others goes first
TAIL = 8  # tokens before a prompt's end: how it asks for an answer, which the next turn leaves out
MIN_PROMPT = 64  # tokens; the tail of a shorter one is not worth a run of its own


@dataclass(slots=True, eq=False)
class Snapshot:
    """What a slot's states were behind `position` tokens. Shared by slots that were copied."""

    position: int
    state: object  # the runner's own
    last_used: int = 0


def cut(num_computed: int, num_tokens: int, size: int, parting: int | None) -> int:
    """The tokens of the next chunk, so that it ends where a snapshot is worth most.

    That is before the tail of the prompt, and where another prompt parted from this one. What is
    left has at least two tokens.
    """
    stops = [num_tokens - TAIL] if num_tokens >= MIN_PROMPT else []
    if parting is not None:
        stops.append(parting)
    for stop in sorted(stops):
        if num_computed + 2 <= stop < num_computed + size and num_tokens - stop >= 2:
            return stop - num_computed
    return size


def thin_out(snapshots: list[Snapshot]) -> list[Snapshot]:
    """At most `MAX_SNAPSHOTS`, in the order of their positions, first and last among them."""
    kept = sorted(snapshots, key=lambda snapshot: snapshot.position)
    while len(kept) > MAX_SNAPSHOTS:
        gaps = [kept[i + 1].position - kept[i - 1].position for i in range(1, len(kept) - 1)]
        del kept[1 + gaps.index(min(gaps))]
    return kept
