"""A language model on a GPU: exported, loaded, and timed as the goals are put."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import get_args

import msgspec

from benchmarks.checkpoints.catalogue import SHAPES, ShapeName
from benchmarks.checkpoints.writer import make_chat_checkpoint
from benchmarks.gpu.bandwidth import decode_limit
from benchmarks.throughput import ThroughputMeter
from engines.backends.gpu_session import ITEM_SIZES
from engines.llm.engine import LLMEngine
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from engines.load import EngineOptions, load_llm_engine
from engines.manifest import ChatSpec, read_manifest
from engines.store import EngineFolder
from export.command import export_engine
from export.config import ExportConfig
from export.report import QuietProgress

SHAPE_NAMES: tuple[ShapeName, ...] = get_args(ShapeName)
DECODE_SEQS = (1, 8, 64)
PROMPT_SIZES = (512, 4096)
NUM_STREAMS = 256
CONTEXT = 512  # tokens that a sequence holds while its decoding is timed
STEPS = 64
STREAM_TOKENS = 128  # of prompt, and of answer, of each of many streams
MAX_CONTEXT = 8192


class DecodeSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """Of some sequences together; `limit` is what the memory's bandwidth would allow."""

    num_seqs: int
    tokens_per_s: float
    limit: float


class ChatFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one target."""

    shape: str
    target: str
    precision: str
    load_s: float
    decode: list[DecodeSpeed]
    first_token_s: dict[int, float]  # by the length of the prompt
    throughput: float | None  # tokens of answers a second, of many streams; None: too few run
    num_streams: int


def compile_shape(work: Path, name: ShapeName, target: str, precision: str) -> EngineFolder:
    """The engine of a published shape with random weights; made where it is not there yet."""
    checkpoint = work / "checkpoints" / name
    if not checkpoint.exists():
        make_chat_checkpoint(checkpoint, SHAPES[name])
    output = work / target
    engine = output / name
    if not (engine / "engine.json").exists():
        config = ExportConfig(
            checkpoint_path=str(checkpoint),
            output=output,
            name=name,
            target=target,  # type: ignore[arg-type]  # from the same list
            precision=precision,  # type: ignore[arg-type]
            max_context=MAX_CONTEXT,
            quiet=True,
        )
        export_engine(config, QuietProgress())
    return EngineFolder(engine, read_manifest(engine))


def measure_chat(folder: EngineFolder, bandwidth: float, repetitions: int) -> ChatFigures:
    """Time an engine; each figure is a median."""
    start = time.perf_counter()
    engine = load_llm_engine(folder, EngineOptions(rebuild=folder.manifest.target == "tensorrt"))
    load_s = time.perf_counter() - start
    spec = folder.manifest.chat
    assert spec is not None
    try:
        meter = ThroughputMeter(engine)
        for num_seqs in (1, 8):  # what is set up at the first run is not what is measured
            meter.decode(num_seqs, CONTEXT, 4)
        first_token = {
            size: median(size / meter.prefill(size) for _ in range(repetitions))
            for size in PROMPT_SIZES
        }
        decode = [
            _decode(meter, num_seqs, spec, folder, bandwidth, repetitions)
            for num_seqs in DECODE_SEQS
            if num_seqs <= engine.max_num_seqs
        ]
        fits = engine.max_num_seqs >= NUM_STREAMS
        throughput = _throughput(engine) if fits else None
    finally:
        engine.close()
    return ChatFigures(
        shape=folder.manifest.id,
        target=folder.manifest.target,
        precision=folder.manifest.precision,
        load_s=load_s,
        decode=decode,
        first_token_s=first_token,
        throughput=throughput,
        num_streams=NUM_STREAMS,
    )


def _decode(
    meter: ThroughputMeter,
    num_seqs: int,
    spec: ChatSpec,
    folder: EngineFolder,
    bandwidth: float,
    repetitions: int,
) -> DecodeSpeed:
    speed = median(meter.decode(num_seqs, CONTEXT, STEPS) for _ in range(repetitions))
    per_token = sum(s.heads * s.width * ITEM_SIZES[s.dtype] for s in spec.states)
    cache_bytes = (CONTEXT + STEPS // 2) * per_token
    limit = decode_limit(bandwidth, weights_read(folder, spec), cache_bytes, num_seqs)
    return DecodeSpeed(num_seqs=num_seqs, tokens_per_s=speed, limit=limit)


def weights_read(folder: EngineFolder, spec: ChatSpec) -> int:
    """Bytes of weights that a decode step has to read: all, but for an embedding apart from the
    head, of which it reads a row a token."""
    size = folder.manifest.files[f"{spec.graph}.data"].size
    shape = next((SHAPES[name] for name in SHAPE_NAMES if name == folder.manifest.id), None)
    if shape is None or shape.tie_word_embeddings:
        return size
    return size - shape.vocab_size * shape.hidden_size * ITEM_SIZES[spec.states[0].dtype]


def _throughput(engine: LLMEngine) -> float:
    """Tokens of answers a second, from the first prompt to the last token of many streams."""
    import numpy as np

    rng = np.random.default_rng(1)
    sampling = SamplingParams(max_tokens=STREAM_TOKENS, temperature=0.7, top_k=20, ignore_eos=True)
    for index in range(NUM_STREAMS):
        prompt = rng.integers(engine.vocab_size, size=STREAM_TOKENS).tolist()
        engine.add(Sequence.from_prompt(1_000_000 + index, prompt, sampling))
    start = time.perf_counter()
    count = 0
    while engine.has_work:
        count += len(engine.step())
    return count / (time.perf_counter() - start)
