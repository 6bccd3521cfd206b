"""What can be asked of `python -m benchmarks images` and `images-checkpoint`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from benchmarks.images.catalogue import (
    CONTESTANT_NAMES,
    Contestant,
    ContestantName,
    contestant,
)
from benchmarks.images.comparison import BEGIN_MARK, END_MARK
from benchmarks.images.workload import Workload
from benchmarks.markdown import insert_between
from benchmarks.options import (
    LOAD,
    WHAT,
    WHERE,
    EachThreads,
    ExportAgain,
    FiguresTarget,
    MarkdownTarget,
    Rounds,
    UpdateTarget,
    check_above_zero,
    check_at_least_one,
    numbers,
    several,
)
from engines.machine import usable_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesConfig:
    """Compare image engines with diffusers and OpenVINO on one checkpoint, in one run."""

    checkpoint: Annotated[
        Path, Parameter(help="a folder in diffusers' layout; see images-checkpoint", group=WHAT)
    ]
    contestants: Annotated[
        tuple[ContestantName, ...],
        several("who takes part", WHAT),
    ] = CONTESTANT_NAMES
    rounds: Rounds = 3
    once: Annotated[
        tuple[ContestantName, ...],
        several("who is measured in the first round only, being slow", WHAT),
    ] = ()
    max_minutes: Annotated[
        float | None,
        Parameter(
            help="after the first round, begin nothing that would end later than this after the "
            "start of the measurements",
            group=WHAT,
        ),
    ] = None
    exports: ExportAgain = False
    work_dir: Annotated[Path, Parameter(help="where models are made and kept", group=WHERE)] = Path(
        "build/images"
    )
    openvino_python: Annotated[
        Path | None, Parameter(help="a Python that has OpenVINO", group=WHERE)
    ] = None
    threads: EachThreads = None
    sizes: Annotated[tuple[int, ...], numbers("pixels a side", LOAD)] = (256, 512)
    steps: Annotated[int, Parameter(help="timed at each size in a process", group=LOAD)] = 2
    decodes: Annotated[int, Parameter(help="timed at each size in a process", group=LOAD)] = 1
    cache_interval: Annotated[
        int, Parameter(help="of step caching: a full run every so many steps", group=LOAD)
    ] = 3
    cached_steps: Annotated[int, Parameter(help="of a run with step caching", group=LOAD)] = 20
    json: FiguresTarget = None
    markdown: MarkdownTarget = None
    update: UpdateTarget = None

    def __post_init__(self) -> None:
        check_at_least_one(self, ("rounds", "threads"))
        check_above_zero(self, ("max_minutes",))
        if not self.contestants:
            raise ValueError("contestants must name at least one")
        if not (self.checkpoint / "model_index.json").exists():
            raise ValueError(
                f"{self.checkpoint} is no checkpoint of a pipeline: it holds no model_index.json"
            )
        self.workload()
        if self.update is not None:
            document = self.update.read_text(encoding="utf-8")
            insert_between(document, "", BEGIN_MARK, END_MARK)

    def workload(self) -> Workload:
        return Workload(
            sizes=tuple(sorted(self.sizes)),
            steps=self.steps,
            decodes=self.decodes,
            cache_interval=self.cache_interval,
            cached_steps=self.cached_steps,
            num_threads=self.threads or usable_cores(),
        )

    def candidates(self) -> dict[ContestantName, Contestant]:
        """Those that were asked for, in the order of a round."""
        return {name: contestant(name, self.openvino_python) for name in self.contestants}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """Make a checkpoint of Stable Diffusion 1.5's published shape with random weights."""

    output: Annotated[Path, Parameter(help="the new folder, which gets 2.1 GB")]
    seed: Annotated[int, Parameter(help="of the weights")] = 0
