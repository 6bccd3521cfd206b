"""The size of a picture: what a request says, and what a model can draw."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from engines.errors import InvalidRequest
from engines.manifest import ImageSpec

_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Size:
    """Pixels; written `WIDTHxHEIGHT`."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def choose_size(given: str | None, spec: ImageSpec, source: Size | None = None) -> Size:
    """The size that a request means; `auto` is the engine's own, or near that of `source`.

    Raises:
        InvalidRequest: It is not a size, or one that the model cannot draw.
    """
    if given is None or given == "auto":
        if source is None:
            return Size(spec.default_width, spec.default_height)
        return nearest_size(source, spec)
    match = _SIZE.fullmatch(given)
    if match is None:
        raise _refusal(given, "it must be auto or WIDTHxHEIGHT, such as 512x512")
    size = Size(int(match[1]), int(match[2]))
    if size.width % spec.size_multiple or size.height % spec.size_multiple:
        raise _refusal(given, f"width and height must be multiples of {spec.size_multiple}")
    if size.width * size.height > spec.max_pixels:
        raise _refusal(given, f"a picture may have at most {spec.max_pixels} pixels")
    if max(size.width, size.height) > max_side(spec):
        raise _refusal(given, f"a side may have at most {max_side(spec)} pixels")
    return size


def nearest_size(source: Size, spec: ImageSpec) -> Size:
    """The size that the model can draw which is nearest to that of a picture."""
    multiple, limit = spec.size_multiple, max_side(spec)
    scale = min(
        1.0,
        math.sqrt(spec.max_pixels / (source.width * source.height)),
        limit / max(source.width, source.height),
    )

    def fit(side: int) -> int:
        nearest = round(side * scale / multiple) * multiple
        return min(max(nearest, multiple), limit // multiple * multiple)

    def distortion(size: Size) -> float:
        return abs(math.log(size.width / size.height * source.height / source.width))

    size = Size(fit(source.width), fit(source.height))
    while size.width * size.height > spec.max_pixels:  # a side was rounded up
        narrower = Size(max(size.width - multiple, multiple), size.height)
        lower = Size(size.width, max(size.height - multiple, multiple))
        size = min((side for side in (narrower, lower) if side != size), key=distortion)
    return size


def max_side(spec: ImageSpec) -> int:
    """Pixels; without a limit of its own a side is as long as the smallest other one allows."""
    return spec.max_side or spec.max_pixels // spec.size_multiple


def _refusal(given: str, limit: str) -> InvalidRequest:
    return InvalidRequest(f"size is {given!r}, but {limit}", "size")
