"""One request on its way through an image worker: requests in, files of pictures out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engines.image.output import ImageOutput
from engines.image.request import Picture
from server.images.encoding import encode_picture
from server.images.plan import ImagePlan, Source
from server.images.threads import PictureThreads
from server.in_flight import InFlight
from server.observe import RequestRecord
from server.schema.images import ImageUsage


@dataclass(frozen=True, slots=True)
class ImageDelta:
    """News of one picture: its progress, and what it looks like if there is something to see."""

    index: int  # of the picture
    step: int
    num_steps: int
    content: str | None = None  # as `deliver` gave it
    partial_index: int | None = None  # None: the picture is finished


class ImageGeneration(InFlight[ImageOutput, ImageDelta]):
    """The pictures of one request; the news are their steps, previews and files.

    Args:
        plan: What is to be drawn.
        source: A picture to start from, or None.
        threads: Where pictures are encoded.
        deliver: Makes of a file what the answer holds: base64 or a URL. Called in these threads.
        record: Of the request.

    Raises:
        InvalidRequest: `source` leaves no step to take.
        QueueFull: As many pictures wait as the worker's queue holds.
        ServerUnavailable: The worker takes no requests.
    """

    def __init__(
        self,
        plan: ImagePlan,
        source: Source | None,
        threads: PictureThreads,
        deliver: Callable[[bytes], str],
        record: RequestRecord,
    ) -> None:
        self.plan = plan
        self.has_source = source is not None
        self._source = source
        self._threads = threads
        self._deliver = deliver
        requests = plan.requests(source)
        self._indices = {request.image_id: index for index, request in enumerate(requests)}
        self._seeds = [request.seed for request in requests]
        self._num_partial = [0] * len(requests)
        self._num_finished = 0
        super().__init__(plan.model.worker.run(requests), record)
        record.admitted_images(plan.num_text_tokens, len(requests))

    @property
    def usage(self) -> ImageUsage:
        return self.plan.usage(self.plan.num_images, has_source=self.has_source)

    @property
    def is_complete(self) -> bool:
        return self._num_finished == self.plan.num_images

    @property
    def finish_reason(self) -> str:
        return "stop" if self.is_complete else "abort"

    async def __anext__(self) -> list[ImageDelta] | None:
        outputs = await self._stream.__anext__()
        if outputs is None:
            return None
        self._note_start()
        return [await self._take(output) for output in outputs]

    async def _take(self, output: ImageOutput) -> ImageDelta:
        index = self._indices[output.image_id]
        if output.picture is not None:
            content = await self._encode(output.picture, index, is_finished=True)
            self._num_finished += 1
            self._record.picture()
            return ImageDelta(index, output.step, output.num_steps, content)
        if output.preview is not None:
            content = await self._encode(output.preview, index, is_finished=False)
            partial_index = self._num_partial[index]
            self._num_partial[index] += 1
            return ImageDelta(index, output.step, output.num_steps, content, partial_index)
        self._record.step(index, output.step, output.num_steps)
        return ImageDelta(index, output.step, output.num_steps)

    async def _encode(self, picture: Picture, index: int, *, is_finished: bool) -> str:
        texts: dict[str, str] = {}
        if is_finished:  # a preview cannot be made again by its seed
            texts = {"seed": str(self._seeds[index]), **self.plan.texts}
            if self._source is not None:
                texts |= self._source.texts
        return await self._threads.run(self._finish, picture, texts)

    def _finish(self, picture: Picture, texts: dict[str, str]) -> str:
        return self._deliver(encode_picture(picture, self.plan.output, texts))
