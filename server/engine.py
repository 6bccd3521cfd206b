"""What the server needs of engines, so that tests can serve scripted ones."""

from __future__ import annotations

from typing import Protocol, TypeVar

from engines.image.output import ImageEngineStats, ImageOutput
from engines.image.request import ImageRequest
from engines.image.schedulers.schedule import NoiseSchedule
from engines.llm.output import EngineStats, StepOutput
from engines.llm.sequence import Sequence
from engines.manifest import ImageSpec
from engines.pooling.job import PoolingJob, PoolingOutput, PoolingStats

JobT_contra = TypeVar("JobT_contra", contravariant=True)
OutputT = TypeVar("OutputT")


class Engine(Protocol[JobT_contra, OutputT]):
    """Jobs in, their outputs out step by step. A job is a sequence or a picture to be made."""

    @property
    def device(self) -> str: ...

    @property
    def has_work(self) -> bool: ...

    def add(self, job: JobT_contra, /) -> None: ...
    def abort(self, job_id: int, /) -> None: ...
    def step(self) -> list[OutputT]: ...
    def close(self) -> None: ...


class ChatEngine(Engine[Sequence, StepOutput], Protocol):
    """Sequences in, tokens out; `engines.llm.engine.LLMEngine` is one."""

    @property
    def max_context(self) -> int: ...

    @property
    def max_num_seqs(self) -> int: ...

    @property
    def vocab_size(self) -> int: ...

    def stats(self) -> EngineStats: ...


class ImageEngine(Engine[ImageRequest, ImageOutput], Protocol):
    """Token ids and seeds in, pictures out; `engines.image.engine.ImageEngine` is one."""

    @property
    def spec(self) -> ImageSpec: ...

    @property
    def schedule(self) -> NoiseSchedule: ...

    @property
    def max_num_images(self) -> int: ...

    def stats(self) -> ImageEngineStats: ...


class PoolingEngine(Engine[PoolingJob, PoolingOutput], Protocol):
    """Token ids in, a row of numbers out; `engines.pooling.engine.PoolingEngine` is one."""

    @property
    def max_context(self) -> int: ...

    @property
    def max_num_rows(self) -> int: ...

    @property
    def num_tokens(self) -> int: ...

    def stats(self) -> PoolingStats: ...
