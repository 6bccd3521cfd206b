"""Which requests the next run of the denoiser takes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from engines.image.denoising import Denoising

_GUIDED_ROWS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSchedulerConfig:
    """Limits of the engine.

    Attributes:
        max_num_images: Requests that are denoised at the same time; the others wait in order.
        max_rows: Rows of one run of the denoiser; a guided request takes two.
        max_batch_pixels: Pixels of all rows of a run that several requests share. Beyond some size
            rows cost the same together as apart, and only make each other wait. None: no limit.

    Raises:
        ValueError: A limit is too small for a single request.
    """

    max_num_images: int = 4
    max_rows: int = 8
    max_batch_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.max_num_images < 1:
            raise ValueError(f"max_num_images is {self.max_num_images}, but it must be at least 1")
        if self.max_rows < _GUIDED_ROWS:
            raise ValueError(
                f"max_rows is {self.max_rows}, but it must be at least {_GUIDED_ROWS}, the rows of "
                "a guided request"
            )
        if self.max_batch_pixels is not None and self.max_batch_pixels < 1:
            raise ValueError(
                f"max_batch_pixels is {self.max_batch_pixels}, but it must be at least 1"
            )


class ImageScheduler:
    """Owns the order of requests: `waiting` by arrival, `running` by how long since they ran."""

    def __init__(self, config: ImageSchedulerConfig) -> None:
        self.config = config
        self.waiting: deque[Denoising] = deque()
        self.running: list[Denoising] = []

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, denoising: Denoising) -> None:
        self.waiting.append(denoising)

    def remove(self, denoising: Denoising) -> None:
        """Take a request out wherever it is; its place is free for the next step."""
        if denoising in self.running:
            self.running.remove(denoising)
        elif denoising in self.waiting:
            self.waiting.remove(denoising)

    def schedule(self) -> list[Denoising]:
        """Choose the requests of the next run; empty where there is nothing to do.

        The one that has not run for longest goes, and with it all of its group that fit. So groups
        take turns, and so do the parts of a group that is too large for a run.
        """
        while self.waiting and len(self.running) < self.config.max_num_images:
            self.running.append(self.waiting.popleft())
        batch: list[Denoising] = self.running[:1]
        for denoising in self.running[1:]:
            if denoising.group == batch[0].group and self._fit([*batch, denoising]):
                batch.append(denoising)
        return batch

    def _fit(self, batch: list[Denoising]) -> bool:
        num_rows = sum(denoising.num_rows for denoising in batch)
        num_pixels = num_rows * batch[0].num_pixels
        most = self.config.max_batch_pixels
        return num_rows <= self.config.max_rows and (most is None or num_pixels <= most)

    def update(self, batch: list[Denoising]) -> None:
        """Move those that ran behind those that did not; those that are finished leave."""
        ran = set(map(id, batch))
        rested = [denoising for denoising in self.running if id(denoising) not in ran]
        self.running = rested + [denoising for denoising in batch if not denoising.is_finished]
