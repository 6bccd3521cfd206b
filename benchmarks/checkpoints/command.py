"""`python -m benchmarks chat-checkpoint`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from benchmarks.checkpoints.catalogue import SHAPES, ShapeName
from benchmarks.checkpoints.writer import make_chat_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCheckpointConfig:
    """Make a chat checkpoint of a published shape with random weights and a made-up vocabulary."""

    output: Annotated[Path, Parameter(help="the new folder")]
    shape: Annotated[ShapeName, Parameter(help="which published sizes")] = "qwen2.5-0.5b"
    seed: Annotated[int, Parameter(help="of the weights and the vocabulary")] = 0


def run_chat_checkpoint(config: ChatCheckpointConfig) -> int:
    """Make the checkpoint."""
    make_chat_checkpoint(config.output, SHAPES[config.shape], seed=config.seed)
    print(config.output)
    return 0
