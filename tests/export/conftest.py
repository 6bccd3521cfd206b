"""Tiny checkpoints and the engines compiled from them, made once a session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engines.manifest import write_manifest
from export.checkpoint import open_checkpoint
from export.compile import compile_engine
from export.compile_plan import CompileOptions, plan_compilation
from export.report import QuietProgress
from tests.checkpoints import edit_json, make_checkpoint
from tests.export.slots import SlotDecoder

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """`checkpoint(family, **overrides)`: the folder of a checkpoint that is not to be changed."""
    made: dict[str, Path] = {}

    def make(family: str = "qwen2.5", **overrides: Any) -> Path:
        key = json.dumps([family, overrides], sort_keys=True)
        if key not in made:
            folder = tmp_path_factory.mktemp("checkpoints") / f"tiny-{family}"
            made[key] = make_checkpoint(folder, family, **overrides)
        return made[key]

    return make


@pytest.fixture
def own_checkpoint(checkpoint: MakeCheckpoint, tmp_path: Path) -> MakeCheckpoint:
    """The same as a copy that a test may damage; `config` changes fields of config.json."""

    def make(family: str = "qwen2.5", config: dict[str, Any] | None = None, **overrides) -> Path:
        folder = tmp_path / "own" / f"tiny-{family}"
        shutil.copytree(checkpoint(family, **overrides), folder)
        edit_json(folder / "config.json", **(config or {}))
        return folder

    return make


@pytest.fixture(scope="session")
def compiled_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`compiled_for(checkpoint, **options)`: the folder of an engine for any target."""

    def build(checkpoint: Path, **options: Any) -> Path:
        folder = tmp_path_factory.mktemp("engine")
        plan = plan_compilation(
            open_checkpoint(checkpoint, "tiny"), CompileOptions(engine_id="tiny", **options)
        )
        write_manifest(compile_engine(plan, folder, QuietProgress()), folder)
        return folder

    return build


@dataclass(frozen=True)
class Compiled:
    """An engine, the checkpoint it came from, and a decoder over it."""

    folder: Path
    checkpoint: Path
    decoder: SlotDecoder


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Compiled]:
    """`compiled(checkpoint, **options)`: compile in this process, without verification."""

    def build(checkpoint: Path, num_slots: int = 4, **options: Any) -> Compiled:
        folder = tmp_path_factory.mktemp("engine")
        plan = plan_compilation(
            open_checkpoint(checkpoint, "tiny"),
            CompileOptions(engine_id="tiny", **({"precision": "fp32"} | options)),
        )
        write_manifest(compile_engine(plan, folder, QuietProgress()), folder)
        return Compiled(folder, checkpoint, SlotDecoder(folder, num_slots))

    return build
