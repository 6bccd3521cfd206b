"""The tensors of an SD3 transformer's checkpoint, checked and in the forms that the graph reads."""

from __future__ import annotations

import math

import numpy as np

from export.diffusion.sd3.config import PATCHES, POSITIONS, SD3Config, sd3_tensors
from export.errors import CheckpointError
from export.safetensors_file import FloatArray
from export.tensor_files import TensorFiles


def open_sd3_tensors(config: SD3Config, files: TensorFiles) -> TensorFiles:
    """Check every tensor; the convolution that reads patches comes back as a matrix.

    Raises:
        CheckpointError: One is missing, or has another shape or a type that cannot be compiled.
    """
    tensors = {}
    for name, shape in sd3_tensors(config).items():
        files.require(name, shape)
        stored = files.stored(name)
        if name == f"{PATCHES}.weight":
            stored = stored.reshaped((config.width, math.prod(shape[1:])))
        elif name == POSITIONS:
            stored = stored.reshaped(shape[1:])
        tensors[name] = stored
    return TensorFiles(tensors)


def read_positions(config: SD3Config, tensors: TensorFiles) -> tuple[FloatArray, FloatArray]:
    """The table of positions as one for columns and one for rows. [max_patches, width / 2] each

    The whole one has an entry for every place of a square; its first half depends on the column and
    its second on the row, so that these two say the same in a hundredth of the space.

    Raises:
        CheckpointError: It does not.
    """
    side, half = config.max_patches, config.width // 2
    columns = tensors.read_rows(POSITIONS, 0, side)[:, :half]
    rows = np.empty_like(columns)
    for row in range(side):
        line = tensors.read_rows(POSITIONS, row * side, (row + 1) * side)  # [side, width]
        rows[row] = line[0, half:]
        if not (line[:, :half] == columns).all() or not (line[:, half:] == rows[row]).all():
            raise CheckpointError(
                f"tensor {POSITIONS!r} is no table of sines over columns and rows of a square"
            )
    return columns, rows
