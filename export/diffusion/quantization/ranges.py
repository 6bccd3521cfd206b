"""The ranges that activations are quantized in, found from what a model computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_FEW_PICTURES, _MARGIN_OF_FEW = 8, 0.5
_LEVELS = 255  # steps between the least and the largest uint8
_COUNTED_PER_RUN = 1 << 16  # values of one activation in one run, at about the most
_NUM_BINS = 1 << 16  # as many as float32 has upper halves: sign, exponent, 7 bits of the rest
_FIRST_NEGATIVE = 1 << 15
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


@dataclass(frozen=True, slots=True)
class Measured:
    """What many runs had of one activation.

    Attributes:
        whole: From the least to the largest value.
        clipped: The range with the least squared error, which clips a few large values.
        mean: Of each channel. float32 [C]
        channels: From the least to the largest value of each channel.
    """

    whole: ActivationRange
    clipped: ActivationRange
    mean: FloatArray
    channels: tuple[ActivationRange, ...]

    def range(self, *, clips: bool) -> ActivationRange:
        """One range for all channels."""
        return self.clipped if clips else self.whole

    def channel_ranges(self, *, clips: bool, num_pictures: int) -> tuple[ActivationRange, ...]:
        """A range for each channel, within that of all.

        Other pictures may have larger values than those seen, the less likely the more were seen.
        """
        bound, wider = self.range(clips=clips), channel_margin(num_pictures)
        return tuple(
            ActivationRange(
                max(wider * channel.low, bound.low), min(wider * channel.high, bound.high)
            )
            for channel in self.channels
        )


def channel_margin(num_pictures: int) -> float:
    """How much wider than what so many pictures had a channel's range is made: 8 take half more."""
    return 1 + _MARGIN_OF_FEW * math.sqrt(_FEW_PICTURES / num_pictures)


class RangeMeter:
    """Counts the values of one activation over many runs, by the upper halves of their bits.

    Args:
        channel_axis: Which axis channels lie on.
    """

    def __init__(self, channel_axis: int) -> None:
        self._channel_axis = channel_axis
        self._counts = np.zeros(_NUM_BINS, np.int64)
        self._lows = self._highs = self._sums = np.zeros(1)  # 0 lies in every range
        self._num_values = 0  # of each channel

    def add(self, values: FloatArray) -> None:
        """All values of one run; of very many, a part is counted.

        Raises:
            FloatingPointError: There is NaN or infinity among them.
        """
        self._add_channels(values)
        if not np.isfinite(self._low + self._high):
            raise FloatingPointError("NaN or infinity")
        flat = values.reshape(-1)
        # An odd step meets all columns of a picture and all channels of a row.
        step = 1 if flat.size <= _COUNTED_PER_RUN else flat.size // _COUNTED_PER_RUN | 1
        upper = np.ascontiguousarray(flat[::step]).view(np.uint32) >> np.uint32(16)
        self._counts += np.bincount(upper, minlength=_NUM_BINS)

    def measured(self) -> Measured:
        return Measured(
            ActivationRange(self._low, self._high),
            self._clipped_range(),
            (self._sums / max(self._num_values, 1)).astype(np.float32),
            tuple(map(ActivationRange, self._lows.tolist(), self._highs.tolist())),
        )

    def _add_channels(self, values: FloatArray) -> None:
        axis = self._channel_axis % values.ndim
        num_channels = values.shape[axis]
        behind = math.prod(values.shape[axis + 1 :])
        parts: list[FloatArray] = [values.reshape(-1, num_channels, behind)] * 3
        how = (np.minimum, np.maximum, np.add)
        if behind > 1:  # all of it at once: numpy is slow over short axes
            parts = [one.reduce(part, axis=2) for one, part in zip(how, parts, strict=True)]
        lows, highs, sums = (
            one.reduce(part.reshape(-1, num_channels), axis=0)
            for one, part in zip(how, parts, strict=True)
        )
        self._lows, self._highs = np.minimum(self._lows, lows), np.maximum(self._highs, highs)
        self._sums = self._sums + sums
        self._num_values += values.size // num_channels

    @property
    def _low(self) -> float:
        return float(self._lows.min())

    @property
    def _high(self) -> float:
        return float(self._highs.max())

    def _clipped_range(self) -> ActivationRange:
        positive, negative = np.split(self._counts, [_FIRST_NEGATIVE])
        above, below = _ClippingError(positive), _ClippingError(negative)
        highs, lows = self._high * _SHARES, -self._low * _SHARES
        width = (highs[:, None] + lows[None]) / _LEVELS  # [highs, lows]
        rounding = self._counts.sum() * width**2 / 12
        error = rounding + above.at(highs)[:, None] + below.at(lows)[None]
        best_high, best_low = np.unravel_index(np.argmin(error), error.shape)
        return ActivationRange(-float(lows[best_low]), float(highs[best_high]))


class _ClippingError:
    """Sums of squared distances of counted values, all of one sign, to limits that they exceed.

    Args:
        counts: Of each upper half of the bits of a size, in the order of the sizes.
    """

    def __init__(self, counts: NDArray[np.int64]) -> None:
        (found,) = counts.nonzero()
        middle = (found.astype(np.uint32) << np.uint32(16)) | np.uint32(1 << 15)
        self._sizes = middle.view(np.float32).astype(np.float64)
        how_many = counts[found].astype(np.float64)
        self._counts = _from_each_on(how_many)
        self._sums = _from_each_on(how_many * self._sizes)
        self._squares = _from_each_on(how_many * np.square(self._sizes))

    def at(self, limits: NDArray[np.float64]) -> NDArray[np.float64]:
        first = np.searchsorted(self._sizes, limits, side="right")
        error: NDArray[np.float64] = (
            self._squares[first]
            - 2 * limits * self._sums[first]
            + self._counts[first] * np.square(limits)
        )
        return error


def _from_each_on(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of each value and all behind it, and 0 at the end."""
    return np.append(np.cumsum(values[::-1])[::-1], 0.0)
