"""The tensors of the autoencoder's checkpoint, checked, and as one frame sees them."""

from __future__ import annotations

from export.diffusion.qwen_image.vae_config import QwenVAEConfig
from export.diffusion.qwen_image.vae_structure import decoder_tensors, encoder_tensors
from export.diffusion.shapes import Shapes
from export.safetensors_file import FloatArray, StoredTensor
from export.tensor_files import TensorFiles

_KERNEL_RANK = 5  # [out, in, time, height, width]
_TIME_AXIS = 2
_PACKED = "to_qkv"  # one convolution of one pixel, three layers of the attention
_UNPACKED = ("to_q", "to_k", "to_v")


class OneFrameTensors(TensorFiles):
    """Kernels over time come as their last slice, the only one that does not meet zeros."""

    def shape(self, name: str) -> tuple[int, ...]:
        shape = super().shape(name)
        return shape if len(shape) < _KERNEL_RANK else _without_time(shape)

    def read_rows(self, name: str, start: int, stop: int) -> FloatArray:
        rows = super().read_rows(name, start, stop)
        return rows if rows.ndim < _KERNEL_RANK else rows[:, :, -1]


def open_qwen_vae_tensors(config: QwenVAEConfig, files: TensorFiles) -> TensorFiles:
    """Check every tensor of both halves; names and shapes are those of the graphs.

    Raises:
        CheckpointError: One is missing, or has another shape or a type that cannot be compiled.
    """
    shapes: Shapes = encoder_tensors(config) | decoder_tensors(config)
    tensors: dict[str, StoredTensor] = {}
    for name, shape in shapes.items():
        if ".attentions." in name:
            tensors[name] = _attention_tensor(files, name, shape)
        else:
            tensors[name] = _tensor(files, name, shape)
    return OneFrameTensors(tensors)


def _tensor(files: TensorFiles, name: str, shape: tuple[int, ...]) -> StoredTensor:
    if name.endswith(".gamma"):
        files.require(name, (*shape, 1))
        return files.stored(name).reshaped(shape)
    if ".conv." in name:
        stored_name = name.replace(".conv.", ".resample.1.")  # these do not see time
        files.require(stored_name, shape)
        return files.stored(stored_name)
    stored_shape = shape if len(shape) == 1 else (*shape[:_TIME_AXIS], shape[-1], *shape[2:])
    files.require(name, stored_shape)
    return files.stored(name)


def _attention_tensor(files: TensorFiles, name: str, shape: tuple[int, ...]) -> StoredTensor:
    if name.endswith(".gamma"):  # of pictures, not of videos
        files.require(name, shape)
        return files.stored(name)
    block, layer, kind = name.rsplit(".", 2)
    pixel = (1, 1) if kind == "weight" else ()
    if layer not in _UNPACKED:
        files.require(name, shape + pixel)
        return files.stored(name).reshaped(shape)
    packed = f"{block}.{_PACKED}.{kind}"
    files.require(packed, (3 * shape[0], *shape[1:], *pixel))
    start = _UNPACKED.index(layer) * shape[0]
    return files.stored(packed).rows(start, start + shape[0]).reshaped(shape)


def _without_time(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:_TIME_AXIS] + shape[_TIME_AXIS + 1 :]
