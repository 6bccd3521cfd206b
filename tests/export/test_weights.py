"""The file of external data: what one graph brought, another may read."""

from __future__ import annotations

import numpy as np
import pytest

from export.weights import WeightsFile

NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_tensor_that_is_there_already_is_not_written_again(tmp_path):
    with WeightsFile(tmp_path / "data") as weights:
        first = weights.append("a", NUMBERS)
        size = weights.finish().size
        again = weights.append("a", NUMBERS.copy())
        assert again is first
        assert weights.finish().size == size
        other = weights.append("b", NUMBERS + 1)
    assert np.array_equal(first.numpy(), NUMBERS)
    assert np.array_equal(other.numpy(), NUMBERS + 1)


@pytest.mark.parametrize(
    "other",
    [NUMBERS + 1, NUMBERS.astype(np.int32), NUMBERS.reshape(3, 2), NUMBERS[:1]],
    ids=["values", "dtype", "shape", "size"],
)
def test_another_tensor_of_the_same_name_is_refused(tmp_path, other):
    with WeightsFile(tmp_path / "data") as weights:
        weights.append("a", NUMBERS)
        with pytest.raises(ValueError, match="has another tensor named 'a'"):
            weights.append("a", other)
