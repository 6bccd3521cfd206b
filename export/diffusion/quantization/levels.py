"""Which values the 256 levels of uint8 stand for, with a step for each channel.

The runtime multiplies levels of one step and one zero point, and of one step only. So a channel's
own step goes into the weights that read it: x * w is (x / relative) * (w * relative). The steps of
channels lie halfway between their own and the widest, in powers: what channels gain, the weights
of the wide ones lose, which are wider then than the others of their row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.diffusion.quantization.ranges import ActivationRange, FloatArray

_LEVELS = 255  # steps between the least and the largest uint8
_LEAST = 1e-3  # of the widest step: no channel has a narrower one, even where it is always 0


@dataclass(frozen=True, slots=True)
class InputLevels:
    """What the levels of an input stand for: (level - zero_point) * step * relative.

    Attributes:
        step: That of the widest channel.
        relative: Of each channel, at most 1. float32 [C]
        zero_point: Of all channels.
    """

    step: float
    relative: FloatArray
    zero_point: int


@dataclass(frozen=True, slots=True)
class OutputLevels:
    """What the levels of each channel of an output stand for: (level - zero_point) * step."""

    steps: FloatArray  # [N]
    zero_points: NDArray[np.uint8]  # [N]


def channel_levels(channels: Sequence[ActivationRange]) -> InputLevels:
    """A step for each channel, around the zero point that makes the steps narrowest."""
    lows = -np.array([channel.low for channel in channels])
    highs = np.array([channel.high for channel in channels])
    zero_points = np.arange(0 if not lows.any() else 1, 256 if not highs.any() else 255)
    below, above = np.maximum(zero_points, 1), np.maximum(_LEVELS - zero_points, 1)
    own = np.maximum(lows / below[:, None], highs / above[:, None])  # [zero points, C]
    widest = own.max(1, keepdims=True)
    steps = np.sqrt(np.maximum(own, _LEAST * widest) * widest)
    best = int(np.square(steps).sum(1).argmin())
    step = float(widest[best, 0])
    if step < np.finfo(np.float32).tiny:
        return InputLevels(1.0, np.ones(len(channels), np.float32), 0)
    return InputLevels(step, (steps[best] / step).astype(np.float32), int(zero_points[best]))


def output_levels(channels: Sequence[ActivationRange]) -> OutputLevels:
    """The range of each channel on all levels."""
    return OutputLevels(
        np.array([channel.scale for channel in channels], np.float32),
        np.array([channel.zero_point for channel in channels], np.uint8),
    )
