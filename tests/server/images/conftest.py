"""A server in a process of its own that has a tiny image engine beside a tiny language model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import ServerProcess

PAINTER = "tiny-painter"


@pytest.fixture(scope="session")
def painter_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an engine of a random Stable Diffusion; not to be changed."""
    # Imported here, as most tests need neither torch nor the exporter.
    from engines.manifest import write_manifest
    from export.diffusion.checkpoint import open_diffusion_checkpoint
    from export.diffusion.engine import compile_image_engine, plan_image_engine
    from export.report import QuietProgress
    from tests.export.diffusion.tiny_pipelines import make_sd15

    root = tmp_path_factory.mktemp("painter")
    checkpoint = open_diffusion_checkpoint(make_sd15(root / "checkpoint"), PAINTER)
    folder = root / "engines" / PAINTER
    folder.mkdir(parents=True)
    plan = plan_image_engine(checkpoint, PAINTER)
    write_manifest(compile_image_engine(plan, folder, QuietProgress()), folder)
    return folder


@pytest.fixture(scope="session")
def painter_server(
    painter_engine: Path, tiny_engine_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A running server with the engines `tiny-painter` and `tiny`; tests leave it running."""
    root = tmp_path_factory.mktemp("both")
    (root / "chat").symlink_to(tiny_engine_dir / "tiny")
    (root / "image").symlink_to(painter_engine)
    with ServerProcess(["--engine-dir", str(root), "--num-threads", "1"]) as process:
        yield process
