"""How far a graph's numbers are from its reference's, and a picture from another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import VerificationFailed

Picture = NDArray[np.uint8]  # [height, width, 3]

EQUAL_PSNR = 100.0  # dB, said of pictures that are equal
_LEVELS = 255


class ErrorMeter:
    """Collects the runs of one graph.

    Args:
        graph: As messages name it.
    """

    def __init__(self, graph: str) -> None:
        self._graph = graph
        self.max_error = 0.0
        self.relative_error = 0.0  # of the worst output of the worst run

    def add(self, reference: NDArray[Any], found: NDArray[Any]) -> None:
        """One output of one run, both of the same shape.

        Raises:
            VerificationFailed: The shapes differ, or one of them holds NaN or infinity.
        """
        if reference.shape != found.shape:
            raise VerificationFailed(
                f"{self._graph} gives {list(found.shape)} where its reference gives "
                f"{list(reference.shape)}"
            )
        expected = reference.astype(np.float64)
        difference = np.abs(found - expected)
        size = float(np.square(expected).sum())
        if not (np.isfinite(size) and np.isfinite(difference.sum())):
            raise VerificationFailed(f"{self._graph} or its reference gives NaN or infinity")
        error = float(np.square(difference).sum())
        self.max_error = max(self.max_error, float(difference.max()))
        self.relative_error = max(self.relative_error, (error / (size or 1.0)) ** 0.5)


class PictureMeter:
    """Collects pairs of pictures."""

    def __init__(self) -> None:
        self.max_difference = 0
        self._psnrs: list[float] = []

    def add(self, reference: Picture, found: Picture) -> None:
        """Two pictures of the same size."""
        self._psnrs.append(psnr(reference, found))
        difference = np.abs(reference.astype(int) - found)
        self.max_difference = max(self.max_difference, int(difference.max()))

    @property
    def mean_psnr(self) -> float:
        return sum(self._psnrs) / len(self._psnrs)

    @property
    def min_psnr(self) -> float:
        return min(self._psnrs)


def psnr(picture: Picture, other: Picture) -> float:
    """The peak signal-to-noise ratio in dB, `EQUAL_PSNR` at most."""
    error = float(np.square(picture.astype(np.float64) - other).mean())
    if error == 0:
        return EQUAL_PSNR
    return min(EQUAL_PSNR, 10 * float(np.log10(_LEVELS**2 / error)))
