"""One export from end to end: find the checkpoint, compile, verify, publish, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from engines.machine import has_fast_int8
from engines.manifest import Manifest, write_manifest
from export.calibration import CALIBRATION_TEXTS
from export.checkpoint import open_checkpoint
from export.compile import compile_engine
from export.compile_plan import OPTIMIZED, CompileOptions, default_precision, plan_compilation
from export.config import ExportConfig, check_engine_id, slug
from export.diffusion.build import ImageBuildOptions, build_image_engine, image_precision
from export.diffusion.checkpoint import is_diffusion_checkpoint, open_diffusion_checkpoint
from export.diffusion.defaults import with_defaults
from export.diffusion.engine import plan_image_engine
from export.diffusion.lora.merge import merge_loras
from export.diffusion.quantization.prompts import read_calibration_prompts
from export.errors import CheckpointError, ExportError
from export.hub import download_checkpoint, is_hub_id
from export.lora.adapter import merge_adapters
from export.plans import add_plans
from export.pooling.compile import compile_pooling_engine, plan_pooling
from export.pooling.task import find_task
from export.precision import Layout
from export.progress import Progress
from export.report import Summary, print_json, print_table
from export.verification import check_bars, run_verification
from export.verify import VerificationResult
from export.workspace import workspace


@dataclass(frozen=True, slots=True)
class CheckpointSource:
    """A checkpoint's folder, its name (a hub id or the folder's), and its commit on the hub."""

    folder: Path
    name: str
    revision: str | None = None


Build = Callable[[Path, Progress], Manifest]  # writes an engine's files; describes them


def export_engine(config: ExportConfig, progress: Progress) -> Summary:
    """Export as the options say; a failure leaves nothing behind.

    Raises:
        ExportError: The checkpoint, the output folder or the verification is at fault.
        ValueError: An option does not fit the checkpoint.
    """
    started = time.monotonic()
    source = find_checkpoint(config)
    engine_id = config.name or source.name
    check_engine_id(engine_id)
    plan = _plan_image if is_diffusion_checkpoint(source.folder) else _plan_language
    build = plan(source, engine_id, config)
    target = config.output / slug(engine_id)
    with workspace(target, force=config.force) as folder:
        compiled = add_plans(build(folder, progress), folder, progress)
        result = _verify(compiled, folder, source, config, progress)
        manifest = msgspec.structs.replace(
            compiled,
            verification=result.report,
            image_verification=result.image_report,
            embedding_verification=result.embedding_report,
            rerank_verification=result.rerank_report,
            verification_skipped=result.skipped,
        )
        write_manifest(manifest, folder)
    return Summary(
        path=str(target),
        seconds=round(time.monotonic() - started, 2),
        size=sum(entry.size for entry in manifest.files.values()),
        is_untrained=result.is_untrained,
        manifest=manifest,
    )


def find_checkpoint(config: ExportConfig) -> CheckpointSource:
    """The folder that was named, or what the hub has under that id."""
    named = Path(config.checkpoint_path).expanduser()
    if named.is_dir():
        if config.revision is not None:
            raise CheckpointError(
                f"--revision {config.revision} is for hub ids, but {named} is a folder"
            )
        return CheckpointSource(named, named.resolve().name)
    if not is_hub_id(config.checkpoint_path):
        raise CheckpointError(f"there is no folder {named}")
    folder, revision = download_checkpoint(
        config.checkpoint_path, config.revision, show_progress=not config.is_silent
    )
    return CheckpointSource(folder, config.checkpoint_path, revision)


def _plan_language(source: CheckpointSource, engine_id: str, config: ExportConfig) -> Build:
    for option, value in (
        ("--num-inference-steps", config.num_inference_steps),
        ("--guidance-scale", config.guidance_scale),
    ):
        if value is not None:
            raise ExportError(
                f"{option} is for image models, but {config.checkpoint_path} is a language model: "
                "leave it out"
            )
    measures = config.smooth or config.kv_cache_precision == "int8"
    if config.calibration_prompts is not None and not measures:
        raise ExportError(
            "--calibration-prompts is for image models, --smooth and --kv-cache-precision int8, "
            f"but {config.checkpoint_path} is a language model without: leave it out"
        )
    checkpoint = open_checkpoint(source.folder, source.name, source.revision)
    precision, overrides = default_precision(checkpoint, config.target)
    if config.precision is not None or config.optimize is not None:
        precision, overrides = config.precision or precision, ()
    decode_precision: Layout | None = None
    if config.optimize is not None:
        precision, decode_precision = OPTIMIZED[config.optimize]
    options = CompileOptions(
        engine_id=engine_id,
        precision=precision,
        overrides=overrides + config.overrides,
        int4_block_size=config.int4_block_size,
        max_context=config.max_context,
        target=config.target,
        kv_cache=config.kv_cache,
        kv_cache_precision=config.kv_cache_precision,
        calibration_texts=read_calibration_prompts(
            config.calibration_prompts, built_in=CALIBRATION_TEXTS
        ),
        reduce_range=_reduces_range(config),
        smooth=config.smooth,
        decode_precision=decode_precision,
    )
    task = find_task(source.folder, config.task)
    if config.loras and task != "chat":
        raise ExportError("--lora is for models that chat or draw: leave it out")
    if config.loras:
        checkpoint = merge_adapters(checkpoint, config.loras)
    if task == "chat":
        return partial(compile_engine, plan_compilation(checkpoint, options))
    _check_pooling(config, decode_precision)
    return partial(compile_pooling_engine, plan_pooling(checkpoint, options, task))


def _check_pooling(config: ExportConfig, decode_precision: Layout | None) -> None:
    """Refuse what a model that embeds or ranks has no use for."""
    if config.target != "ort-cpu":
        raise ExportError(
            f"--target is {config.target}, but models that embed or rank are compiled for ort-cpu "
            "alone"
        )
    if config.kv_cache_precision is not None:
        raise ExportError(
            f"--kv-cache-precision is {config.kv_cache_precision}, but a model that embeds or "
            "ranks keeps no cache: leave it out"
        )
    if config.smooth:
        raise ExportError("--smooth is for models that chat: leave it out")
    if decode_precision is not None:
        raise ExportError(
            f"--optimize is {config.optimize}, but a model that embeds or ranks writes no answers: "
            "choose throughput or memory"
        )


def _plan_image(source: CheckpointSource, engine_id: str, config: ExportConfig) -> Build:
    options = _image_options(config)
    checkpoint = open_diffusion_checkpoint(source.folder, source.name, source.revision)
    if config.loras:
        checkpoint = merge_loras(checkpoint, config.loras)
    plan = plan_image_engine(checkpoint, engine_id)
    spec = with_defaults(plan.spec, config.num_inference_steps, config.guidance_scale)
    return partial(build_image_engine, replace(plan, spec=spec), options)


def _image_options(config: ExportConfig) -> ImageBuildOptions:
    """Refuse what is asked for and would be without effect."""
    precision = image_precision(config.precision, config.target)
    if precision not in ("int8", None) and config.calibration_prompts is not None:
        raise ExportError(
            f"--calibration-prompts is for int8, but --precision is {precision}: leave it out"
        )
    for_chat = {
        "--optimize": config.optimize,
        "--override": config.override or None,
        "--int4-block-size": config.int4_block_size,
        "--max-context": config.max_context,
        "--kv-cache": None if config.kv_cache == "auto" else config.kv_cache,
        "--kv-cache-precision": config.kv_cache_precision,
        "--smooth": config.smooth or None,
        "--task": config.task,
    }
    for option, value in for_chat.items():
        if value is not None:
            raise ExportError(
                f"{option} is for language models, but {config.checkpoint_path} is an image "
                "checkpoint: leave it out"
            )
    return ImageBuildOptions(
        precision=precision,
        calibration_prompts=read_calibration_prompts(config.calibration_prompts),
        verify=config.verify,
        force=config.force,
        target=config.target,
        reduce_range=_reduces_range(config),
    )


def _reduces_range(config: ExportConfig) -> bool:
    return not has_fast_int8() if config.reduce_range is None else config.reduce_range


def show(summary: Summary, config: ExportConfig) -> None:
    """Print the result in the form that was asked for."""
    if config.json:
        print_json(summary)
    elif not config.quiet:
        print_table(summary)


def _verify(
    manifest: Manifest,
    engine_dir: Path,
    source: CheckpointSource,
    config: ExportConfig,
    progress: Progress,
) -> VerificationResult:
    """The report, or the sentence that says why there is none; bars hold unless forced."""
    if not config.verify:
        return VerificationResult(skipped="the export was asked not to verify")
    if manifest.verification_skipped is not None:
        return VerificationResult(skipped=manifest.verification_skipped)
    if manifest.target != "ort-cpu":
        return VerificationResult(
            skipped=f"engines for {manifest.target} are verified where there is a GPU, by "
            "`make test-gpu`"
        )
    with progress.stage("verifying", None):
        result = run_verification(manifest, engine_dir, source.folder, config.loras)
    if not config.force:
        check_bars(manifest, result)
    return result
