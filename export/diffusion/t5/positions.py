"""How T5 sees the distance of two tokens: exactly where they are near, more roughly further away.

Raffel et al. 2020 (https://arxiv.org/abs/1910.10683), section 2.1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def bucket_distances(num_buckets: int, max_distance: int) -> NDArray[np.int64]:
    """The bucket of each distance from -max_distance to max_distance. [2 * max_distance + 1]

    Those further away are in the same bucket as the last ones. Half of the buckets are for tokens
    behind; of each half, half are for single distances, and the others grow with the logarithm.
    """
    distances = np.arange(-max_distance, max_distance + 1)
    per_direction = num_buckets // 2
    num_exact = per_direction // 2
    size = np.abs(distances)
    # In float32, as the reference rounds: a boundary lies exactly on a distance.
    ratio = np.maximum(size, num_exact).astype(np.float32) / np.float32(num_exact)
    growth = np.log(ratio) / np.float32(math.log(max_distance / num_exact))
    rough = num_exact + (growth * np.float32(per_direction - num_exact)).astype(np.int64)
    bucket = np.where(size < num_exact, size, np.minimum(rough, per_direction - 1))
    behind: NDArray[np.int64] = bucket + per_direction * (distances > 0)
    return behind
