"""What config.json says of quantized weights, and the tensors that it then takes to read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from export.errors import CheckpointError
from export.quantized.fp8 import read_fp8
from export.quantized.layouts import (
    QuantizedMatrix,
    Tensors,
    read_awq,
    read_gptq,
    read_int8,
    read_packed,
)
from export.quantized.tensors import QuantizedTensorFiles
from export.tensor_files import TensorFiles

Settings = dict[str, Any]
Matrices = dict[str, QuantizedMatrix]
Opener = Callable[[Settings, Tensors], tuple[Matrices, str]]

_INSTEAD = "use the checkpoint in bf16, fp16 or fp32"
_COMPRESSED_FORMATS = (
    "pack-quantized",
    "int-quantized",
    "naive-quantized",
    "float-quantized",
    "mixed-precision",
)


def open_quantized(config: Settings, tensors: TensorFiles) -> TensorFiles:
    """The tensors by their plain names; those given, where nothing is quantized.

    Raises:
        CheckpointError: The layout is not supported or contradicts itself.
    """
    settings = config.get("quantization_config")
    if not settings:
        return tensors
    if not isinstance(settings, dict):
        raise CheckpointError("config.json has a quantization_config that is no object")
    method = settings.get("quant_method")
    opener = _METHODS.get(str(method))
    if opener is None:
        raise CheckpointError(
            f"the checkpoint is quantized by {method!r}, but only {', '.join(_METHODS)} are read: "
            f"{_INSTEAD}"
        )
    stored = {name: tensors.stored(name) for name in tensors}
    try:
        matrices, description = opener(settings, stored)
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"the quantization_config cannot be read: {error!r}") from None
    if not matrices:
        raise CheckpointError(
            f"config.json says that the weights are quantized by {method}, but no tensor is"
        )
    return QuantizedTensorFiles(stored, matrices, description)


def _open_gptq(settings: Settings, stored: Tensors) -> tuple[Matrices, str]:
    bits = int(settings["bits"])
    if bits not in (4, 8):
        raise CheckpointError(
            f"the weights are GPTQ of {bits} bits, but 4 or 8 are read: {_INSTEAD}"
        )
    form = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    if form not in ("gptq", "gptq_v2"):
        raise CheckpointError(
            f"the weights are GPTQ in the format {form!r}, but only gptq and gptq_v2 are read: "
            f"{_INSTEAD}"
        )
    offset = 1 if form == "gptq" else 0
    matrices: Matrices = {
        f"{module}.weight": read_gptq(module, stored, bits, offset)
        for module in _modules(stored, "qweight")
    }
    order = ", ordered by importance" if settings.get("desc_act") else ""
    return matrices, f"GPTQ, {bits} bits, {_groups(settings.get('group_size', -1))}{order}"


def _open_awq(settings: Settings, stored: Tensors) -> tuple[Matrices, str]:
    bits = int(settings.get("bits") or settings.get("w_bit") or 4)
    version = str(settings.get("version", "gemm")).lower()
    if bits != 4 or version != "gemm":
        raise CheckpointError(
            f"the weights are AWQ of {bits} bits in the version {version!r}, but only 4 bits in "
            f"gemm are read: {_INSTEAD}"
        )
    matrices: Matrices = {
        f"{module}.weight": read_awq(module, stored) for module in _modules(stored, "qweight")
    }
    size = settings.get("group_size", settings.get("q_group_size", -1))
    return matrices, f"AWQ, 4 bits, {_groups(size)}"


def _open_compressed(settings: Settings, stored: Tensors) -> tuple[Matrices, str]:
    form = settings.get("format")
    sparsity = (settings.get("sparsity_config") or {}).get("format", "dense")
    if form not in _COMPRESSED_FORMATS or sparsity != "dense":
        raise CheckpointError(
            f"the weights are compressed-tensors in the format {form!r} (sparsity {sparsity}), but "
            f"only {', '.join(_COMPRESSED_FORMATS)} without sparsity are read: {_INSTEAD}"
        )
    matrices: Matrices = {
        f"{module}.weight": read_packed(module, stored)
        for module in _modules(stored, "weight_packed")
    }
    for module in _modules(stored, "weight_scale"):
        weight = stored.get(f"{module}.weight")
        if weight is not None and weight.dtype == "I8":
            matrices[f"{module}.weight"] = read_int8(module, stored)
        elif weight is not None and weight.dtype == "F8_E4M3":
            matrices[f"{module}.weight"] = read_fp8(module, stored, _block(_weights(settings)))
    bits = sorted({matrix.bits for matrix in matrices.values()})
    return matrices, f"compressed-tensors, {form}, {' and '.join(map(str, bits))} bits"


def _open_fp8(settings: Settings, stored: Tensors) -> tuple[Matrices, str]:
    block = _block(settings)
    matrices: Matrices = {
        name: read_fp8(name.removesuffix(".weight"), stored, block)
        for name, tensor in stored.items()
        if tensor.dtype == "F8_E4M3" and name.endswith(".weight")
    }
    blocks = "" if block is None else f" in blocks of {block[0]} x {block[1]}"
    return matrices, f"FP8{blocks}"


_METHODS: Mapping[str, Opener] = MappingProxyType(
    {
        "gptq": _open_gptq,
        "awq": _open_awq,
        "compressed-tensors": _open_compressed,
        "fp8": _open_fp8,
    }
)


def _modules(stored: Tensors, part: str) -> list[str]:
    suffix = f".{part}"
    return [name.removesuffix(suffix) for name in stored if name.endswith(suffix)]


def _groups(size: object) -> str:
    return "a scale a row" if size == -1 else f"groups of {size}"


def _weights(settings: Settings) -> Settings:
    """What compressed-tensors says of the weights of its first group."""
    groups = settings.get("config_groups") or {}
    return next(((group.get("weights") or {}) for group in groups.values()), {})


def _block(settings: Settings) -> tuple[int, int] | None:
    size = settings.get("weight_block_size") or settings.get("block_structure")
    if size is None:
        return None
    sides = size.split("x") if isinstance(size, str) else size
    height, width = (int(side) for side in sides)
    return height, width
