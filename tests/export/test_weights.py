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


def test_a_tensor_in_blocks_is_written_as_one_at_once_is(tmp_path):
    array = np.random.default_rng(0).standard_normal((1000, 7), np.float32)
    with WeightsFile(tmp_path / "whole") as whole, WeightsFile(tmp_path / "parts") as parts:
        whole.append("first", np.ones(3, np.int8))
        parts.append("first", np.ones(3, np.int8))
        expected = whole.append("table", array)
        blocks = (array[start : start + 300] for start in range(0, 1000, 300))
        found = parts.append_blocks("table", array.shape, blocks)
        assert (found.offset, found.length) == (expected.offset, expected.length)
        assert parts.finish() == whole.finish()
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_blocks_that_are_not_the_whole_are_refused(tmp_path):
    with WeightsFile(tmp_path / "data") as weights:
        with pytest.raises(ValueError, match="came in 8 bytes, but its shape asks for 12"):
            weights.append_blocks("table", (3, 1), [np.ones((2, 1), np.float32)])
        weights.append("other", np.ones(2, np.float32))
        with pytest.raises(ValueError, match="another tensor named 'other'"):
            weights.append_blocks("other", (2,), [np.ones(2, np.float32)])
