"""How near an engine is to another, token by token: the tokens of one are forced on the other."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.llm.engine import LLMEngine
from engines.llm.piece import Piece
from engines.llm.runner import FloatArray
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from engines.manifest import ChatSpec
from export.agreement import AgreementMeter
from export.answers import MAX_ANSWER_TOKENS, Answer, greedy_answers
from export.verify_prompts import read_prompts

NUM_STEPS = 1000
_PROMPT_TOKENS = 48  # of prompts that are made up
_MIN_CHUNK = 2


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of an engine with its reference over `num_steps` tokens."""

    num_steps: int
    top1: float
    mean_kl: float  # nats
    max_logit_error: float


def compare(reference: Path, spec: ChatSpec, engine: LLMEngine, num_steps: int) -> Agreement:
    """Let the CPU engine in `reference` answer, and force its answers on `engine`."""
    prompts = read_prompts(reference, max_prompt_tokens=max(1, spec.max_context // 2))
    rng = np.random.default_rng(0)
    answers = greedy_answers(reference, spec, prompts)
    while (left := num_steps - sum(len(answer.answer_ids) for answer in answers)) > 0:
        # Of prompts that are made up, as many as are needed where no answer ends early.
        more = rng.integers(4, spec.num_tokens, (-(-left // MAX_ANSWER_TOKENS), _PROMPT_TOKENS))
        answers += greedy_answers(reference, spec, more.tolist())
    meter = AgreementMeter()
    for answer, found in zip(answers, forced_logits(engine, answers), strict=True):
        meter.add(answer.logits, found)
    return Agreement(
        meter.num_positions, meter.top1_agreement, meter.mean_kl, meter.max_logit_error
    )


def forced_logits(engine: LLMEngine, answers: Rows[Answer]) -> list[FloatArray]:
    """What the engine predicts before each token of each answer, [len(answer), num_tokens].

    Prompts are computed in chunks and answers in decode steps together, as when they are served,
    as many at a time as the engine runs.
    """
    found: list[FloatArray] = []
    size = engine.max_num_seqs
    for start in range(0, len(answers), size):
        found += _force(engine, answers[start : start + size])
    return found


def _force(engine: LLMEngine, answers: Rows[Answer]) -> list[FloatArray]:
    cache = engine.scheduler.cache
    seqs = [
        Sequence.from_prompt(index, answer.prompt_ids, SamplingParams())
        for index, answer in enumerate(answers)
    ]
    rows = [[_prefill(engine, seq)] for seq in seqs]
    for step in range(max(len(answer.answer_ids) for answer in answers) - 1):
        active = [index for index, a in enumerate(answers) if step < len(a.answer_ids) - 1]
        for index in active:
            seqs[index].token_ids.append(answers[index].answer_ids[step])
        cache.compact()
        for index in active:
            assert cache.reserve(seqs[index], 1), "the cache is too small"
        batch, pieces = cache.decode([Piece.next_token(seqs[index]) for index in active])
        output = engine.runner.run(batch)
        for row, piece in enumerate(pieces):
            rows[piece.seq.seq_id].append(output.logits(row).copy())
            piece.seq.num_computed_tokens += 1
        for index, seq in enumerate(seqs):
            if step == len(answers[index].answer_ids) - 2:
                cache.free(seq)
    for index, answer in enumerate(answers):
        if len(answer.answer_ids) == 1:
            cache.free(seqs[index])
    return [np.stack(logits) for logits in rows]


def _prefill(engine: LLMEngine, seq: Sequence) -> FloatArray:
    """The logits behind the prompt."""
    cache = engine.scheduler.cache
    assert cache.allocate(seq), "the cache is too small"
    while True:
        left = seq.num_tokens - seq.num_computed_tokens
        size = min(left, engine.scheduler.config.prefill_chunk)
        if 0 < left - size < _MIN_CHUNK:
            size -= _MIN_CHUNK
        assert cache.reserve(seq, size), "the cache is too small"
        piece = Piece.chunk(seq, size)
        output = engine.runner.run(cache.batch((piece,)))
        seq.num_computed_tokens += size
        if size == left:
            logits: FloatArray = output.logits(0).copy()
            return logits
