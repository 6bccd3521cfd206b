"""Add LoRA files to an opened checkpoint; the sums are computed when tensors are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from engines.manifest import LoraSource
from export.diffusion.checkpoint import DiffusionCheckpoint
from export.diffusion.lora.names import Target, normalize, spell_modules
from export.errors import CheckpointError
from export.lora.files import LoraFile, LoraLayer, read_lora
from export.lora.merged import LowRankDelta, merge
from export.lora.option import Lora
from export.safetensors_file import StoredTensor
from export.tensor_files import TensorFiles


def merge_loras(checkpoint: DiffusionCheckpoint, loras: Sequence[Lora]) -> DiffusionCheckpoint:
    """The checkpoint with all files added to it, one on top of the other.

    Raises:
        CheckpointError: A file cannot be read, or has a layer for which the checkpoint has no
            module of that shape.
    """
    spellings = spell_modules(checkpoint)
    tensors = {
        (component.name, name): component.tensors.stored(name)
        for component in checkpoint.components.values()
        for name in component.tensors
    }
    sources = []
    for lora in loras:
        file = read_lora(lora.path)
        for layer in file.layers:
            targets = _find(file, layer, spellings)
            for target in targets:  # several where the original has one module for them
                _add(tensors, file, layer, target, lora.scale)
        sources.append(
            LoraSource(
                name=lora.path.name,
                scale=lora.scale,
                sha256=file.sha256,
                num_modules=len(file.layers),
            )
        )
    components = {
        name: replace(
            component,
            tensors=TensorFiles({tensor: tensors[name, tensor] for tensor in component.tensors}),
        )
        for name, component in checkpoint.components.items()
    }
    return replace(checkpoint, components=components, loras=tuple(sources))


def _find(
    file: LoraFile, layer: LoraLayer, spellings: dict[str, tuple[Target, ...]]
) -> tuple[Target, ...]:
    targets = spellings.get(layer.module) or spellings.get(normalize(layer.module))
    if targets is None:
        raise CheckpointError(
            f"{file.path} has a layer for {layer.module!r}, but the checkpoint has no such module: "
            "it was made for another model, or is spelled in a way that is not known"
        )
    num_rows = layer.up.shape[0]
    if targets[-1].rows is not None and targets[-1].rows[1] != num_rows:
        raise CheckpointError(
            f"{file.path} has {num_rows} rows for {layer.module!r}, but the checkpoint's modules "
            f"have {targets[-1].rows[1]}"
        )
    return targets


def _add(
    tensors: dict[tuple[str, str], StoredTensor],
    file: LoraFile,
    layer: LoraLayer,
    target: Target,
    scale: float,
) -> None:
    key = target.component, target.tensor
    start, stop = target.rows or (0, layer.up.shape[0])
    factor = file.factor(layer, target.component) * scale
    delta = LowRankDelta(layer.up.rows(start, stop), layer.down, layer.mid, factor)
    shape = tensors[key].shape
    if (stop - start, delta.width) != (shape[0], math.prod(shape[1:])):
        raise _misfit(file, layer, tensors[key], target)
    tensors[key] = merge(tensors[key], delta)


def _misfit(
    file: LoraFile, layer: LoraLayer, tensor: StoredTensor, target: Target
) -> CheckpointError:
    return CheckpointError(
        f"{file.path} has matrices of {list(layer.up.shape)} and {list(layer.down.shape)} for "
        f"{layer.module!r}, but {target.tensor!r} of {target.component} has the shape "
        f"{list(tensor.shape)}"
    )
