"""Measures an Enginery engine: `python -m benchmarks.peers.adapters.enginery --model DIR ...`"""

import argparse

import numpy as np

from benchmarks.machine import installed_version
from benchmarks.peers.adapters.adapter import (
    VOCABULARY,
    BatchingModel,
    most_sequences,
    run_adapter,
)
from benchmarks.throughput import ThroughputMeter
from engines import __version__
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from engines.load import EngineOptions, load_llm_engine
from engines.store import find_engines


class EngineryModel(BatchingModel):
    """`LLMEngine` with greedy sampling."""

    def __init__(self, args: argparse.Namespace) -> None:
        (folder,) = find_engines(args.model)
        options = EngineOptions(max_num_seqs=most_sequences(args), num_threads=args.threads)
        self._engine = load_llm_engine(folder, options)
        self._meter = ThroughputMeter(self._engine)
        self._rng = np.random.default_rng(1)
        self.version = f"Enginery {__version__}, onnxruntime {installed_version('onnxruntime')}"

    def prefill(self, num_tokens: int) -> float:
        return self._meter.prefill(num_tokens)

    def decode(self, streams: int, context: int, num_tokens: int) -> float:
        return self._meter.decode(streams, context, num_tokens)

    def add(self, sequence_id: int, num_prompt_tokens: int, num_tokens: int) -> None:
        ids = min(VOCABULARY, self._engine.vocab_size)
        prompt = self._rng.integers(ids, size=num_prompt_tokens).tolist()
        params = SamplingParams(max_tokens=num_tokens, temperature=0, ignore_eos=True)
        self._engine.add(Sequence.from_prompt(sequence_id, prompt, params))

    def step(self) -> list[tuple[int, int, bool]]:
        outputs = self._engine.step()
        return [(o.seq_id, 1, o.finish_reason is not None) for o in outputs]


if __name__ == "__main__":
    run_adapter(EngineryModel, argparse.ArgumentParser(description=__doc__))
