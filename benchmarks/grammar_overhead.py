"""`python -m benchmarks grammar`: what a grammar adds to a decode step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.engine import choose_engine
from benchmarks.errors import BenchmarkFailed
from benchmarks.machine import describe_machine
from benchmarks.options import JsonTarget, check_at_least_one, check_json_target
from benchmarks.report import write_json
from benchmarks.step_profile import SAMPLINGS, StepProfiler
from engines import __version__
from engines.load import require_chat
from engines.store import EngineFolder, find_engines
from server.text.grammar import GrammarCompiler, GrammarSpec

# Never ends by itself. Within strings nearly all of the vocabulary is allowed, between them a few
# tokens, and in words one: the two costs of masks, to apply them and to work them out, both show.
SCHEMA = {
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
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GrammarConfig:
    """Measure decode steps of sequences with and without a JSON schema, in turns."""

    engine_dir: Annotated[Path, Parameter(help="an engine or a folder of engines")]
    model: Annotated[
        str | None, Parameter(help="the engine's id, when the folder holds several")
    ] = None
    threads: Annotated[
        int | None, Parameter(help="of the runtime; default: the server's choice")
    ] = None
    num_seqs: Annotated[int, Parameter(help="sequences at once")] = 8
    context: Annotated[int, Parameter(help="tokens of a sequence at first")] = 128
    steps: Annotated[int, Parameter(help="timed steps of each measurement")] = 48
    rounds: Annotated[int, Parameter(help="pairs of measurements of each sampling")] = 5
    json: JsonTarget = None

    def __post_init__(self) -> None:
        check_json_target(self.json)
        check_at_least_one(self, ("num_seqs", "context", "steps", "rounds", "threads"))


class GrammarTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the rounds, in milliseconds; `overheads` has that of each pair."""

    sampling: str
    free_ms: float
    constrained_ms: float
    overhead: float  # the median of `overheads`
    overheads: list[float]  # constrained / free - 1


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
    compiler, spec = open_compiler(folder), GrammarSpec.json_schema(SCHEMA, "schema")
    compiler.compile(spec)
    options = EngineOptions(max_num_seqs=config.num_seqs, num_threads=config.threads)
    engine = load_llm_engine(folder, options)
    try:
        profiler = StepProfiler(engine)
        rows = [measure_pairs(profiler, config, sampling, compiler, spec) for sampling in SAMPLINGS]
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
    sampling: str,
    compiler: GrammarCompiler,
    spec: GrammarSpec,
) -> GrammarTimes:
    """Steps without and with the grammar, by turns; which comes first changes with each pair."""
    free: list[float] = []
    constrained: list[float] = []
    for index in range(config.rounds):
        for has_grammar in (index % 2 == 1, index % 2 == 0):
            times = profiler.measure(
                config.num_seqs,
                config.context,
                config.steps,
                sampling,
                (lambda: compiler.new_state(spec)) if has_grammar else None,
            )
            (constrained if has_grammar else free).append(times.step_ms)
    overheads = [with_it / without - 1 for with_it, without in zip(constrained, free, strict=True)]
    return GrammarTimes(
        sampling=sampling,
        free_ms=median(free),
        constrained_ms=median(constrained),
        overhead=median(overheads),
        overheads=overheads,
    )


def grammar_table(report: GrammarReport) -> Table:
    """A line for each sampling."""
    table = Table(
        title=f"{report.engine} ({report.precision}), {report.num_seqs} sequences, "
        "medians over pairs of measurements",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("sampling")
    for name in ("free step, ms", "with a grammar, ms", "overhead", "lowest to highest"):
        table.add_column(name, justify="right")
    for row in report.rows:
        table.add_row(
            row.sampling,
            f"{row.free_ms:.2f}",
            f"{row.constrained_ms:.2f}",
            f"{row.overhead:+.1%}",
            f"{min(row.overheads):+.1%} to {max(row.overheads):+.1%}",
        )
    return table
