"""What a step of the image engine hands to the caller."""

from __future__ import annotations

from dataclasses import dataclass

from engines.image.request import Picture


@dataclass(frozen=True, slots=True)
class ImageOutput:
    """News of one request: a step was taken, or a picture was decoded.

    Pictures are decoded one at a time after a step, so that the one of the last step may come later
    than the news of that step. A request ends with its `picture`. A preview that is overtaken, by a
    newer one or by the picture, before the decoder has time for it is left out.
    """

    image_id: int
    step: int  # steps taken, of which a preview or picture shows the last
    num_steps: int
    preview: Picture | None = None  # [height, width, 3]
    picture: Picture | None = None  # [height, width, 3]

    @property
    def is_finished(self) -> bool:
        return self.picture is not None


@dataclass(frozen=True, slots=True)
class ImageEngineStats:
    """Counters since the engine started, and gauges of this moment."""

    num_waiting: int
    num_running: int
    num_decoding: int  # pictures and previews whose latents wait for the decoder
    num_steps: int  # runs of the denoiser
    num_rows: int  # rows of all runs; a guided request has two
    num_images: int  # pictures that were finished
    num_shallow_steps: int = 0  # those of `num_steps` that reused deep features
