"""From logits to one token a sequence: adjust, cut, draw.

Rows do not influence each other, and every sequence draws from its own generator, so a seeded
request gives the same tokens whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import cast

import msgspec
import numpy as np

from engines.llm.candidates import likeliest, superset
from engines.llm.constraint import Allowed, FewAllowed
from engines.llm.draw import draw
from engines.llm.draw_rows import draw_rows
from engines.llm.mask_ahead import MasksAhead
from engines.llm.output import TokenLogprobs
from engines.llm.runner import FloatArray, IntArray, OrderedCandidates, RunOutput
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence

_GREEDY = 1e-5  # a temperature below this cannot be told from 0 in float32


class Sampled(msgspec.Struct, frozen=True):
    """The token drawn for a sequence, with its log-probabilities where they were asked for."""

    token_id: int
    logprobs: TokenLogprobs | None = None


class _Way(Enum):
    """How the tokens of a sequence are found."""

    LIKELIEST = auto()  # greedy
    CUT = auto()  # drawn from candidates that the output gives of many rows together
    ROW = auto()  # from the row by itself


@dataclass(slots=True)
class _State:
    way: _Way
    seed: int | None
    own_generator: np.random.Generator | None = None
    counts: dict[int, int] = field(default_factory=dict)  # of generated tokens
    num_counted: int = 0

    @property
    def generator(self) -> np.random.Generator:
        """Of the sequence alone; made for its first draw."""
        if self.own_generator is None:
            self.own_generator = np.random.Generator(np.random.PCG64(self.seed))
        return self.own_generator


class Sampler:
    """Keeps the random generator and the token counts of each live sequence.

    Args:
        vocab_size: Tokens that can be sampled.
    """

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._states: dict[int, _State] = {}
        self._masks = MasksAhead()

    def sample(self, output: RunOutput, rows: IntArray, seqs: Rows[Sequence]) -> list[Sampled]:
        """Draw a token for each sequence from its row of the output. `rows` is [len(seqs)]."""
        states = [self._states.get(seq.seq_id) or self._begin(output, seq) for seq in seqs]
        chosen: dict[int, int] = {}  # by index
        if greedy := _indices(states, _Way.LIKELIEST):
            likeliest_ids = output.argmax(rows[greedy]).tolist()
            chosen.update(zip(greedy, likeliest_ids, strict=True))
        if cut := _indices(states, _Way.CUT):
            ordered = cast(OrderedCandidates, output)
            drawn = _draw_cut(ordered, rows[cut], [(seqs[i].sampling, states[i]) for i in cut])
            chosen.update(zip(cut, drawn, strict=True))
        sampled = []
        for index, (seq, state) in enumerate(zip(seqs, states, strict=True)):
            token_id = chosen.get(index)
            if token_id is None:
                token_id = self._draw(output, int(rows[index]), seq, state)
            logprobs = None
            if (num_logprobs := seq.sampling.num_logprobs) is not None:
                logprobs = token_logprobs(output.logits(int(rows[index])), token_id, num_logprobs)
            sampled.append(Sampled(token_id, logprobs))
        self._go_on(seqs, sampled)
        return sampled

    def forget(self, seq: Sequence) -> None:
        """Drop the state of a finished sequence."""
        self._states.pop(seq.seq_id, None)
        self._masks.forget(seq)

    def close(self) -> None:
        """End the thread that works out masks."""
        self._masks.close()

    def _go_on(self, seqs: Rows[Sequence], sampled: list[Sampled]) -> None:
        """Tell the constraints of their tokens, and begin with what may follow."""
        constrained = []
        for seq, token in zip(seqs, sampled, strict=True):
            if seq.constraint is not None:
                seq.constraint.accept(token.token_id)
                constrained.append(seq)
        self._masks.prepare(constrained, self._vocab_size)

    def _begin(self, output: RunOutput, seq: Sequence) -> _State:
        state = self._states[seq.seq_id] = _State(_way(output, seq), seq.sampling.seed)
        return state

    def _draw(self, output: RunOutput, row: int, seq: Sequence, state: _State) -> int:
        sampling = seq.sampling
        if _counts_tokens(sampling):
            _count_tokens(state, seq)
        allowed = None if seq.constraint is None else self._masks.take(seq, self._vocab_size)
        is_whole = allowed is None and not _has_adjustments(sampling)
        if is_whole and sampling.top_k > 0 and sampling.temperature >= _GREEDY:
            token_ids, logits = output.candidates(row, sampling.top_k)
            return int(token_ids[draw(logits, sampling, state.generator)])
        logits = output.logits(row)
        if _has_adjustments(sampling):
            logits = _adjust(logits, seq, state)
        if allowed is None:
            return self._choose(logits, sampling, state)
        return self._choose_allowed(logits, allowed, sampling, state)

    def _choose_allowed(
        self, logits: FloatArray, allowed: Allowed, sampling: SamplingParams, state: _State
    ) -> int:
        if isinstance(allowed, FewAllowed):
            token_ids = allowed.token_ids
        else:
            is_greedy = sampling.temperature < _GREEDY
            if is_greedy and allowed.flags[best := int(logits.argmax())]:
                return best
            token_id = self._choose(allowed.masked(logits), sampling, state)
            if allowed.flags[token_id]:
                return token_id
            # Sums in float32 can end short of the last weights, which are zeros here.
            token_ids = np.flatnonzero(allowed.flags)
        return int(token_ids[self._choose(logits[token_ids], sampling, state)])

    def _choose(self, logits: FloatArray, sampling: SamplingParams, state: _State) -> int:
        if sampling.temperature < _GREEDY:
            return int(logits.argmax())
        if sampling.top_k == 0:
            return draw(logits, sampling, state.generator)
        token_ids = superset(logits, sampling.top_k)  # spares the exponentials of all others
        return int(token_ids[draw(logits[token_ids], sampling, state.generator)])


def token_logprobs(logits: FloatArray, token_id: int, num_top: int) -> TokenLogprobs:
    """Log-softmax of one row at `token_id` and at its `num_top` likeliest tokens."""
    peak = logits.max()
    normaliser = float(peak) + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))
    top_ids = likeliest(logits, num_top) if num_top else np.empty(0, np.int64)
    top = [(int(i), float(logits[i]) - normaliser) for i in top_ids.tolist()]
    return TokenLogprobs(token_id, float(logits[token_id]) - normaliser, tuple(top))


def _adjust(logits: FloatArray, seq: Sequence, state: _State) -> FloatArray:
    """A copy of a row with bias and penalties applied. [V]"""
    sampling = seq.sampling
    logits = logits.copy()
    if sampling.repetition_penalty != 1:
        seen = np.fromiter(set(seq.token_ids), np.int64)
        values = logits[seen]
        penalty = np.float32(sampling.repetition_penalty)
        logits[seen] = np.where(values > 0, values / penalty, values * penalty)
    if state.counts and (sampling.presence_penalty or sampling.frequency_penalty):
        generated = np.fromiter(state.counts.keys(), np.int64, len(state.counts))
        counts = np.fromiter(state.counts.values(), np.float32, len(state.counts))
        logits[generated] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    for token_id, bias in sampling.logit_bias.items():
        logits[token_id] += np.float32(bias)
    return logits


def _draw_cut(
    output: OrderedCandidates, rows: IntArray, drawn: Rows[tuple[SamplingParams, _State]]
) -> list[int]:
    """Tokens of sequences whose draw needs no more than their `top_k` likeliest ones."""
    samplings = [sampling for sampling, _ in drawn]
    candidates = output.ordered_candidates(rows, max(sampling.top_k for sampling in samplings))
    positions = np.array([state.generator.random() for _, state in drawn])
    token_ids: list[int] = draw_rows(*candidates, samplings, positions).tolist()
    return token_ids


def _count_tokens(state: _State, seq: Sequence) -> None:
    for token_id in seq.token_ids[seq.num_prompt_tokens + state.num_counted :]:
        state.counts[token_id] = state.counts.get(token_id, 0) + 1
    state.num_counted = seq.num_output_tokens


def _indices(states: Rows[_State], way: _Way) -> list[int]:
    return [index for index, state in enumerate(states) if state.way is way]


def _way(output: RunOutput, seq: Sequence) -> _Way:
    sampling = seq.sampling
    if seq.constraint is not None or _has_adjustments(sampling):
        return _Way.ROW
    if sampling.temperature < _GREEDY:
        return _Way.LIKELIEST
    # isinstance of a protocol takes 80 us
    is_cut = 0 < sampling.top_k <= getattr(output, "num_candidates", 0)
    return _Way.CUT if is_cut else _Way.ROW


def _has_adjustments(sampling: SamplingParams) -> bool:
    return bool(sampling.logit_bias) or sampling.repetition_penalty != 1 or _counts_tokens(sampling)


def _counts_tokens(sampling: SamplingParams) -> bool:
    return sampling.presence_penalty != 0 or sampling.frequency_penalty != 0
