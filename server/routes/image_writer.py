"""Pictures as OpenAI objects: whole, or as the events of a stream."""

from __future__ import annotations

import time
from typing import Literal

from server.errors import ApiError
from server.images.generation import ImageDelta, ImageGeneration
from server.images.plan import ImagePlan
from server.routes.answering import event
from server.schema.images import (
    ImageCompletedEvent,
    ImageObject,
    ImagePartialEvent,
    ImagesResponse,
)

EventKind = Literal["image_generation", "image_edit"]


class ImageWriter:
    """Writes one answer; in a stream partial and finished pictures, and steps as comments.

    Args:
        plan: Of the request.
        kind: What the events are called.
        has_source: Whether the request sent a picture.
        by_url: Whether the contents of deltas are URLs, else base64.
    """

    def __init__(self, plan: ImagePlan, kind: EventKind, *, has_source: bool, by_url: bool) -> None:
        self._plan = plan
        self._kind: EventKind = kind
        self._by_url = by_url
        self._usage = plan.usage(1, has_source=has_source)

    def open(self) -> bytes:
        return b""

    def write(self, deltas: list[ImageDelta]) -> bytes:
        return b"".join(map(self._write, deltas))

    def close(self, generation: ImageGeneration) -> bytes:
        """Nothing: the last picture is the end, as OpenAI has it."""
        return b""

    def fail(self, error: ApiError) -> bytes:
        return event(error.response(), "error")

    def whole(self, generation: ImageGeneration, deltas: list[ImageDelta]) -> ImagesResponse:
        plan = self._plan
        finished = sorted(
            (delta.index, delta.content)
            for delta in deltas
            if delta.content is not None and delta.partial_index is None
        )
        return ImagesResponse(
            created=int(time.time()),
            data=[self._object(content) for _, content in finished],
            output_format=plan.output.format,
            quality=plan.quality,
            size=str(plan.size),
            usage=generation.usage,
        )

    def _object(self, content: str) -> ImageObject:
        if self._by_url:
            return ImageObject(url=content, revised_prompt=None)
        return ImageObject(b64_json=content, revised_prompt=None)

    def _write(self, delta: ImageDelta) -> bytes:
        if delta.content is None:
            # A comment: clients pass over it, and people see the progress.
            return b": picture %d, step %d of %d\n\n" % (delta.index, delta.step, delta.num_steps)
        if delta.partial_index is None:
            return self._completed(delta.content, delta.index)
        return self._partial(delta.content, delta.index, delta.partial_index)

    def _partial(self, content: str, index: int, partial_index: int) -> bytes:
        partial = ImagePartialEvent(
            type=f"{self._kind}.partial_image",  # type: ignore[arg-type]
            b64_json=content,
            partial_image_index=partial_index,
            created_at=int(time.time()),
            size=str(self._plan.size),
            quality=self._plan.quality,
            output_format=self._plan.output.format,
            index=index,
        )
        return event(partial, partial.type)

    def _completed(self, content: str, index: int) -> bytes:
        completed = ImageCompletedEvent(
            type=f"{self._kind}.completed",  # type: ignore[arg-type]
            b64_json=content,
            created_at=int(time.time()),
            size=str(self._plan.size),
            quality=self._plan.quality,
            output_format=self._plan.output.format,
            index=index,
            usage=self._usage,
        )
        return event(completed, completed.type)
