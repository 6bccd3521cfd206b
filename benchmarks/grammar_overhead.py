"""`python -m benchmarks grammar`: what a grammar adds to a decode step."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence as Rows
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any

import msgspec
import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.engine import choose_engine
from benchmarks.errors import BenchmarkFailed
from benchmarks.machine import describe_machine
from benchmarks.options import JsonTarget, check_at_least_one, check_json_target
from benchmarks.report import write_json
from benchmarks.step_profile import StepParts, StepProfiler
from engines import __version__
from engines.llm.constraint import TokenConstraint
from engines.llm.mask_ahead import THREAD_NAME
from engines.llm.sequence import Sequence
from engines.load import require_chat
from engines.store import EngineFolder, find_engines
from server.text.grammar import GrammarCompiler, GrammarSpec

# Neither ends by itself. Of records nearly every token is a choice among a few, or none at all; in
# a text nearly all of the vocabulary may follow, which is what costs most to apply.
SCHEMAS: dict[str, dict[str, Any]] = {
    "records": {
        "type": "array",
        "minItems": 10_000,
        "items": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 40},
                "age": {"type": "integer", "minimum": 0, "maximum": 150},
                "likes": {"enum": ["tea", "coffee", "neither of the two"]},
                "note": {"type": "string", "pattern": "^[A-Z][a-z ]{5,60}$"},
            },
            "required": ["name", "age", "likes", "note"],
            "additionalProperties": False,
        },
    },
    "text": {"type": "string", "minLength": 100_000},
}

# With a cut by top-p alone, a flat row of random weights takes longer to sort than to compute.
_SAMPLINGS = ("greedy", "top-k 20, top-p 0.8", "full distribution")

# Steps of a block. The first is not counted: the thread that works out masks is still, or not yet,
# at those of the block before.
_BLOCK = 5

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class GrammarConfig:
    """Measure what a JSON schema adds to decode steps, in blocks with and without by turns."""

    engine_dir: Annotated[Path, Parameter(help="an engine or a folder of engines")]
    model: Annotated[
        str | None, Parameter(help="the engine's id, when the folder holds several")
    ] = None
    threads: Annotated[
        int | None, Parameter(help="of the runtime; default: the server's choice")
    ] = None
    num_seqs: Annotated[int, Parameter(help="sequences at once")] = 8
    context: Annotated[int, Parameter(help="tokens of a sequence at first")] = 128
    pairs: Annotated[
        int, Parameter(help="of blocks of five steps, with and without, for each sampling")
    ] = 20
    json: JsonTarget = None

    def __post_init__(self) -> None:
        check_json_target(self.json)
        check_at_least_one(self, ("num_seqs", "context", "pairs", "threads"))


class GrammarTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the blocks, of milliseconds a step."""

    schema: str
    sampling: str
    free_ms: float
    constrained_ms: float
    overhead: float  # the median of constrained / free - 1 over pairs of neighbouring blocks
    lowest: float  # that median in 95 % of resamples of the pairs lies between these two
    highest: float
    sampling_ms: float  # what choosing, accepting and waiting for masks add to a step
    masks_ms: float  # CPU time a step of the thread that works out masks while the runtime runs
    own_share: float  # these two of a free step: what the overhead is without the noise, at most


