"""The chat demo on a GPU beside the CPU's engine in fp32: a trained model, so that top-1 counts."""

from __future__ import annotations

from pathlib import Path

from benchmarks.gpu.parity import NUM_STEPS, compare
from benchmarks.gpu.report import ParityFigures
from engines.load import EngineOptions, load_llm_engine
from engines.manifest import read_manifest
from engines.store import EngineFolder
from export.command import export_engine
from export.config import ExportConfig
from export.report import QuietProgress

CHECKPOINT = Path(__file__).parent.parent.parent / "demos" / "demo-chat"
PRECISIONS = {"cuda": ("bf16", "fp16", "int4"), "tensorrt": ("bf16", "fp16")}


def measure_parity(
    work: Path, target: str, precision: str, num_steps: int = NUM_STEPS, kv_cache: str = "auto"
) -> ParityFigures:
    """Compile the demo for both, and compare."""
    reference = compile_demo(work, "ort-cpu", "fp32")
    folder = compile_demo(work, target, precision, kv_cache)
    engine = load_llm_engine(folder, EngineOptions(rebuild=target == "tensorrt"))
    spec = reference.manifest.chat
    assert spec is not None
    try:
        found = compare(reference.path, spec, engine, num_steps)
    finally:
        engine.close()
    return ParityFigures(
        model=folder.manifest.id,
        target=target,
        precision=precision,
        num_steps=found.num_steps,
        top1=found.top1,
        mean_kl=found.mean_kl,
    )


def compile_demo(work: Path, target: str, precision: str, kv_cache: str = "auto") -> EngineFolder:
    """The demo's engine, made where it is not there yet."""
    output = work / f"demo-{target}-{precision}-{kv_cache}"
    engine = output / "demo-chat"
    if not (engine / "engine.json").exists():
        config = ExportConfig(
            checkpoint_path=str(CHECKPOINT),
            output=output,
            target=target,  # type: ignore[arg-type]  # from the same list
            precision=precision,  # type: ignore[arg-type]
            kv_cache=kv_cache,  # type: ignore[arg-type]
            verify=False,
            quiet=True,
        )
        export_engine(config, QuietProgress())
    return EngineFolder(engine, read_manifest(engine))
