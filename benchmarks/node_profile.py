"""Where the time of a run of the graph goes: ONNX Runtime's own profile, by kind of node."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich import box
from rich.table import Table

from benchmarks.errors import BenchmarkFailed
from engines.llm.runner import Batch
from engines.manifest import ChatSpec
from engines.store import EngineFolder

PARTS = ("matmuls", "attention", "rounding", "the rest")
_MATMULS = {
    *("MatMul", "FusedMatMul", "Gemm", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits"),
    *("MoE", "QMoE"),
}
_ATTENTION = {"GroupQueryAttention", "LinearAttention", "LinearAttentionGate"}
# How `export.linear` names the nodes that bring activations to 8 bits, and products back.
_ROUNDING = {"abs", "row_max", "quantized", "scaled", "row_scale", "shape", "zero_points"}
_KERNEL_TIME = "_kernel_time"
_CHUNK = 128
_RUNS = 12
_NUM_IDS = 100  # every vocabulary has as many


class RunTimes(msgspec.Struct, frozen=True, kw_only=True):
    """The least time of each node over the runs, in milliseconds, added up by part."""

    run: str  # for example "128 tokens behind 384"
    parts: dict[str, float]

    @property
    def total_ms(self) -> float:
        return sum(self.parts.values())


def profile_engine(
    folder: EngineFolder, threads: int, prompt: int, context: int, num_seqs: Iterable[int]
) -> list[RunTimes]:
    """Profile the last chunk of a prompt, and decode steps of some numbers of sequences.

    Args:
        folder: A language model for the CPU.
        threads: Of the runtime.
        prompt: Tokens of the prompt; its last 128 are the chunk.
        context: Tokens of each sequence that decodes.
        num_seqs: Sequences of a step; each number is a row.

    Raises:
        BenchmarkFailed: It is no language model for the CPU, or its context is shorter.
    """
    spec = folder.manifest.chat
    if spec is None or folder.manifest.target != "ort-cpu":
        raise BenchmarkFailed(f"{folder.manifest.id} is no language model for the CPU")
    if max(prompt, context + 1) > spec.max_context:
        raise BenchmarkFailed(
            f"{max(prompt, context + 1)} tokens were asked for, but the engine's context is "
            f"{spec.max_context} tokens"
        )
    chunk = min(_CHUNK, prompt)
    batches = {f"{chunk} tokens behind {prompt - chunk}": _chunk(chunk, prompt - chunk)}
    for count in num_seqs:
        streams = "1 stream" if count == 1 else f"{count} streams"
        batches[f"{streams} behind {context}"] = _step(count, context)
    return [_profile(folder, spec, threads, name, batch) for name, batch in batches.items()]


def profile_table(rows: list[RunTimes]) -> Table:
    """A line for each run."""
    table = Table(
        title="The runtime's profile, least time of each node, ms",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("run")
    for name in ("total", *PARTS):
        table.add_column(name, justify="right")
    for row in rows:
        times = (row.total_ms, *(row.parts[part] for part in PARTS))
        table.add_row(row.run, *(f"{time:.1f}" for time in times))
    return table


def times_by_part(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds of each part from a profile's events, the least of each node counting."""
    least: dict[tuple[str, str], float] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") != "Node" or not name.endswith(_KERNEL_TIME):
            continue
        node = name.removesuffix(_KERNEL_TIME), event["args"]["op_name"]
        least[node] = min(event["dur"], least.get(node, event["dur"]))
    parts: dict[str, float] = defaultdict(float, dict.fromkeys(PARTS, 0.0))
    for (name, op_type), duration in least.items():
        parts[_part(name, op_type)] += duration / 1e3
    return dict(parts)


def _part(name: str, op_type: str) -> str:
    if op_type in _MATMULS:
        return "matmuls"
    if op_type in _ATTENTION:
        return "attention"
    return "rounding" if name.rpartition(".")[2] in _ROUNDING else "the rest"


def _profile(
    folder: EngineFolder, spec: ChatSpec, threads: int, name: str, batch: Batch
) -> RunTimes:
    from engines.backends.ort import OrtCpuRunner  # only now: it loads the runtime

    num_tokens = int(batch.past_lens.max()) + batch.input_ids.shape[1]
    with tempfile.TemporaryDirectory() as scratch:
        runner = OrtCpuRunner(
            folder.path / spec.graph,
            spec,
            batch.num_slots,
            num_tokens,
            threads,
            profile=Path(scratch) / "run",
            reduce_range=folder.manifest.reduce_range,
        )
        try:
            for _ in range(_RUNS):
                runner.run(batch)
        finally:
            runner.close()
        events = [
            event
            for path in Path(scratch).iterdir()
            for event in msgspec.json.decode(path.read_bytes())
        ]
    return RunTimes(run=name, parts=times_by_part(events))


def _chunk(size: int, past: int) -> Batch:
    ids = np.arange(size)[None] % _NUM_IDS
    return Batch(0, ids, np.array([past], np.int32), np.array([size - 1]))


def _step(num_seqs: int, context: int) -> Batch:
    ids = np.arange(num_seqs)[:, None] % _NUM_IDS
    return Batch(0, ids, np.full(num_seqs, context, np.int32), np.arange(num_seqs))