class GrammarReport(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of one engine."""

    engine: str
    precision: str
    machine: dict[str, str]
    num_seqs: int
    context: int
    rows: list[GrammarTimes]


def run_grammar(config: GrammarConfig) -> int:
    """Load the engine, measure each sampling in pairs, report."""
    from engines.load import EngineOptions, load_llm_engine  # only now: it loads the runtime

    folder = choose_engine(find_engines(config.engine_dir), config.model)
    compiler = open_compiler(folder)
    options = EngineOptions(max_num_seqs=config.num_seqs, num_threads=config.threads)
    engine = load_llm_engine(folder, options)
    try:
        profiler = StepProfiler(engine)
        rows = [
            measure_pairs(profiler, config, schema, sampling, compiler)
            for schema in SCHEMAS
            for sampling in _SAMPLINGS
        ]
    finally:
        engine.close()
    report = GrammarReport(
        engine=folder.manifest.id,
        precision=folder.manifest.precision,
        machine=describe_machine("onnxruntime") | {"enginery": __version__},
        num_seqs=config.num_seqs,
        context=config.context,
        rows=rows,
    )
    if config.json is not None:
        write_json(report, config.json)
    if config.json != "-":
        Console().print(grammar_table(report))
    return 0


def open_compiler(folder: EngineFolder) -> GrammarCompiler:
    """The grammars of an engine's tokenizer.

    Raises:
        BenchmarkFailed: The engine has no tokenizer.
    """
    path, spec = folder.path / "tokenizer.json", require_chat(folder)
    if not path.is_file():
        raise BenchmarkFailed(f"{folder.path} holds no tokenizer.json, which grammars need")
    return GrammarCompiler(path.read_text, spec.num_tokens, spec.eos_token_ids)


def measure_pairs(
    profiler: StepProfiler,
    config: GrammarConfig,
    schema: str,
    sampling: str,
    compiler: GrammarCompiler,
) -> GrammarTimes:
    """The same sequences advance without and with constraints, by turns.

    A constraint knows the tokens of its own blocks alone, which is all the same to a model with
    random weights and to the time.

    Raises:
        BenchmarkFailed: As `StepProfiler.begin`.
    """
    num_steps = 2 * _BLOCK * config.pairs
    seqs = profiler.begin(config.num_seqs, config.context, num_steps, sampling)
    spec = GrammarSpec.json_schema(SCHEMAS[schema], "schema")
    pairs = _time_pairs(profiler, config.pairs, seqs, [compiler.new_state(spec) for _ in seqs])
    profiler.end()
    overheads = np.array([pair.constrained.step_ms / pair.free.step_ms - 1 for pair in pairs])
    lowest, highest = median_interval(overheads)
    free_ms = median(pair.free.step_ms for pair in pairs)
    sampling_ms = median(pair.constrained.sample_ms - pair.free.sample_ms for pair in pairs)
    masks_ms = fmean(pair.masks_ms for pair in pairs)
    return GrammarTimes(
        schema=schema,
        sampling=sampling,
        free_ms=free_ms,
        constrained_ms=median(pair.constrained.step_ms for pair in pairs),
        overhead=float(np.median(overheads)),
        lowest=lowest,
        highest=highest,
        sampling_ms=sampling_ms,
        masks_ms=masks_ms,
        own_share=(sampling_ms + masks_ms) / free_ms,
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """Means over the steps of two neighbouring blocks."""

    free: StepParts
    constrained: StepParts
    masks_ms: float


def _time_pairs(
    profiler: StepProfiler,
    num_pairs: int,
    seqs: Rows[Sequence],
    constraints: Rows[TokenConstraint],
) -> list[_Pair]:
    """Which of a pair comes first changes with each pair."""
    pairs = []
    for index in range(num_pairs):
        blocks: dict[bool, StepParts] = {}
        masks_ms = 0.0
        for is_constrained in (index % 2 == 1, index % 2 == 0):
            for seq, constraint in zip(seqs, constraints, strict=True):
                seq.constraint = constraint if is_constrained else None
            profiler.steps(1)
            before = _masks_cpu_ms()
            blocks[is_constrained] = _means(profiler.steps(_BLOCK - 1))
            if is_constrained:
                masks_ms = (_masks_cpu_ms() - before) / (_BLOCK - 1)
        pairs.append(_Pair(blocks[False], blocks[True], masks_ms))
    return pairs


def _means(steps: list[StepParts]) -> StepParts:
    return StepParts(*(fmean(values) for values in zip(*map(astuple, steps), strict=True)))


def _masks_cpu_ms() -> float:
    """What the threads that work out masks have used of a processor so far."""
    clocks = [
        time.pthread_getcpuclockid(thread.ident)
        for thread in threading.enumerate()
        if thread.name.startswith(THREAD_NAME) and thread.ident is not None
    ]
    return 1e3 * sum(map(time.clock_gettime, clocks))


def median_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Where the median lies in 95 % of the resamples."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (_RESAMPLES, len(values))), axis=1)
    lowest, highest = np.quantile(medians, (0.025, 0.975))
    return float(lowest), float(highest)


_COLUMNS = (
    "free step, ms",
    "with a grammar, ms",
    "overhead",
    "95 % interval",
    "in the step, ms",
    "beside it, CPU ms",
    "both of a step",
)


def grammar_table(report: GrammarReport) -> Table:
    """A line for each sampling."""
    table = Table(
        title=f"{report.engine} ({report.precision}), {report.num_seqs} sequences, "
        "medians over blocks of steps",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("schema")
    table.add_column("sampling")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for row in report.rows:
        table.add_row(
            row.schema,
            row.sampling,
            f"{row.free_ms:.2f}",
            f"{row.constrained_ms:.2f}",
            f"{row.overhead:+.1%}",
            f"{row.lowest:+.1%} to {row.highest:+.1%}",
            f"{row.sampling_ms:.2f}",
            f"{row.masks_ms:.2f}",
            f"{row.own_share:+.1%}",
        )
    return table
