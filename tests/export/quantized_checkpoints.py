"""Quantized checkpoints, written from the published facts of their layouts.

Each writer takes a tiny checkpoint apart, quantizes the matrices of its layers, stores them in the
layout, and returns what each stands for in float32. Needs safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.checkpoints import edit_json

Matrices = dict[str, np.ndarray]

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def write_tensors(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """By hand, since numpy has no eight-bit floats: those come as `(bytes, "F8_E4M3")`."""
    names = {"float32": "F32", "float16": "F16", "int32": "I32", "int64": "I64", "int8": "I8"}
    header, offset, blobs = {}, 0, []
    for name, tensor in tensors.items():
        array, dtype = tensor if isinstance(tensor, tuple) else (tensor, names[str(tensor.dtype)])
        blob = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def matrices_of(tensors: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for name, tensor in tensors.items():
        is_qwen1 = ".h." in name and tensor.ndim == 2
        if is_qwen1 or (".layers." in name and name.endswith("_proj.weight")):
            yield name.removesuffix(".weight"), tensor


def quantize_groups(weight, group, bits, *, symmetric, rng):
    """Unsigned values [N, K], scales [N, groups] in fp16 and zero points [N, groups]."""
    num_rows, num_columns = weight.shape
    blocks = weight.reshape(num_rows, num_columns // group, group)
    top = 2**bits - 1
    if symmetric:
        scale = np.abs(blocks).max(-1) * 2 / top
        zero = np.full(scale.shape, 2 ** (bits - 1))
    else:
        low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)
        scale = (high - low) / top
        zero = np.rint(-low / scale).astype(int)
    scale = scale.astype(np.float16).astype(np.float32)
    values = np.clip(np.rint(blocks / scale[..., None]) + zero[..., None], 0, top)
    return values.reshape(weight.shape).astype(np.uint8), scale, zero.astype(np.uint8)


def pack_words(values, bits):
    """Numbers along the last axis into int32, the first in the lowest bits."""
    per_word = 32 // bits
    padding = -values.shape[-1] % per_word
    values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, padding)]).astype(np.uint64)
    values = values.reshape(*values.shape[:-1], -1, per_word)
    shifts = np.arange(per_word, dtype=np.uint64) * np.uint64(bits)
    return (values << shifts).sum(-1).astype(np.uint32).view(np.int32)


def _replace(folder: Path, settings: dict, convert: Callable) -> Matrices:
    """Store each matrix as `convert(module, weight)` says: its tensors, and what they stand for."""
    tensors, meant = read_tensors(folder), {}
    for module, weight in list(matrices_of(tensors)):
        del tensors[f"{module}.weight"]
        parts, meant[f"{module}.weight"] = convert(module, weight)
        tensors |= {f"{module}.{part}": array for part, array in parts.items()}
    write_tensors(folder, tensors)
    edit_json(folder / "config.json", quantization_config=settings)
    return meant


def write_gptq(
    folder, *, bits=4, group=32, symmetric=True, act_order=False, form="gptq", own_order=False
) -> Matrices:
    """`act_order` shuffles columns into groups, `own_order` each matrix in its own way."""
    settings = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group,
        "desc_act": act_order,
        "sym": symmetric,
        "checkpoint_format": form,
    }

    def convert(module, weight):
        rng = np.random.default_rng(len(module) if own_order else weight.shape[1])
        num_columns = weight.shape[1]
        columns = rng.permutation(num_columns) if act_order else np.arange(num_columns)
        values, scale, zero = quantize_groups(
            weight[:, columns], group, bits, symmetric=symmetric, rng=rng
        )
        group_of = np.empty(num_columns, np.int32)
        group_of[columns] = np.arange(num_columns) // group
        plain = np.empty_like(values)
        plain[:, columns] = values  # back in the order of the model
        shifted = zero if form == "gptq_v2" else (zero.astype(int) - 1) & (2**bits - 1)
        parts = {
            "qweight": np.ascontiguousarray(pack_words(plain, bits).T),  # [K / n, N]
            "qzeros": pack_words(shifted.T, bits),  # [groups, N / n]
            "scales": np.ascontiguousarray(scale.T).astype(np.float16),
            "g_idx": group_of,
        }
        meant = (plain.astype(np.float32) - zero[:, group_of]) * scale[:, group_of]
        return parts, meant

    return _replace(folder, settings, convert)


def write_awq(folder, *, group=32) -> Matrices:
    settings = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": group,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": None,
    }

    def pack(columns):
        by_word = columns.reshape(columns.shape[0], -1, 8)[..., AWQ_ORDER]
        return pack_words(by_word.reshape(columns.shape), 4)

    def convert(module, weight):
        values, scale, zero = quantize_groups(weight, group, 4, symmetric=False, rng=None)
        parts = {
            "qweight": pack(np.ascontiguousarray(values.T)),  # [K, N / 8]
            "qzeros": pack(np.ascontiguousarray(zero.T)),
            "scales": np.ascontiguousarray(scale.T).astype(np.float16),
        }
        repeated = np.repeat(zero, group, 1), np.repeat(scale, group, 1)
        return parts, (values.astype(np.float32) - repeated[0]) * repeated[1]

    return _replace(folder, settings, convert)


def _compressed_settings(form, weights) -> dict:
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }


def write_pack_quantized(folder, *, bits=4, group=32, symmetric=True, act_order=False) -> Matrices:
    weights = {
        "num_bits": bits,
        "type": "int",
        "symmetric": symmetric,
        "strategy": "channel" if group is None else "group",
        "group_size": group,
    }

    def convert(module, weight):
        num_rows, num_columns = weight.shape
        size = group or num_columns
        columns = np.arange(num_columns)
        if act_order:
            columns = np.random.default_rng(num_columns).permutation(num_columns)
        values, scale, zero = quantize_groups(
            weight[:, columns], size, bits, symmetric=symmetric, rng=None
        )
        group_of = np.empty(num_columns, np.int32)
        group_of[columns] = np.arange(num_columns) // size
        plain = np.empty_like(values)
        plain[:, columns] = values
        parts = {
            "weight_packed": pack_words(plain, bits),
            "weight_scale": scale.astype(np.float16),
            "weight_shape": np.array([num_rows, num_columns], np.int64),
        }
        if not symmetric:
            parts["weight_zero_point"] = np.ascontiguousarray(pack_words(zero.T, bits).T)
        if act_order:
            parts["weight_g_idx"] = group_of
        return parts, (plain.astype(np.float32) - zero[:, group_of]) * scale[:, group_of]

    return _replace(folder, _compressed_settings("pack-quantized", weights), convert)


def write_int_quantized(folder, *, group=None, symmetric=True, by_tensor=False) -> Matrices:
    weights = {"num_bits": 8, "type": "int", "symmetric": symmetric, "strategy": "channel"}

    def convert(module, weight):
        size = group or weight.shape[1]
        values, scale, zero = quantize_groups(weight, size, 8, symmetric=symmetric, rng=None)
        if by_tensor:
            scale = np.full_like(scale, scale.max())
            values = np.clip(np.rint(weight / scale) + 128, 0, 255).astype(np.uint8)
        parts = {
            "weight": (values.astype(int) - 128).astype(np.int8),
            "weight_scale": (scale[:1, 0] if by_tensor else scale).astype(np.float16),
        }
        if not symmetric:
            parts["weight_zero_point"] = (zero.astype(int) - 128).astype(np.int8)
        repeated = np.repeat(zero, size, 1), np.repeat(scale, size, 1)
        return parts, (values.astype(np.float32) - repeated[0]) * repeated[1]

    return _replace(folder, _compressed_settings("int-quantized", weights), convert)


def write_fp8(folder, *, block=(48, 32), compressed=False, grain="block") -> Matrices:
    """`grain` is block, row or tensor; the numbers are torch's own float8_e4m3fn."""
    import torch

    settings: dict = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
    if grain == "block":
        settings["weight_block_size"] = list(block)
    if compressed:
        settings = _compressed_settings(
            "float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}
        )

    def convert(module, weight):
        num_rows, num_columns = weight.shape
        height, width = {"block": block, "row": (1, num_columns), "tensor": weight.shape}[grain]
        rows, columns = np.arange(num_rows) // height, np.arange(num_columns) // width
        scale = np.zeros((rows[-1] + 1, columns[-1] + 1), np.float32)
        np.maximum.at(scale, (rows[:, None], columns[None]), np.abs(weight) / 448)
        spread = scale[rows][:, columns]
        numbers = torch.from_numpy(weight / spread).to(torch.float8_e4m3fn)
        stored = scale.reshape(()) if grain == "tensor" else scale
        name = "weight_scale" if compressed else "weight_scale_inv"
        parts = {"weight": (numbers.view(torch.uint8).numpy(), "F8_E4M3"), name: stored}
        return parts, numbers.float().numpy() * spread

    return _replace(folder, settings, convert)
