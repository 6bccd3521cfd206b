"""Adapters of PEFT for language models, added to a checkpoint's weights as these are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines.manifest import LoraSource
from export.checkpoint import Checkpoint, read_json_object
from export.errors import CheckpointError
from export.lora.files import ADAPTER_CONFIG, PEFT_PREFIX, LoraFile, LoraLayer, read_lora
from export.lora.merged import LowRankDelta, MergedTensor, merge
from export.lora.option import Lora
from export.quantized.tensors import QuantizedTensorFiles
from export.safetensors_file import StoredTensor
from export.tensor_files import TensorFiles

ADAPTER_FILE = "adapter_model.safetensors"


def merge_adapters(checkpoint: Checkpoint, loras: Sequence[Lora]) -> Checkpoint:
    """The checkpoint with all adapters added to it, one on top of the other.

    Raises:
        CheckpointError: One cannot be read, needs more than its matrices, or has a layer for which
            the checkpoint has no module of that shape.
    """
    if isinstance(checkpoint.tensors, QuantizedTensorFiles):
        raise CheckpointError(
            "a LoRA is added to whole weights, but the checkpoint is quantized: use the one in "
            "bf16, fp16 or fp32"
        )
    tensors = {name: checkpoint.tensors.stored(name) for name in checkpoint.tensors}
    sources = []
    for lora in loras:
        file = _read(lora.path)
        for layer in file.layers:
            name = f"{layer.module.removeprefix(PEFT_PREFIX)}.weight"
            if name not in tensors:
                raise CheckpointError(
                    f"{file.path} has a layer for {layer.module!r}, but the checkpoint has no such "
                    "module: it was made for another model"
                )
            tensors[name] = _add(tensors[name], file, layer, lora.scale)
        sources.append(
            LoraSource(
                name=lora.path.name,
                scale=lora.scale,
                sha256=file.sha256,
                num_modules=len(file.layers),
            )
        )
    return replace(checkpoint, tensors=TensorFiles(tensors), loras=tuple(sources))


def merged_names(checkpoint: Checkpoint) -> list[str]:
    """The tensors that something was added to."""
    stored = ((name, checkpoint.tensors.stored(name)) for name in checkpoint.tensors)
    return [name for name, tensor in stored if isinstance(tensor, MergedTensor)]


def has_merged_experts(checkpoint: Checkpoint) -> bool:
    """Whether something was added to experts, which transformers keeps in one tensor together."""
    return any(".experts." in name for name in merged_names(checkpoint))


def _read(path: Path) -> LoraFile:
    """A folder as PEFT writes it, or the file of weights in one."""
    file = path / ADAPTER_FILE if path.is_dir() else path
    beside = file.with_name(ADAPTER_CONFIG)
    if beside.is_file():
        _check_settings(beside, read_json_object(beside))
    elif path.is_dir():
        raise CheckpointError(f"{path} is not an adapter: it holds no {ADAPTER_CONFIG}")
    return read_lora(file)


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Refuse what is more than two matrices for each layer."""
    kind = settings.get("peft_type", "LORA")
    if kind != "LORA":
        raise CheckpointError(f"{path} has peft_type {kind!r}, but only LORA can be merged")
    if settings.get("use_dora"):
        raise CheckpointError(f"{path} has use_dora, but only plain LoRA can be merged")
    if settings.get("bias", "none") != "none" or settings.get("lora_bias"):
        raise CheckpointError(
            f"{path} has trained biases (bias = {settings.get('bias')!r}), which cannot be merged"
        )
    for name in ("modules_to_save", "target_parameters", "trainable_token_indices"):
        if settings.get(name):
            raise CheckpointError(f"{path} has {name} = {settings[name]}, which cannot be merged")
    if settings.get("fan_in_fan_out"):
        raise CheckpointError(f"{path} has fan_in_fan_out, but no Qwen stores its matrices so")


def _add(tensor: StoredTensor, file: LoraFile, layer: LoraLayer, scale: float) -> StoredTensor:
    delta = LowRankDelta(layer.up, layer.down, layer.mid, file.factor(layer, "") * scale)
    if (layer.up.shape[0], delta.width) != (tensor.shape[0], math.prod(tensor.shape[1:])):
        raise CheckpointError(
            f"{file.path} has matrices of {list(layer.up.shape)} and {list(layer.down.shape)} for "
            f"{layer.module!r}, but the checkpoint's has the shape {list(tensor.shape)}"
        )
    return merge(tensor, delta)
