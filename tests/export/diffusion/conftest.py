"""Tiny pipelines, their compiled graphs and single components, made once a session."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from engines.manifest import write_manifest
from export.diffusion.checkpoint import open_diffusion_checkpoint
from export.diffusion.engine import compile_image_engine, plan_image_engine
from export.report import QuietProgress
from tests.export.diffusion.qwen_image.tiny import make_qwen_image
from tests.export.diffusion.tiny_pipelines import PIPELINES

_MAKERS = PIPELINES | {"qwen-image": make_qwen_image}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Layers this small take longer to share between threads than to compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`pipeline("sd15")`: the folder of a checkpoint that is not to be changed."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = _MAKERS[name](tmp_path_factory.mktemp("pipelines") / f"tiny-{name}")
        return made[name]

    return make


@pytest.fixture
def own_pipeline(pipeline: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """The same as a copy that a test may damage."""

    def make(name: str) -> Path:
        return Path(shutil.copytree(pipeline(name), tmp_path / f"tiny-{name}"))

    return make


@pytest.fixture(scope="session")
def image_engine(
    pipeline: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """`image_engine("sd15")`: the folder of an engine that is not to be changed."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("engines") / f"tiny-{name}"
            folder.mkdir()
            plan = plan_image_engine(open_diffusion_checkpoint(pipeline(name), name), name)
            write_manifest(compile_image_engine(plan, folder, QuietProgress()), folder)
            made[name] = folder
        return made[name]

    return make
