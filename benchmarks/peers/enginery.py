"""Measures an Enginery engine for the comparison, in a process of its own.

python -m benchmarks.peers.enginery --model DIR [--threads N ...]
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from benchmarks.machine import installed_version, resident_bytes
from benchmarks.peers.workload import ANSWER_PREFIX, Measurement, Workload
from benchmarks.throughput import ThroughputMeter
from engines import __version__
from engines.cli import add_command, run_app


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineryAdapterConfig:
    """Measure one engine and print the result as one line."""

    model: Annotated[Path, Parameter(help="folder that holds engine.json")]
    prefill_tokens: Annotated[int, Parameter(help="tokens of the prompt")] = 512
    decode_context: Annotated[int, Parameter(help="tokens before decode is timed")] = 128
    decode_tokens: Annotated[int, Parameter(help="tokens timed for each stream")] = 64
    streams: Annotated[str, Parameter(help="numbers of streams, with commas")] = "1,8"
    repetitions: Annotated[int, Parameter(help="of each measurement; the best counts")] = 2
    threads: Annotated[int, Parameter(help="threads of the runtime")] = 1


def measure(config: EngineryAdapterConfig) -> None:
    """Load, warm up, measure, print."""
    from engines.load import EngineOptions, load_llm_engine
    from engines.store import find_engines

    workload = Workload(
        prefill_tokens=config.prefill_tokens,
        decode_context=config.decode_context,
        decode_tokens=config.decode_tokens,
        streams=tuple(map(int, config.streams.split(","))),
        repetitions=config.repetitions,
        num_threads=config.threads,
    )
    (folder,) = find_engines(config.model)
    start = time.perf_counter()
    engine = load_llm_engine(
        folder,
        EngineOptions(max_num_seqs=max(workload.streams), num_threads=workload.num_threads),
    )
    load_s = time.perf_counter() - start
    try:
        prefill, decode = _measure(ThroughputMeter(engine), workload)
    finally:
        engine.close()
    answer = Measurement(
        prefill=prefill,
        decode=decode,
        peak_rss_bytes=resident_bytes()[1],
        load_s=load_s,
        version=_version(),
    )
    print(ANSWER_PREFIX + msgspec.json.encode(answer).decode(), flush=True)


def _measure(meter: ThroughputMeter, workload: Workload) -> tuple[float, dict[int, float]]:
    meter.prefill(workload.prefill_tokens)  # warm-up
    repeat = range(workload.repetitions)
    prefill = max(meter.prefill(workload.prefill_tokens) for _ in repeat)
    decode = {
        streams: max(
            meter.decode(streams, workload.decode_context, workload.decode_tokens) for _ in repeat
        )
        for streams in workload.streams
    }
    return prefill, decode


def _version() -> str:
    return f"Enginery {__version__}, onnxruntime {installed_version('onnxruntime')}"


def main() -> None:
    app = App(name="python -m benchmarks.peers.enginery", version_flags=[])
    add_command(app, EngineryAdapterConfig, measure, name=None)
    run_app(app, "peers")


if __name__ == "__main__":
    main()
