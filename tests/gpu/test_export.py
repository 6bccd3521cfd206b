"""Exports for a GPU: plans are built where there is one, and left for later where there is none."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from engines.manifest import read_manifest
from engines.store import EngineFolder, check_files
from export.command import export_engine
from export.config import ExportConfig
from export.errors import ExportError
from export.report import QuietProgress
from tests.checkpoints import make_checkpoint


class ListProgress:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    @contextmanager
    def stage(self, name, total):
        yield lambda units, doing="": self.told.append((name, doing))


@pytest.fixture
def export(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "qwen3")

    def run(target, progress=None, **options):
        config = ExportConfig(
            checkpoint_path=str(checkpoint),
            output=tmp_path / "engines",
            name="tiny",
            target=target,
            quiet=True,
            **options,
        )
        export_engine(config, progress or QuietProgress())
        return tmp_path / "engines" / "tiny"

    return run


def test_a_plan_is_built_at_the_export_with_its_progress(host_tensorrt, export):
    progress = ListProgress()
    folder = export("tensorrt", progress, precision="fp32")
    manifest = read_manifest(folder)
    assert manifest.target == "tensorrt"
    assert manifest.device.gpu == "Host GPU"
    assert "model.plan" in manifest.files
    assert ("building the plan", "Building, 2 of 2") in progress.told
    check_files(EngineFolder(folder, manifest))


def test_without_a_gpu_the_engine_waits_for_one(export):
    folder = export("tensorrt")
    manifest = read_manifest(folder)
    assert manifest.precision == "bf16"
    assert manifest.device is None
    assert "model.plan" not in manifest.files
    assert manifest.verification_skipped.startswith("it has no plan yet, as ")
    assert manifest.verification_skipped.endswith("is served once with --rebuild")


def test_an_engine_for_cuda_needs_no_gpu_to_be_made(export):
    manifest = read_manifest(export("cuda", precision="int4"))
    assert manifest.chat.kv_cache == "blocks"
    assert manifest.chat.states[0].dtype == "bfloat16"
    assert manifest.node_precision["embedding"] == "bf16"
    assert "make test-gpu" in manifest.verification_skipped


def test_what_a_target_does_not_take_is_refused_before_anything_is_written(export, tmp_path):
    with pytest.raises(ExportError, match="target cuda computes in"):
        export("cuda", precision="fp32")
    with pytest.raises(ExportError, match=r"--override head=int8 is not possible in bf16 for cuda"):
        export("cuda", override=("head=int8",))
    assert not (tmp_path / "engines" / "tiny").exists()
