"""A bare slot cache around a compiled decoder: what the graph contract says, and nothing more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from engines.backends.ort_session import open_session
from engines.manifest import ChatSpec, read_manifest


class SlotDecoder:
    """Runs a graph over `num_slots` slots through IOBinding, past and present in one memory."""

    def __init__(self, engine_dir: Path, num_slots: int = 4, spec: ChatSpec | None = None) -> None:
        self.spec = spec or read_manifest(engine_dir).chat
        assert self.spec is not None
        self.session = open_session(engine_dir / self.spec.graph, num_threads=2)
        rows = self.spec.max_context + self.spec.spare_rows
        self.caches = {
            state: np.zeros((num_slots, state.heads, state.rows or rows, state.width), state.dtype)
            for state in self.spec.states
        }

    def run(self, slot, input_ids, past_lens, logit_indices):
        """One run over the slots from `slot` on; `logit_indices` are rows of [n * S]. -> [R, V]"""
        input_ids = np.asarray(input_ids, np.int64)  # [n, S]
        past_lens = np.asarray(past_lens, np.int32)  # [n]
        num_rows, length = input_ids.shape
        logits = np.zeros((len(logit_indices), self.spec.vocab_size), np.float32)
        binding = self.session.io_binding()
        inputs = {
            "input_ids": input_ids,
            "seqlens_k": past_lens + np.int32(length - 1),
            "total_sequence_length": np.array(past_lens.max() + length, np.int32),
            "logit_indices": np.asarray(logit_indices, np.int64),
        }
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(logits))
        for state, cache in self.caches.items():
            view = cache[slot : slot + num_rows]
            value = ort.OrtValue.ortvalue_from_numpy(view)
            assert value.data_ptr() == view.ctypes.data
            binding.bind_ortvalue_input(state.input, value)
            binding.bind_ortvalue_output(state.output, value)
        self.session.run_with_iobinding(binding)
        return logits

    def prefill(self, slot, token_ids, past_len=0):
        """Logits of every position of one prompt, [len(token_ids), V]."""
        return self.run(slot, [token_ids], [past_len], range(len(token_ids)))

    def decode(self, token_ids, past_lens, slot=0):
        """One token for each of the slots from `slot` on, [n, V]."""
        return self.run(slot, [[t] for t in token_ids], past_lens, range(len(token_ids)))
