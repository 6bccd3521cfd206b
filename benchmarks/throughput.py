"""Prefill and decode speed of an engine, step by step, without text or HTTP."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from benchmarks.errors import BenchmarkFailed
from engines.llm.output import StepOutput
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence

_SMALLEST_CHUNK = 32  # tokens of a prompt computed in one step, at least


class Engine(Protocol):
    """What is needed of `engines.llm.engine.LLMEngine`."""

    @property
    def has_work(self) -> bool: ...

    @property
    def max_context(self) -> int: ...

    @property
    def max_num_seqs(self) -> int: ...

    @property
    def vocab_size(self) -> int: ...

    def add(self, seq: Sequence) -> None: ...

    def abort(self, seq_id: int) -> None: ...

    def step(self) -> list[StepOutput]: ...


class ThroughputMeter:
    """Times one engine. Prompts are random tokens, so that no prefix is ever reused."""

    def __init__(
        self, engine: Engine, seed: int = 0, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._engine = engine
        self._rng = np.random.default_rng(seed)
        self._clock = clock
        self._ids = itertools.count(1)
        self._prompts: dict[int, list[int]] = {}  # of sequences that are alike, by length

    def prefill(self, num_tokens: int) -> float:
        """Tokens per second of one prompt, from the queue to its first sampled token.

        The prompt is cut into chunks as the engine always does.

        Raises:
            BenchmarkFailed: The prompt does not fit into the engine's context.
        """
        self._check_fits(num_tokens, 1)
        self._add(num_tokens, max_tokens=1)
        start = self._clock()
        self._drain()
        return num_tokens / (self._clock() - start)

    def decode(self, num_seqs: int, context: int, num_tokens: int) -> float:
        """Tokens per second of `num_seqs` sequences together.

        Each holds a prompt of `context` tokens; after all have their first token, `num_tokens`
        steps are timed in which all of them advance.

        Raises:
            BenchmarkFailed: The engine runs fewer sequences, or its context is too short.
        """
        return self._decode(num_seqs, context, num_tokens, None)

    def _decode(
        self, num_seqs: int, context: int, num_tokens: int, prompt: list[int] | None
    ) -> float:
        engine = self._engine
        if num_seqs > engine.max_num_seqs:
            raise BenchmarkFailed(
                f"{num_seqs} sequences were asked for, but the engine runs {engine.max_num_seqs}"
            )
        self._check_fits(context, num_tokens + 1)
        # The first to start decode along while the others' prompts are computed.
        lead = num_seqs * (2 if prompt is not None else context // _SMALLEST_CHUNK + 2)
        max_tokens = min(num_tokens + 1 + lead, engine.max_context - context)
        started = []
        if prompt is not None:  # the others find it in the cache
            started.append(self._add(context, max_tokens, prompt))
            while not engine.step():
                pass
        while len(started) < num_seqs:
            started.append(self._add(context, max_tokens, prompt))
        missing = set(started if prompt is None else started[1:])
        while missing:
            missing -= {output.seq_id for output in engine.step()}
        start = self._clock()
        count = sum(len(engine.step()) for _ in range(num_tokens))
        elapsed = self._clock() - start
        for seq_id in started:
            engine.abort(seq_id)
        self._drain()
        if count != num_tokens * num_seqs:
            raise BenchmarkFailed(
                f"{num_seqs} sequences at context {context} gave {count} tokens in {num_tokens} "
                f"steps, but {num_tokens * num_seqs} were expected: is the context of "
                f"{engine.max_context} tokens too short?"
            )
        return count / elapsed

    def decode_alike(self, num_seqs: int, context: int, num_tokens: int) -> float:
        """As `decode`, of sequences that all hold one prompt, which is computed only once.

        Calls with one length of context have one prompt too.

        Raises:
            BenchmarkFailed: The engine runs fewer sequences, or its context is too short.
        """
        prompt = self._prompts.get(context)
        if prompt is None:
            prompt = self._rng.integers(self._engine.vocab_size, size=context).tolist()
            self._prompts[context] = prompt
        return self._decode(num_seqs, context, num_tokens, prompt)

    def _add(self, num_prompt_tokens: int, max_tokens: int, prompt: list[int] | None = None) -> int:
        if prompt is None:
            prompt = self._rng.integers(self._engine.vocab_size, size=num_prompt_tokens).tolist()
        sampling = SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True)
        seq_id = next(self._ids)
        self._engine.add(Sequence.from_prompt(seq_id, prompt, sampling))
        return seq_id

    def _drain(self) -> None:
        while self._engine.has_work:
            self._engine.step()

    def _check_fits(self, num_prompt_tokens: int, num_output_tokens: int) -> None:
        needed = num_prompt_tokens + num_output_tokens
        if needed > self._engine.max_context:
            raise BenchmarkFailed(
                f"{num_prompt_tokens} prompt and {num_output_tokens} output tokens were asked for, "
                f"but the engine's context is {self._engine.max_context} tokens"
            )
