"""`python -m benchmarks drafts`: what drafts gain where answers repeat prompts, and elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Annotated

import msgspec
from cyclopts import Group, Parameter
from rich.console import Console

from benchmarks.engine import choose_engine
from benchmarks.errors import BenchmarkFailed
from benchmarks.machine import OthersMeter, describe_machine
from benchmarks.markdown import with_spread
from benchmarks.options import (
    STDOUT,
    EngineId,
    EngineTarget,
    JsonTarget,
    RuntimeThreads,
    check_at_least_one,
    check_json_target,
)
from benchmarks.report import FigureTable, write_json
from engines import __version__
from engines.llm.engine import LLMEngine
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from engines.store import find_engines
from server.text.processor import TextProcessor

_LOAD = Group("Workload", sort_key=2)

FREE = "free"
# Asked of any chat model; what the demo learned.
TEXTS: dict[str, tuple[str, ...]] = {
    "copy-heavy": (
        "Put lamp, bike, door, window, kite, bridge, forest and lake into a JSON list.",
        'Repeat the words "the green lamp stands behind the old bridge and the brown window"',
        "Felix is 83 years old and lives in Oslo. Give me name, age, city as JSON.",
        "Put blue, green, yellow, brown, orange and white into a JSON list.",
        'Repeat the words "Anna saw a red kite in the water and waited until it came back"',
    ),
    FREE: (
        "Tell me a story.",
        "Tell me a story about a duck.",
        "Tell me a story about a bear named Felix.",
        "I would like a story about a pig.",
        "What is Enginery?",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftsConfig:
    """Measure one stream with drafts and without, in turns: answers that copy, and free text."""

    engine: EngineTarget
    model: EngineId = None
    threads: RuntimeThreads = None
    max_draft_tokens: Annotated[int, Parameter(help="of a draft", group=_LOAD)] = 8
    answer_tokens: Annotated[
        int, Parameter(help="of an answer; one that copies may end before", group=_LOAD)
    ] = 128
    rounds: Annotated[int, Parameter(help="turns of both; medians count", group=_LOAD)] = 5
    json: JsonTarget = None

    def __post_init__(self) -> None:
        check_json_target(self.json)
        check_at_least_one(self, ("threads", "max_draft_tokens", "answer_tokens", "rounds"))


class TextFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one kind of text, by round: tokens a second behind the first of each answer."""

    text: str
    without: list[float]
    with_drafts: list[float]
    drafted_tokens: int
    accepted_tokens: int

    @property
    def gains(self) -> list[float]:
        pairs = zip(self.with_drafts, self.without, strict=True)
        return [drafted / plain for drafted, plain in pairs]


class DraftsReport(msgspec.Struct, frozen=True, kw_only=True):
    engine: str
    machine: dict[str, str]
    max_draft_tokens: int
    texts: list[TextFigures]
    others_share: float | None


def run_drafts(config: DraftsConfig) -> int:
    """Load the engine twice, with drafts and without; measure, report."""
    from engines.load import EngineOptions, load_llm_engine  # only now: it loads the runtime

    folder = choose_engine(find_engines(config.engine), config.model)
    text = TextProcessor.load(folder.path)
    engines = [
        load_llm_engine(
            folder,
            EngineOptions(max_num_seqs=1, num_threads=config.threads, max_draft_tokens=tokens),
        )
        for tokens in (0, config.max_draft_tokens)
    ]
    others = OthersMeter()
    try:
        texts = [_measure(config, name, text, engines) for name in TEXTS]
    finally:
        for engine in engines:
            engine.close()
    report = DraftsReport(
        engine=folder.manifest.id,
        machine=describe_machine("onnxruntime") | {"enginery": __version__},
        max_draft_tokens=config.max_draft_tokens,
        texts=texts,
        others_share=others.share(),
    )
    if config.json is not None:
        write_json(report, config.json)
    if config.json != STDOUT:
        Console().print(table(report).to_rich())
    return 0


def table(report: DraftsReport) -> FigureTable:
    """A line a kind of text."""
    rows = []
    for figures in report.texts:
        accepted = figures.accepted_tokens / max(figures.drafted_tokens, 1)
        rows.append(
            [
                figures.text,
                f"{median(figures.without):,.0f}",
                f"{median(figures.with_drafts):,.0f}",
                with_spread(figures.gains, 2),
                f"{figures.drafted_tokens:,}",
                f"{accepted:.0%}",
            ]
        )
    title = f"{report.engine}: one stream, drafts of at most {report.max_draft_tokens} tokens"
    head = ["text", "tokens/s without", "with", "gain", "drafted tokens", "of them right"]
    return FigureTable(title, head, rows)


def _measure(
    config: DraftsConfig, name: str, text: TextProcessor, engines: list[LLMEngine]
) -> TextFigures:
    prompts = [text.encode_chat([{"role": "user", "content": content}]) for content in TEXTS[name]]
    # Free text is drawn, and goes on behind its end, where much is said again in other words.
    is_free = name == FREE
    params = SamplingParams(
        max_tokens=config.answer_tokens, temperature=float(is_free), ignore_eos=is_free, seed=0
    )
    before = engines[1].stats()
    speeds: list[list[float]] = [[], []]
    for number in range(config.rounds + 1):
        for engine, its_speeds in zip(engines, speeds, strict=True):
            speed = tokens_per_s(engine, prompts, params)
            if number:  # the first round warms up
                its_speeds.append(speed)
    after = engines[1].stats()
    return TextFigures(
        text=name,
        without=speeds[0],
        with_drafts=speeds[1],
        drafted_tokens=after.draft_tokens - before.draft_tokens,
        accepted_tokens=after.accepted_draft_tokens - before.accepted_draft_tokens,
    )


def tokens_per_s(engine: LLMEngine, prompts: list[list[int]], params: SamplingParams) -> float:
    """Answers one after the other: their tokens, but for the first, by their time."""
    count, elapsed = 0, 0.0
    for seq_id, prompt in enumerate(prompts):
        engine.add(Sequence.from_prompt(seq_id, prompt, params))
        while not engine.step():
            pass
        start = time.perf_counter()
        while engine.has_work:
            count += len(engine.step())
        elapsed += time.perf_counter() - start
    if not count:
        raise BenchmarkFailed("every answer ended with its first token")
    return count / elapsed
