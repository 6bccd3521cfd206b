"""A Hugging Face checkpoint folder: config, tensors and name. Never runs code from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.manifest import LoraSource
from export.errors import CheckpointError
from export.quantized.open import open_quantized
from export.tensor_files import TensorFiles, open_tensor_files

CONFIG_FILE = "config.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
        folder: Where its files lie.
        name: The hub id it came from, or the folder's name; never a path.
        revision: The commit on the hub, if it came from there.
        config: The content of config.json.
        tensors: Its weights, by their plain names even where they are quantized.
        loras: What was added to them.
    """

    folder: Path
    name: str
    revision: str | None
    config: dict[str, Any]
    tensors: TensorFiles
    loras: tuple[LoraSource, ...] = ()


def open_checkpoint(folder: Path, name: str, revision: str | None = None) -> Checkpoint:
    """Open a checkpoint folder; no weights are read yet.

    Raises:
        CheckpointError: The folder is missing, is not a checkpoint, or its weights are incomplete.
    """
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}")
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(f"{folder} is not a checkpoint: it holds no {CONFIG_FILE}")
    config = read_json_object(folder / CONFIG_FILE)
    tensors = open_quantized(config, open_tensor_files(folder))
    return Checkpoint(folder, name, revision, config, tensors)


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        CheckpointError: It does not.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return content
