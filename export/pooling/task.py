"""What a checkpoint is made for, told from its files: chat, embeddings or reranking."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from export.checkpoint import CONFIG_FILE, read_json_object
from export.errors import CheckpointError

Task = Literal["chat", "embedding", "rerank"]

MODULES_FILE = "modules.json"
POOLING_FILE = "1_Pooling/config.json"
LOGIT_SCORE_FILE = "1_LogitScore/config.json"
# What an export reads of these checkpoints beside the files of every one.
TASK_FILES = (MODULES_FILE, POOLING_FILE, LOGIT_SCORE_FILE)

# Checkpoints saved without a head; their decoders are those of the others.
HEADLESS: Mapping[str, str] = MappingProxyType(
    {"Qwen2Model": "Qwen2ForCausalLM", "Qwen3Model": "Qwen3ForCausalLM"}
)


def find_task(folder: Path, asked: Task | None) -> Task:
    """The task that was asked for, or else what the files say.

    Raises:
        CheckpointError: The file that should say it cannot be read.
    """
    if asked is not None:
        return asked
    if (folder / LOGIT_SCORE_FILE).is_file():
        return "rerank"
    if (folder / POOLING_FILE).is_file() or (folder / MODULES_FILE).is_file():
        return "embedding"
    path = folder / CONFIG_FILE
    architectures = read_json_object(path).get("architectures") if path.is_file() else None
    return "embedding" if set(architectures or ()) & HEADLESS.keys() else "chat"


def check_pooling(folder: Path) -> None:
    """Refuse sentence-transformers models that make something else of the states.

    Raises:
        CheckpointError: They are not pooled from the last token, or go through further layers.
    """
    if (folder / MODULES_FILE).is_file():
        for name in _module_names(folder / MODULES_FILE):
            if name not in {"Transformer", "Pooling", "Normalize"}:
                raise CheckpointError(
                    f"{MODULES_FILE} has a module {name}, but only Transformer, Pooling and "
                    "Normalize are supported"
                )
    path = folder / POOLING_FILE
    if path.is_file() and (modes := _pooling_modes(read_json_object(path))) != ["lasttoken"]:
        raise CheckpointError(
            f"{POOLING_FILE} pools by {' and '.join(modes) or 'nothing'}, but only the last token "
            "is supported"
        )


def _module_names(path: Path) -> list[str]:
    try:
        return [str(module["type"]).rpartition(".")[2] for module in json.loads(path.read_bytes())]
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path} is not a list of modules") from None


def _pooling_modes(config: dict[str, Any]) -> list[str]:
    """Of the newer form, one field, and of the older one, a switch for each mode."""
    mode = config.get("pooling_mode")
    if mode is not None:
        return [mode] if isinstance(mode, str) else list(mode)
    prefix = "pooling_mode_"
    names = [name.removeprefix(prefix) for name, on in config.items() if on is True]
    return [name for name in names if f"{prefix}{name}" in config]
