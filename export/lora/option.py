"""`Lora`: a file or folder that is to be added to a checkpoint, as the command line names it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

_LARGEST_SCALE = 100.0


@dataclass(frozen=True, slots=True)
class Lora:
    """A file, and how strongly it is added.

    Raises:
        ValueError: The strength is not between -100 and 100.
    """

    path: Path
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale) or abs(self.scale) > _LARGEST_SCALE:
            raise ValueError(
                f"--lora-scale is {self.scale}, but it must be between -{_LARGEST_SCALE:g} and "
                f"{_LARGEST_SCALE:g}"
            )


def pair_loras(paths: tuple[Path, ...], scales: tuple[float, ...]) -> tuple[Lora, ...]:
    """Scales belong to files in their order; what is left out is 1.0.

    Raises:
        ValueError: There are more scales than files.
    """
    if len(scales) > len(paths):
        raise ValueError(
            f"--lora-scale is given {len(scales)} times, but there are {len(paths)} of --lora"
        )
    missing = (1.0,) * (len(paths) - len(scales))
    return tuple(Lora(path, scale) for path, scale in zip(paths, scales + missing, strict=True))
