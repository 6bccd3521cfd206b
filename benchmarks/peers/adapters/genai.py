"""Measures onnxruntime-genai: `GENAI_PYTHON -m benchmarks.peers.adapters.genai --model DIR ...`"""

import argparse
import json
import time
from importlib.metadata import version

import numpy as np
import onnxruntime_genai as og  # type: ignore[import-not-found,unused-ignore]

from benchmarks.peers.adapters.adapter import VOCABULARY, ChatModel, run_adapter


class GenaiModel(ChatModel):
    """`Generator`, greedy, one static batch."""

    def __init__(self, args: argparse.Namespace) -> None:
        config = og.Config(str(args.model))
        threads = {"intra_op_num_threads": args.threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": threads}}}))
        self._model = og.Model(config)
        self._rng = np.random.default_rng(0)
        self.version = f"onnxruntime-genai {og.__version__} on onnxruntime {version('onnxruntime')}"

    def prefill(self, num_tokens: int) -> float:
        generator = self._generator(1, num_tokens + 1)
        prompt = self._prompts(1, num_tokens)
        start = time.perf_counter()
        generator.append_tokens(prompt)
        generator.generate_next_token()
        return num_tokens / (time.perf_counter() - start)

    def decode(self, streams: int, context: int, num_tokens: int) -> float:
        generator = self._generator(streams, context + num_tokens + 1)
        generator.append_tokens(self._prompts(streams, context))
        generator.generate_next_token()
        start = time.perf_counter()
        for _ in range(num_tokens):
            if generator.is_done():
                raise SystemExit("the batch ended before its tokens were generated")
            generator.generate_next_token()
        return streams * num_tokens / (time.perf_counter() - start)

    def _generator(self, batch_size: int, length: int) -> og.Generator:
        """With a cache of exactly `length` tokens a row and no early end."""
        params = og.GeneratorParams(self._model)
        params.set_search_options(
            batch_size=batch_size, max_length=length, min_length=length, do_sample=False
        )
        return og.Generator(self._model, params)

    def _prompts(self, rows: int, length: int) -> np.ndarray:
        return self._rng.integers(VOCABULARY, size=(rows, length)).astype(np.int32)


if __name__ == "__main__":
    run_adapter(GenaiModel, argparse.ArgumentParser(description=__doc__))
