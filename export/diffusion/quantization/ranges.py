"""The range that the values of an activation are quantized in, found from what a model computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_LEVELS = 255  # steps between the least and the largest uint8
_SAMPLE_PER_RUN = 2048  # values kept of one activation in one run
# Which shares of the whole range are tried at both ends.
_SHARES = np.concatenate([np.arange(1.0, 0.3, -0.05), np.geomspace(0.3, 0.02, 12)])


@dataclass(frozen=True, slots=True)
class ActivationRange:
    """Values from `low` to `high`, with 0 among them, as 0 to 255."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """What one level stands for."""
        return (self.high - self.low) / _LEVELS or 1.0

    @property
    def zero_point(self) -> int:
        """The level of 0, which padding has to hit exactly."""
        return int(np.clip(np.rint(-self.low / self.scale), 0, _LEVELS))


class RangeMeter:
    """Collects the values of one activation over many runs."""

    def __init__(self) -> None:
        self._samples: list[FloatArray] = []
        self._low = 0.0
        self._high = 0.0

    def add(self, values: FloatArray) -> None:
        """All values of one run; a sample and the extremes are kept.

        Raises:
            FloatingPointError: There is NaN or infinity among them.
        """
        flat = values.reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        if not np.isfinite(low + high):
            raise FloatingPointError("NaN or infinity")
        self._low, self._high = min(self._low, low), max(self._high, high)
        # An odd step meets all columns of a picture and all channels of a row.
        step = max(1, flat.size // _SAMPLE_PER_RUN) | 1
        self._samples.append(flat[::step].copy())

    def range(self) -> ActivationRange:
        """The range with the least squared error: a few large values may be clipped for it."""
        values = np.sort(np.concatenate(self._samples)).astype(np.float64)
        above = _ClippingError(values[values > 0])
        below = _ClippingError(-values[values < 0][::-1])
        highs, lows = self._high * _SHARES, -self._low * _SHARES
        width = (highs[:, None] + lows[None]) / _LEVELS  # [highs, lows]
        rounding = len(values) * width**2 / 12
        error = rounding + above.at(highs)[:, None] + below.at(lows)[None]
        best_high, best_low = np.unravel_index(np.argmin(error), error.shape)
        return ActivationRange(-float(lows[best_low]), float(highs[best_high]))


class _ClippingError:
    """Sums of squared distances of positive, sorted values to limits that they exceed."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self._values = values
        # From each value to the last: their sum, and the sum of their squares.
        self._sums = np.append(np.cumsum(values[::-1])[::-1], 0)
        self._squares = np.append(np.cumsum(np.square(values[::-1]))[::-1], 0)

    def at(self, limits: NDArray[np.float64]) -> NDArray[np.float64]:
        first = np.searchsorted(self._values, limits, side="right")
        count = len(self._values) - first
        error: NDArray[np.float64] = (
            self._squares[first] - 2 * limits * self._sums[first] + count * limits**2
        )
        return error
