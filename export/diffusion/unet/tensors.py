"""The tensors of a UNet's checkpoint, checked and in the forms that the graph reads."""

from __future__ import annotations

from export.diffusion.transformer import GEGLU, GEGLU_HALVES
from export.diffusion.unet.config import UNetConfig
from export.diffusion.unet.structure import expected_tensors
from export.safetensors_file import StoredTensor
from export.tensor_files import TensorFiles

_PROJECTIONS = (".proj_in.weight", ".proj_out.weight")


def open_unet_tensors(config: UNetConfig, files: TensorFiles) -> TensorFiles:
    """Check every tensor, and give new names or shapes to those that are read in another form.

    Raises:
        CheckpointError: One is missing, or has another shape or a type that cannot be compiled.
    """
    shapes = expected_tensors(config)
    tensors: dict[str, StoredTensor] = {}
    for name, shape in shapes.items():
        files.require(name, shape)
        stored = files.stored(name)
        if f".{GEGLU}." in name:
            tensors |= _geglu_halves(name, stored)
        elif name.endswith(_PROJECTIONS):  # a convolution of one pixel is a matrix
            tensors[name] = stored.reshaped(shape[:2])
        else:
            tensors[name] = stored
    return TensorFiles(tensors)


def _geglu_halves(name: str, stored: StoredTensor) -> dict[str, StoredTensor]:
    # As two matrices they need no Split behind them.
    num_rows = stored.shape[0] // 2
    return {
        name.replace(GEGLU, half): stored.rows(index * num_rows, (index + 1) * num_rows)
        for index, half in enumerate(GEGLU_HALVES)
    }
