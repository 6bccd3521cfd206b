"""By what channels are divided: the published rule, at the strength with the least error.

SmoothQuant (arXiv 2211.10438): channel j is divided by max|X_j| ** a / max|W_j| ** (1 - a).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.precision import INT8_MAX
from export.quantize import quantize_rows
from export.safetensors_file import FloatArray

STRENGTHS = (0.25, 0.5, 0.75)
_WORTH = 0.8  # of the squared error: what lowers it by less is left as it is
_LEAST = 1e-5  # of the largest magnitude: what a channel that is always zero is taken for
_FURTHEST = 1e3  # that channels are moved apart from the mean one, either way


@dataclass(frozen=True, slots=True)
class Choice:
    """What to divide the channels of an activation by, and the squared error of the products.

    Attributes:
        factors: [K]; None leaves them as they are.
        error: Without factors, as a share of the squared products.
        smoothed_error: With them; the same where there are none.
    """

    factors: FloatArray | None
    error: float
    smoothed_error: float


def choose_factors(
    largest: FloatArray,
    weight_largest: FloatArray,
    rows: FloatArray,
    weights: FloatArray,
    int8_max: int = INT8_MAX,
) -> Choice:
    """The factors with the least error over rows that their strength was not made of, if any.

    Args:
        largest: The magnitude of each channel of the activation. [K]
        weight_largest: Of each column of all weights that read it. [K]
        rows: Of the activation. [T, K]
        weights: Some rows of the weights. [N, K]
        int8_max: The largest integer of weights.
    """
    exact = rows @ weights.T
    size = float(np.square(exact, dtype=np.float64).sum())
    if not size > 0:
        return Choice(None, 0.0, 0.0)

    def error(factors: FloatArray | None) -> float:
        x, w = (rows, weights) if factors is None else (rows / factors, weights * factors)
        difference = _rounded(x, INT8_MAX) @ _rounded(w, int8_max).T - exact
        return float(np.square(difference, dtype=np.float64).sum()) / size

    before = error(None)
    tried = [smoothing_factors(largest, weight_largest, strength) for strength in STRENGTHS]
    errors = [error(factors) for factors in tried]
    best = int(np.argmin(errors))
    if not errors[best] < _WORTH * before:
        return Choice(None, before, before)
    return Choice(tried[best], before, errors[best])


def smoothing_factors(
    largest: FloatArray, weight_largest: FloatArray, strength: float
) -> FloatArray:
    """One for each channel, 1 in the geometric mean. [K]"""
    x, w = (np.maximum(m, max(_LEAST * m.max(), 1e-30)) for m in (largest, weight_largest))
    logarithms = strength * np.log(x, dtype=np.float64) - (1 - strength) * np.log(w)
    logarithms -= logarithms.mean()
    limit = np.log(_FURTHEST)
    return np.exp(np.clip(logarithms, -limit, limit)).astype(np.float32)


def _rounded(matrix: FloatArray, largest: int) -> FloatArray:
    """As int8 with a scale a row, which activations and weights both are, and back."""
    q, scales = quantize_rows(matrix, largest)
    rounded: FloatArray = q * scales[:, None]
    return rounded
