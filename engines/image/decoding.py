"""Which latents the decoder takes next: pictures first, then previews that are still news."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from engines.image.denoising import Denoising
from engines.image.runner import FloatArray


@dataclass(frozen=True, slots=True)
class Decode:
    """Latents that wait for the decoder."""

    denoising: Denoising
    latents: FloatArray  # [latent_channels, h, w]
    step: int
    is_preview: bool


class DecodeQueue:
    """Holds the latents of pictures, and at most one preview of each request.

    A decoding takes longer than a step. So a preview never makes a picture wait, and one that
    was overtaken, by a newer one or by its picture, is not decoded at all.
    """

    def __init__(self) -> None:
        self._pictures: deque[Decode] = deque()
        self._previews: dict[int, Decode] = {}  # by image id, the longest waiting first

    def __len__(self) -> int:
        return len(self._pictures) + len(self._previews)

    @property
    def num_pictures(self) -> int:
        return len(self._pictures)

    def add(self, decode: Decode) -> None:
        """Queue latents; a newer preview takes the place of the one that it overtakes."""
        image_id = decode.denoising.image_id
        if decode.is_preview:
            self._previews[image_id] = decode
        else:
            self._previews.pop(image_id, None)
            self._pictures.append(decode)

    def pop(self) -> Decode | None:
        """Take out what is to be decoded next; None where nothing waits."""
        if self._pictures:
            return self._pictures.popleft()
        oldest = next(iter(self._previews), None)
        return None if oldest is None else self._previews.pop(oldest)

    def remove(self, denoising: Denoising) -> None:
        """Forget everything of a request."""
        self._previews.pop(denoising.image_id, None)
        self._pictures = deque(kept for kept in self._pictures if kept.denoising is not denoising)

    def clear(self) -> None:
        self._pictures.clear()
        self._previews.clear()
