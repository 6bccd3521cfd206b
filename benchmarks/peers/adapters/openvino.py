"""Measures OpenVINO GenAI: `OPENVINO_PYTHON -m benchmarks.peers.adapters.openvino --model DIR`."""

import argparse
import itertools
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import openvino as ov  # type: ignore[import-not-found,unused-ignore]
import openvino_genai as genai  # type: ignore[import-not-found,unused-ignore]

from benchmarks.peers.adapters.adapter import (
    VOCABULARY,
    BatchingModel,
    longest_sequence,
    most_sequences,
    run_adapter,
)

_BATCHED_TOKENS = 512  # of a step: a whole prompt of the workload
_SPARE_GIB = 1


class OpenVinoModel(BatchingModel):
    """`ContinuousBatchingPipeline`, greedy; it has no cache of prefixes unless asked for one."""

    def __init__(self, args: argparse.Namespace) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_seqs = most_sequences(args)
        scheduler.max_num_batched_tokens = _BATCHED_TOKENS
        scheduler.cache_size = _SPARE_GIB
        scheduler.enable_prefix_caching = False
        properties = {"INFERENCE_NUM_THREADS": args.threads}
        self._pipeline = genai.ContinuousBatchingPipeline(
            str(args.model), scheduler, "CPU", properties
        )
        self._longest = longest_sequence(args)
        self._rng = np.random.default_rng(0)
        self._handles: dict[int, Any] = {}
        self._wanted: dict[int, int] = {}
        self._ids = itertools.count(1_000_000)  # of the sequences of prefill and decode
        self.version = f"OpenVINO GenAI {version('openvino-genai')}"

    def prefill(self, num_tokens: int) -> float:
        self.add(next(self._ids), num_tokens, 1)
        start = time.perf_counter()
        self._drain()
        return num_tokens / (time.perf_counter() - start)

    def decode(self, streams: int, context: int, num_tokens: int) -> float:
        started = [next(self._ids) for _ in range(streams)]
        for sequence_id in started:
            self.add(sequence_id, context, self._longest - context)
        missing = set(started)
        while missing:
            missing -= {sequence_id for sequence_id, count, _ in self.step() if count}
        start = time.perf_counter()
        count = sum(tokens for _ in range(num_tokens) for _, tokens, _ in self.step())
        elapsed = time.perf_counter() - start
        for sequence_id in started:
            self._handles.pop(sequence_id).stop()
        self._drain()
        if count != streams * num_tokens:
            raise SystemExit(f"{streams} streams gave {count} tokens in {num_tokens} steps")
        return count / elapsed

    def add(self, sequence_id: int, num_prompt_tokens: int, num_tokens: int) -> None:
        prompt = self._rng.integers(VOCABULARY, size=(1, num_prompt_tokens)).astype(np.int64)
        config = genai.GenerationConfig()
        config.max_new_tokens = num_tokens
        config.ignore_eos = True
        config.do_sample = False
        handle = self._pipeline.add_request(sequence_id, ov.Tensor(prompt), config)
        self._handles[sequence_id] = handle
        self._wanted[sequence_id] = num_tokens

    def step(self) -> list[tuple[int, int, bool]]:
        self._pipeline.step()
        advanced = []
        for sequence_id, handle in list(self._handles.items()):
            if not handle.can_read():
                continue
            count = sum(len(output.generated_ids) for output in handle.read().values())
            self._wanted[sequence_id] -= count
            has_ended = self._wanted[sequence_id] <= 0
            if has_ended:
                del self._handles[sequence_id], self._wanted[sequence_id]
            advanced.append((sequence_id, count, has_ended))
        return advanced

    def _drain(self) -> None:
        while self._pipeline.has_non_finished_requests():
            self.step()


if __name__ == "__main__":
    run_adapter(OpenVinoModel, argparse.ArgumentParser(description=__doc__))
