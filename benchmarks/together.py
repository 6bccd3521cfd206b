"""`python -m benchmarks together`: engines that compute at once beside the same engines alone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec
import numpy as np
from cyclopts import Group, Parameter
from rich.console import Console

from benchmarks.errors import BenchmarkFailed
from benchmarks.machine import OthersMeter, describe_machine
from benchmarks.options import STDOUT, JsonTarget, check_above_zero, check_at_least_one
from benchmarks.report import FigureTable, write_json
from engines import __version__
from engines.store import EngineFolder, find_engines

_ENGINES = Group("Engines", sort_key=1)
_LOAD = Group("Workload", sort_key=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class TogetherConfig:
    """Measure how several engines of one process share its cores, in turns with each alone."""

    engine: Annotated[
        tuple[Path, ...],
        Parameter(help="engines, or folders of them; one may be named twice", negative="",
                  group=_ENGINES),
    ]  # fmt: skip
    threads: Annotated[
        int | None, Parameter(help="of each; default: the server's choice", group=_ENGINES)
    ] = None
    share_threads: Annotated[
        bool,
        Parameter(help="one pool for all, as in the server; else each has its own", group=_ENGINES),
    ] = True
    streams: Annotated[int, Parameter(help="of each language model", group=_LOAD)] = 8
    context: Annotated[int, Parameter(help="tokens of each stream", group=_LOAD)] = 128
    size: Annotated[int, Parameter(help="pixels a side of each picture", group=_LOAD)] = 128
    seconds: Annotated[float, Parameter(help="of each measurement", group=_LOAD)] = 5.0
    rounds: Annotated[int, Parameter(help="turns of all; medians count", group=_LOAD)] = 3
    json: JsonTarget = None

    def __post_init__(self) -> None:
        check_at_least_one(self, ("threads", "streams", "context", "size", "rounds"))
        check_above_zero(self, ("seconds",))


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How one engine stepped: decode steps of all streams, or denoising steps."""

    steps_per_s: float
    longest_ms: float


class TogetherReport(msgspec.Struct, frozen=True, kw_only=True):
    """Of each engine, by round: alone, and while all computed."""

    machine: dict[str, str]
    engines: list[str]
    alone: list[list[Pace]]
    together: list[list[Pace]]
    others_share: float | None


def run_together(config: TogetherConfig) -> int:
    """Load all, then measure each alone and all at once, in turns."""
    folders = [folder for path in config.engine for folder in find_engines(path)]
    if len(folders) < 2:
        raise BenchmarkFailed(f"{len(folders)} engine was named, but it takes two at least")
    if config.share_threads:
        from engines.load import share_threads  # only now: it loads the runtime

        share_threads(folders, config.threads)
    steppers = [_stepper(folder, config) for folder in folders]
    alone: list[list[Pace]] = [[] for _ in folders]
    together: list[list[Pace]] = [[] for _ in folders]
    others = OthersMeter()
    for _ in range(config.rounds):
        for index, stepper in enumerate(steppers):
            alone[index] += paces([stepper], config.seconds)
        for index, pace in enumerate(paces(steppers, config.seconds)):
            together[index].append(pace)
    report = TogetherReport(
        machine=describe_machine("onnxruntime") | {"enginery": __version__},
        engines=[folder.manifest.id for folder in folders],
        alone=alone,
        together=together,
        others_share=others.share(),
    )
    if config.json is not None:
        write_json(report, config.json)
    if config.json != STDOUT:
        Console().print(table(report).to_rich())
    return 0


