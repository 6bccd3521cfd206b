"""Let a compiled engine answer the questions greedily, as it would when it serves them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.backends.ort import OrtCpuRunner
from engines.llm.runner import Batch, RunOutput
from engines.machine import usable_cores
from engines.manifest import ChatSpec
from export.agreement import FloatArray

MAX_ANSWER_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """A prompt, the greedy answer to it, and the logits that each answer token was taken from."""

    prompt_ids: list[int]
    answer_ids: list[int]
    logits: FloatArray  # [len(answer_ids), num_tokens]


def greedy_answers(engine_dir: Path, spec: ChatSpec, prompts: list[list[int]]) -> list[Answer]:
    """Prefill each prompt in a slot of its own, then decode all of them together.

    An answer ends with the engine's end token, or after `MAX_ANSWER_TOKENS`.
    """
    length = min(MAX_ANSWER_TOKENS, spec.max_context - max(map(len, prompts)) + 1)
    runner = OrtCpuRunner(
        engine_dir / spec.graph, spec, len(prompts), spec.max_context, usable_cores()
    )
    rows = [_prefill(runner, slot, ids) for slot, ids in enumerate(prompts)]
    steps = [np.stack(rows)]  # each [n, num_tokens]
    past_lens = np.array([len(ids) for ids in prompts], np.int32)
    ended = np.zeros(len(prompts), bool)
    for step in range(length - 1):
        token_ids = steps[-1].argmax(-1)
        ended |= np.isin(token_ids, spec.eos_token_ids)
        if ended.all():
            break
        batch = Batch(0, token_ids[:, None], past_lens + np.int32(step), np.arange(len(prompts)))
        steps.append(_logits(runner.run(batch), len(prompts)))
    runner.close()
    return [
        _cut(ids, np.stack([step[row] for step in steps]), spec.eos_token_ids)
        for row, ids in enumerate(prompts)
    ]


def _prefill(runner: OrtCpuRunner, slot: int, token_ids: list[int]) -> FloatArray:
    last = np.array([len(token_ids) - 1])
    batch = Batch(slot, np.array([token_ids]), np.zeros(1, np.int32), last)
    logits: FloatArray = _logits(runner.run(batch), 1)[0]
    return logits


def _logits(output: RunOutput, num_rows: int) -> FloatArray:
    """A copy, since the runner writes its next logits to the same memory. [num_rows, num_tokens]"""
    logits: FloatArray = np.stack([output.logits(row) for row in range(num_rows)])
    return logits


def _cut(prompt_ids: list[int], logits: FloatArray, eos_token_ids: tuple[int, ...]) -> Answer:
    answer_ids: list[int] = logits.argmax(-1).tolist()
    ends = [index for index, token_id in enumerate(answer_ids) if token_id in eos_token_ids]
    length = ends[0] + 1 if ends else len(answer_ids)
    return Answer(prompt_ids, answer_ids[:length], logits[:length].copy())
