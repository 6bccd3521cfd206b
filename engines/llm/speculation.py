"""Drafts without a draft model: what a grammar forces, or what followed the last tokens before.

A draft is verified in one run. Every position is sampled as always, and the draft only decides how
many positions of the run count, so that the distribution of the answer, and each draw from the
sequence's generator, are those of one token a run (prompt lookup: Saxena 2023; verification with a
certain draft: Leviathan et al. 2023, https://arxiv.org/abs/2211.17192).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engines.llm.sequence import Sequence

NGRAM = 3  # tokens that have to stand before as they stand now
MIN_GAIN = 0.5  # accepted tokens a run below which a draft costs more than it saves
_FIRST_GAIN = 1.0
_WEIGHT = 0.3  # of the newest run in the mean
_RECOVERY = 1 / 128  # of a mean a step, so that a sequence that was given up is tried again


@dataclass(slots=True)
class _Lookup:
    """What is known of one sequence."""

    gain: float = _FIRST_GAIN  # accepted tokens a run, a running mean
    num_indexed: int = 0  # tokens whose n-grams are in `ends`
    is_forced: bool = False  # the last draft was, so that it teaches nothing
    ends: dict[tuple[int, ...], int] = field(default_factory=dict)  # n-gram -> what follows it


class PromptLookup:
    """Proposes drafts for sequences, more where they are accepted, none where they do not pay.

    It looks at nothing but the sequence's own tokens, grammar and past drafts.

    Args:
        max_draft_tokens: The longest draft.
    """

    def __init__(self, max_draft_tokens: int) -> None:
        self._max_draft_tokens = max_draft_tokens
        self._lookups: dict[int, _Lookup] = {}
        self.num_draft_tokens = 0
        self.num_accepted_tokens = 0

    def propose(self, seq: Sequence, limit: int) -> list[int]:
        """At most `limit` tokens that may come next; empty where nothing is worth a try.

        Those that a grammar leaves no choice of come before any that are looked up.
        """
        lookup = self._lookups.setdefault(seq.seq_id, _Lookup())
        start = self._find(lookup, seq.token_ids)
        forced = [] if seq.constraint is None else seq.constraint.forced_tokens()
        lookup.is_forced = bool(forced)
        if forced:
            return forced[: min(self._max_draft_tokens, limit)]
        if lookup.gain < MIN_GAIN:
            lookup.gain += _RECOVERY
            return []
        wanted = min(2 + round(2 * lookup.gain), self._max_draft_tokens, limit)
        return [] if start is None else _continue(seq.token_ids, start, wanted)

    def record(self, seq: Sequence, num_proposed: int, num_accepted: int) -> None:
        """Learn from a run how much of its draft was right."""
        self.num_draft_tokens += num_proposed
        self.num_accepted_tokens += num_accepted
        lookup = self._lookups.get(seq.seq_id)
        if lookup is not None and not lookup.is_forced:  # else the run was the sequence's last
            lookup.gain += _WEIGHT * (num_accepted - lookup.gain)

    def forget(self, seq: Sequence) -> None:
        """Drop what is known of a finished sequence."""
        self._lookups.pop(seq.seq_id, None)

    def _find(self, lookup: _Lookup, token_ids: list[int]) -> int | None:
        """Where the tokens stand that followed the latest earlier place of the last n-gram."""
        last = len(token_ids)
        for end in range(max(lookup.num_indexed, NGRAM), last):
            lookup.ends[tuple(token_ids[end - NGRAM : end])] = end
        lookup.num_indexed = last
        return lookup.ends.get(tuple(token_ids[-NGRAM:]))


def _continue(token_ids: list[int], start: int, count: int) -> list[int]:
    """`count` tokens from `start`, over the end as if what stands behind it repeated for ever."""
    period = len(token_ids) - start
    return [token_ids[start + index % period] for index in range(count)]
