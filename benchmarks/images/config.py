"""What can be asked of `python -m benchmarks images` and `images-checkpoint`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from benchmarks.images.catalogue import (
    CONTESTANT_NAMES,
    Contestant,
    ContestantName,
    contestant,
)
from benchmarks.images.comparison import BEGIN_MARK, END_MARK
from benchmarks.images.workload import Workload
from benchmarks.markdown import insert_between
from engines.machine import usable_cores

_WHAT = Group("What to compare", sort_key=1)
_WHERE = Group("Where the contestants are", sort_key=2)
_LOAD = Group("Workload", sort_key=3)
_REPORT = Group("Report", sort_key=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesConfig:
    """Compare image engines with diffusers and OpenVINO on one checkpoint, in one run."""

    checkpoint: Annotated[
        Path, Parameter(help="a folder in diffusers' layout; see images-checkpoint", group=_WHAT)
    ]
    contestants: Annotated[
        tuple[ContestantName, ...],
        Parameter(help="who takes part", consume_multiple=True, negative="", group=_WHAT),
    ] = CONTESTANT_NAMES
    rounds: Annotated[int, Parameter(help="turns of all; medians count", group=_WHAT)] = 3
    once: Annotated[
        tuple[ContestantName, ...],
        Parameter(
            help="who is measured in the first round only, being slow",
            consume_multiple=True,
            negative="",
            group=_WHAT,
        ),
    ] = ()
    max_minutes: Annotated[
        float | None,
        Parameter(
            help="after the first round, begin nothing that would end later than this after the "
            "start of the measurements",
            group=_WHAT,
        ),
    ] = None
    exports: Annotated[
        bool,
        Parameter(
            help="export our engines again, though they are there", negative="", group=_WHERE
        ),
    ] = False
    work_dir: Annotated[Path, Parameter(help="where models are made and kept", group=_WHERE)] = (
        Path("build/images")
    )
    openvino_python: Annotated[
        Path | None, Parameter(help="a Python that has OpenVINO", group=_WHERE)
    ] = None
    threads: Annotated[
        int | None, Parameter(help="threads of each; default: the physical cores", group=_LOAD)
    ] = None
    sizes: Annotated[
        tuple[int, ...],
        Parameter(help="pixels a side", consume_multiple=True, negative="", group=_LOAD),
    ] = (256, 512)
    steps: Annotated[int, Parameter(help="timed at each size in a process", group=_LOAD)] = 2
    decodes: Annotated[int, Parameter(help="timed at each size in a process", group=_LOAD)] = 1
    cache_interval: Annotated[
        int, Parameter(help="of step caching: a full run every so many steps", group=_LOAD)
    ] = 3
    cached_steps: Annotated[int, Parameter(help="of a run with step caching", group=_LOAD)] = 20
    json: Annotated[Path | None, Parameter(help="write all figures here", group=_REPORT)] = None
    markdown: Annotated[Path | None, Parameter(help="write the report here", group=_REPORT)] = None
    update: Annotated[
        Path | None,
        Parameter(help="put the report between the marks of this document", group=_REPORT),
    ] = None

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}, but it must be at least 1")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise ValueError(f"max_minutes is {self.max_minutes}, but it must be above 0")
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
