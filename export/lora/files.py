"""A LoRA file: its layers under the names that it has for them, nothing left out.

Only safetensors files are read. Every key has to be understood: what would change the picture and
is not known here (DoRA, LoHa, LoKr, biases) is refused by name.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from export.checkpoint import read_json_object
from export.errors import CheckpointError
from export.safetensors_file import StoredTensor, read_header_and_metadata
from export.tensor_files import PICKLED

Part = Literal["down", "up", "mid", "alpha"]

ADAPTER_CONFIG = "adapter_config.json"
PEFT_PREFIX = "base_model.model."

_PARTS: tuple[tuple[Part, re.Pattern[str]], ...] = (
    ("down", re.compile(r"\.lora_(?:A|down)(?:\.\w+)?\.weight$")),
    ("up", re.compile(r"\.lora_(?:B|up)(?:\.\w+)?\.weight$")),
    ("down", re.compile(r"(?:[._]lora|\.lora_linear_layer)\.down\.weight$")),
    ("up", re.compile(r"(?:[._]lora|\.lora_linear_layer)\.up\.weight$")),
    ("mid", re.compile(r"\.lora_mid\.weight$")),
    ("alpha", re.compile(r"(?:[._]lora|\.lora_linear_layer)?\.alpha$")),
)
_OTHER_KINDS = {
    "dora_scale": "a DoRA",
    "lora_magnitude_vector": "a DoRA",
    "hada_": "a LoHa",
    "lokr_": "a LoKr",
    "oft_": "an OFT",
}
_SCALARS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
_PEFT_METADATA = "lora_adapter_metadata"  # a JSON object, as diffusers saves it


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """What a file has for one module, under the file's name for it."""

    module: str
    down: StoredTensor
    up: StoredTensor
    mid: StoredTensor | None
    alpha: float | None  # None: as the file's settings say, or the rank

    @property
    def rank(self) -> int:
        return self.up.shape[1]


@dataclass(frozen=True, slots=True)
class LoraFile:
    """An opened file.

    Attributes:
        path: Where it lies.
        sha256: Of the whole file.
        layers: In the order of their names.
        settings: PEFT's settings by the component's name; "" where the file has one for all.
    """

    path: Path
    sha256: str
    layers: tuple[LoraLayer, ...]
    settings: dict[str, dict[str, Any]]

    def factor(self, layer: LoraLayer, component: str) -> float:
        """What a layer's product is multiplied by, before the strength that a user asks for."""
        settings = self.settings.get(component, self.settings.get("", {}))
        alpha = layer.alpha
        if alpha is None:
            alpha = _alpha(settings, layer.module)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(layer.rank) if settings.get("use_rslora") else layer.rank)


def read_lora(path: Path) -> LoraFile:
    """Open a file; no matrices are read yet.

    Raises:
        CheckpointError: It is missing, pickled, damaged, not a LoRA, or holds a key that is not
            understood.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no LoRA file {path}")
    if any(path.match(pattern) for pattern in PICKLED):
        raise CheckpointError(
            f"{path} holds pickled weights, which can run code when they are read: convert the "
            "LoRA to safetensors first"
        )
    tensors, metadata = read_header_and_metadata(path)
    layers = _collect(path, tensors)
    if not layers:
        raise CheckpointError(f"{path} holds no LoRA")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return LoraFile(path, digest, layers, _settings(path, metadata, layers))


def _collect(path: Path, tensors: dict[str, StoredTensor]) -> tuple[LoraLayer, ...]:
    modules: dict[str, dict[Part, StoredTensor]] = {}
    for key, tensor in sorted(tensors.items()):
        module, part = _split(path, key)
        found = modules.setdefault(module, {})
        if part in found:
            raise CheckpointError(f"{path} has {key!r} in two spellings")
        found[part] = tensor
    return tuple(_layer(path, module, parts) for module, parts in modules.items())


def _split(path: Path, key: str) -> tuple[str, Part]:
    for part, pattern in _PARTS:
        if match := pattern.search(key):
            return key[: match.start()], part
    kind = next((kind for sign, kind in _OTHER_KINDS.items() if sign in key), None)
    if kind is not None:
        raise CheckpointError(f"{path} is {kind} ({key!r}), but only LoRA can be merged")
    raise CheckpointError(f"{path} has the key {key!r}, which is none that a LoRA has")


def _layer(path: Path, module: str, parts: dict[Part, StoredTensor]) -> LoraLayer:
    if "down" not in parts or "up" not in parts:
        missing = "down" if "down" not in parts else "up"
        raise CheckpointError(f"{path} has no {missing} matrix for {module!r}")
    down, up, mid = parts["down"], parts["up"], parts.get("mid")
    for tensor in (down, up, *([] if mid is None else [mid])):
        if tensor.dtype not in ("F32", "F16", "BF16"):
            raise CheckpointError(f"{path} stores {module!r} as {tensor.dtype}, not as numbers")
    rank = up.shape[1] if len(up.shape) > 1 else 0
    inner = (rank, rank) if mid is None else (mid.shape[0], mid.shape[1])
    is_flat = math.prod(up.shape[2:]) == 1 and (mid is None or math.prod(down.shape[2:]) == 1)
    if len(down.shape) < 2 or inner != (rank, down.shape[0]) or rank == 0 or not is_flat:
        raise CheckpointError(
            f"{path} has matrices of {list(up.shape)} and {list(down.shape)} for {module!r}, whose "
            "product is none"
        )
    alpha = None if "alpha" not in parts else _scalar(path, module, parts["alpha"])
    return LoraLayer(module, down, up, mid, alpha)


def _scalar(path: Path, module: str, tensor: StoredTensor) -> float:
    value = math.nan
    if math.prod(tensor.shape) == 1 and tensor.dtype == "BF16":
        value = float(tensor.elements(0, 1)[0])
    elif math.prod(tensor.shape) == 1 and tensor.dtype in _SCALARS:
        value = float(np.fromfile(tensor.path, _SCALARS[tensor.dtype], 1, offset=tensor.offset)[0])
    if not math.isfinite(value):
        raise CheckpointError(f"{path} has an alpha for {module!r} that is not a number")
    return value


def _settings(
    path: Path, metadata: dict[str, str], layers: tuple[LoraLayer, ...]
) -> dict[str, dict[str, Any]]:
    """PEFT's: inside the file as diffusers saves them, or beside it as PEFT does."""
    settings: dict[str, dict[str, Any]] = {}
    if _PEFT_METADATA in metadata:
        try:
            flat: dict[str, Any] = json.loads(metadata[_PEFT_METADATA])
            for name, value in flat.items():
                component, _, field = name.rpartition(".")
                settings.setdefault(component, {})[field] = value
        except (ValueError, AttributeError):
            raise CheckpointError(f"{path} has metadata that cannot be read") from None
    elif any(layer.module.startswith(PEFT_PREFIX) for layer in layers):
        beside = path.with_name(ADAPTER_CONFIG)
        if not beside.is_file():
            raise CheckpointError(
                f"{path} does not say how strong it is: its {ADAPTER_CONFIG} has to lie beside it"
            )
        settings[""] = read_json_object(beside)
    if any(found.get("use_dora") for found in settings.values()):
        raise CheckpointError(f"{path} is a DoRA, but only LoRA can be merged")
    return settings


def _alpha(settings: dict[str, Any], module: str) -> float | None:
    for pattern, alpha in (settings.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(?:.*\.)?{pattern}", module):
            return float(alpha)
    declared = settings.get("lora_alpha")
    return None if declared is None else float(declared)