def paces(steppers: Sequence[Callable[[], object]], seconds: float) -> list[Pace]:
    """Let each stepper step in a thread of its own for so long."""
    found: dict[int, Pace] = {}
    ready = threading.Barrier(len(steppers))

    def work(index: int) -> None:
        try:
            steppers[index]()  # warm-up
        except BaseException:
            ready.abort()  # or the others would wait for ever
            raise
        with contextlib.suppress(threading.BrokenBarrierError):
            ready.wait()
            found[index] = _pace(steppers[index], seconds)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(steppers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(found) < len(steppers):
        raise BenchmarkFailed("an engine has failed; its error stands above")
    return [found[index] for index in range(len(steppers))]


def _pace(step: Callable[[], object], seconds: float) -> Pace:
    start = last = time.perf_counter()
    count, longest = 0, 0.0
    while last - start < seconds:
        step()
        now = time.perf_counter()
        count, longest, last = count + 1, max(longest, now - last), now
    return Pace(steps_per_s=count / (last - start), longest_ms=1e3 * longest)


def table(report: TogetherReport) -> FigureTable:
    """A line an engine; the shares of engines that lose nothing to each other add up to 1."""
    rows, total = [], 0.0
    for name, alone, together in zip(report.engines, report.alone, report.together, strict=True):
        speeds = [median(pace.steps_per_s for pace in rounds) for rounds in (alone, together)]
        longest = [median(pace.longest_ms for pace in rounds) for rounds in (alone, together)]
        share = speeds[1] / speeds[0]
        total += share
        figures = [f"{value:,.1f}" for value in (*speeds, *longest)]
        rows.append([name, *figures[:2], f"{share:.2f}", *figures[2:]])
    rows.append(["all", "", "", f"{total:.2f}", "", ""])
    head = ["engine", "steps/s alone", "together", "share", "longest step alone, ms", "together"]
    return FigureTable("Engines that compute at once", head, rows)


def _stepper(folder: EngineFolder, config: TogetherConfig) -> Callable[[], object]:
    kind = folder.manifest.kind
    if kind == "chat":
        return _decoding(folder, config)
    if kind == "image":
        return _drawing(folder, config)
    raise BenchmarkFailed(f"{folder.path} is of kind {kind}, but only chat and image are measured")


def _decoding(folder: EngineFolder, config: TogetherConfig) -> Callable[[], object]:
    """Steps of `streams` sequences; those that fill the context are begun anew."""
    from engines.llm.sampling_params import SamplingParams
    from engines.llm.sequence import Sequence as Tokens
    from engines.load import EngineOptions, load_llm_engine  # only now: it loads the runtime

    options = EngineOptions(max_num_seqs=config.streams, num_threads=config.threads)
    engine = load_llm_engine(folder, options)
    rng, ids = np.random.default_rng(0), iter(range(10**9))

    def step() -> object:
        for _ in range(config.streams - engine.stats().num_running):
            prompt = rng.integers(engine.vocab_size, size=config.context).tolist()
            room = engine.max_context - config.context
            params = SamplingParams(max_tokens=room, temperature=0, ignore_eos=True)
            engine.add(Tokens.from_prompt(next(ids), prompt, params))
            while engine.stats().num_waiting or engine.scheduler.prefilling:
                engine.step()
        return engine.step()

    return step


def _drawing(folder: EngineFolder, config: TogetherConfig) -> Callable[[], object]:
    """Guided steps of one picture after another."""
    from engines.image.request import MAX_INFERENCE_STEPS, ImageRequest
    from engines.load_image import ImageEngineOptions, load_image_engine

    engine = load_image_engine(folder, ImageEngineOptions(num_threads=config.threads))
    ids = iter(range(10**9))
    prompt = tuple((1,) * encoder.max_length for encoder in engine.spec.text_encoders)

    def step() -> object:
        if not engine.has_work:
            engine.add(
                ImageRequest(
                    image_id=next(ids),
                    prompt_token_ids=prompt,
                    height=config.size,
                    width=config.size,
                    num_inference_steps=MAX_INFERENCE_STEPS,
                    guidance_scale=7.5,
                    seed=0,
                    scheduler="ddim",  # one run of the model a step
                )
            )
        return engine.step()

    return step
