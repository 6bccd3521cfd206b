"""The runtime's own profile, added up by kind of node."""

import pytest

from benchmarks.errors import BenchmarkFailed
from benchmarks.node_profile import PARTS, profile_engine, profile_table, times_by_part
from engines.store import find_engines


def event(name, op_type, duration, category="Node"):
    return {"cat": category, "name": name, "dur": duration, "args": {"op_name": op_type}}


def test_the_least_time_of_each_node_counts_for_its_part():
    matmul = "layers.0.mlp.up.matmul_kernel_time"
    found = times_by_part(
        [
            event(matmul, "MatMulIntegerToFloat", 3000),
            event(matmul, "MatMulIntegerToFloat", 2000),
            event("layers.0.attention_kernel_time", "GroupQueryAttention", 500),
            event("layers.0.mlp.gate.scaled_kernel_time", "Mul", 40),
            event("layers.0.mlp.gated_kernel_time", "Mul", 60),
            event("layers.0.mlp.gated_fence_before", "Mul", 9000),
            {"cat": "Session", "name": "model_run", "dur": 9000},
        ]
    )
    assert found == {"matmuls": 2.0, "attention": 0.5, "rounding": 0.04, "the rest": 0.06}


def test_an_engine_is_profiled_by_the_runtime(tiny_engine_dir):
    (folder,) = find_engines(tiny_engine_dir)
    rows = profile_engine(folder, 1, prompt=40, context=8, num_seqs=[1, 2])
    names = ["40 tokens behind 0", "1 stream behind 8", "2 streams behind 8"]
    assert [row.run for row in rows] == names
    for row in rows:
        assert set(row.parts) == set(PARTS)
        assert min(row.parts["matmuls"], row.parts["attention"], row.parts["the rest"]) > 0
        assert row.parts["rounding"] == 0, "the engine is in fp32"
        assert row.total_ms == pytest.approx(sum(row.parts.values()))
    assert profile_table(rows).row_count == 3


def test_a_profile_beyond_the_context_is_refused(tiny_engine_dir):
    (folder,) = find_engines(tiny_engine_dir)
    with pytest.raises(BenchmarkFailed, match="5000 tokens were asked for, but the engine's"):
        profile_engine(folder, 1, prompt=5000, context=8, num_seqs=[1])
