"""The runner over blocks under random crowds: what it tells the graph is all that the graph needs.

The graph is a stand-in that keeps token ids where keys would be. Everything before it is real:
packing, padding, one transfer, bindings that are replayed, candidates and whole rows.
"""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.backends.cuda import Stream
from engines.backends.gpu_paged import GpuPagedRunner, PagedLimits
from engines.llm.block_cache import BlockCache
from engines.llm.engine import LLMEngine
from engines.llm.sampling_params import SamplingParams
from engines.llm.scheduler import SchedulerConfig
from engines.llm.sequence import Sequence
from engines.manifest import ChatSpec
from tests.engines.fakes import hash_logits
from tests.engines.test_block_cache import assert_same_as_alone
from tests.engines.test_scheduler import EOS, arrivals, drive, run_alone
from tests.gpu.reference_session import view

VOCAB, CONTEXT, BLOCK_SIZE, CANDIDATES = 97, 64, 4, 24
SPEC = msgspec.convert(
    {
        "graph": "model.onnx",
        "vocab_size": VOCAB,
        "num_tokens": VOCAB,
        "max_context": CONTEXT,
        "states": [
            {"input": f"past.{kind}", "output": f"present.{kind}", "heads": 1, "width": 1}
            for kind in ("key", "value")
        ],
        "eos_token_ids": [EOS],
        "num_parameters": 1,
        "kv_cache": "blocks",
        "num_candidates": CANDIDATES,
        "reads_positions": True,
    },
    type=ChatSpec,
)


class HashSession:
    """A `GpuSession` whose next token is a hash of what the blocks of a sequence really hold.

    Like a recorded graph, a key keeps the binding and the numbers on the host of its first run.
    """

    def __init__(self):
        self.recorded = {}
        self.num_replayed = 0

    def bind(self, inputs, host_inputs, outputs):
        feeds = {name: view(array) for name, array in inputs.items()}
        results = {name: view(array) for name, array in outputs.items()}
        for state in SPEC.states:
            here, there = feeds[state.input], results[state.output]
            assert here.ctypes.data == there.ctypes.data, "a cache is not updated in place"
        return feeds, dict(host_inputs), results

    def run(self, binding, graph_key):
        feeds, host, results = binding
        if graph_key is not None:
            self.num_replayed += graph_key in self.recorded
            kept, bounds = self.recorded.setdefault(
                graph_key, (binding, host["attention_metadata"].copy())
            )
            assert kept is binding, "what is replayed was bound anew"
            host = {"attention_metadata": bounds}
        self._run(feeds, host["attention_metadata"], results)

    def close(self):
        self.recorded.clear()

    def _run(self, feeds, bounds, results):
        keys = feeds["past.key"].reshape(-1)
        ends, past = feeds["cumulative_sequence_lengths"], feeds["past_sequence_lengths"]
        assert ends[-1] == len(feeds["input_ids"]) == len(feeds["slot_mapping"])
        written = feeds["slot_mapping"] >= 0
        slots = feeds["slot_mapping"][written]
        assert len(set(slots.tolist())) == len(slots), "two tokens go to one place"
        keys[slots] = feeds["input_ids"][written]
        rows = np.zeros((ends[-1], VOCAB), np.float32)
        for row, (start, end) in enumerate(pairwise(ends)):
            assert end - start <= bounds[0]
            assert past[row] + end - start <= bounds[1]
            for token in range(start, end):
                position = past[row] + token - start
                assert feeds["position_ids"][token] == position
                seen = np.arange(position + 1)
                blocks = feeds["block_table"][row, seen // BLOCK_SIZE]
                assert (blocks >= 0).all(), "a token is to be read whose block nobody names"
                held = keys[blocks * BLOCK_SIZE + seen % BLOCK_SIZE]
                rows[token] = hash_logits(tuple(int(one) for one in held), VOCAB)
        results["logits"][...] = taken = rows[feeds["logit_indices"]]
        order = np.argsort(-taken, axis=1, kind="stable")[:, :CANDIDATES]
        results["candidate_ids"][...] = order
        results["candidate_logits"][...] = np.take_along_axis(taken, order, axis=1)


def make_engine(num_blocks: int, max_num_seqs: int, chunk: int) -> tuple[LLMEngine, HashSession]:
    session = HashSession()
    limits = PagedLimits(
        num_blocks=num_blocks,
        max_seqs=max_num_seqs,
        max_tokens=chunk + max_num_seqs,
        max_context=CONTEXT,
        block_size=BLOCK_SIZE,
    )
    runner = GpuPagedRunner(session, Stream(), SPEC, limits)
    config = SchedulerConfig(
        max_num_seqs=max_num_seqs,
        max_context=CONTEXT,
        prefill_chunk=chunk,
        prefill_chunk_streaming=max(chunk // 2, 2),
        eos_token_ids=frozenset({EOS}),
    )
    return LLMEngine(runner, config, BlockCache(runner), "host"), session


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(arrivals, st.integers(16, 64), st.integers(1, 5), st.integers(2, 30))
def test_crowds_aborts_and_full_caches_change_no_token(
    host_cuda, batch, num_blocks, max_num_seqs, chunk
):
    engine, _ = make_engine(num_blocks, max_num_seqs, chunk)
    assert_same_as_alone(batch, drive(engine, batch))
    engine.close()
    assert not host_cuda.used, "memory is given back"


def test_steps_are_replayed_also_behind_a_run_that_asks_for_more_rows(host_cuda):
    """The log-probabilities of a prompt take a row a token, and memory of their own."""
    engine, session = make_engine(num_blocks=64, max_num_seqs=3, chunk=40)
    sampling = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)
    for seq_id in range(2):
        engine.add(Sequence.from_prompt(seq_id, [10 + seq_id, 11, 12], sampling))
    found = [engine.step() for _ in range(5)]
    echo = SamplingParams(max_tokens=0, prompt_logprobs=True, num_logprobs=2)
    engine.add(Sequence.from_prompt(2, list(range(20, 50)), echo))
    while engine.has_work:
        found.append(engine.step())
    assert session.num_replayed >= 15
    outputs = [output for step in found for output in step]
    (echoed,) = [output for output in outputs if output.seq_id == 2]
    assert [entry.token_id for entry in echoed.prompt_logprobs[1:]] == list(range(21, 50))
    for seq_id in range(2):
        tokens = [output.token_id for output in outputs if output.seq_id == seq_id]
        assert tokens == run_alone((10 + seq_id, 11, 12), sampling)
    engine.close()
