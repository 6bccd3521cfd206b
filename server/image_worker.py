"""The worker of an image model: a job is one picture."""

from __future__ import annotations

from engines.image.denoising import Denoising
from engines.image.output import ImageEngineStats, ImageOutput
from engines.image.request import ImageRequest, check_request
from engines.manifest import ImageSpec
from server.engine import ImageEngine
from server.worker import EngineWorker


class ImageWorker(EngineWorker[ImageEngine, ImageRequest, ImageOutput]):
    """Runs an image model; `max_queue_size` counts the pictures that wait to be begun."""

    _JOBS = "pictures"
    _ARE_RUN = "are being drawn"

    def __init__(
        self,
        engine: ImageEngine,
        *,
        name: str,
        max_queue_size: int = 64,
        request_timeout_s: float | None = None,
    ) -> None:
        super().__init__(
            engine,
            engine.max_num_images,
            name=name,
            max_queue_size=max_queue_size,
            request_timeout_s=request_timeout_s,
        )
        self._steps_left: dict[int, int] = {}  # by the id of each picture that was begun

    @property
    def spec(self) -> ImageSpec:
        """What the model is and what it can draw."""
        return self._engine.spec

    @property
    def scheduler(self) -> str:
        """The scheduler of requests that name none."""
        return self._engine.schedule.scheduler

    @property
    def num_steps_left(self) -> int:
        """Denoising steps that the pictures being drawn still need."""
        return sum(self._steps_left.values())

    def stats(self) -> ImageEngineStats:
        return self._engine.stats()

    def count_steps(self, request: ImageRequest) -> int:
        """Hold a request against the model before it is queued: how many steps it takes.

        Raises:
            InvalidRequest: A field is beyond what the model can do.
        """
        check_request(request, self._engine.spec)
        return Denoising(request, self._engine.spec, self._engine.schedule).num_steps

    @staticmethod
    def job_id(job: ImageRequest) -> int:
        return job.image_id

    @staticmethod
    def output_id(output: ImageOutput) -> int:
        return output.image_id

    @staticmethod
    def is_last(output: ImageOutput) -> bool:
        return output.is_finished

    def _deliver(self, outputs: list[ImageOutput], step_start: float) -> None:
        for output in outputs:
            if output.image_id in self._streams:
                self._steps_left[output.image_id] = output.num_steps - output.step
        super()._deliver(outputs, step_start)

    def _forget(self, job_ids: tuple[int, ...]) -> None:
        for job_id in job_ids:
            self._steps_left.pop(job_id, None)
        super()._forget(job_ids)
