"""One export from end to end: find the checkpoint, compile, verify, publish, report."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from engines.manifest import Manifest, write_manifest
from export.checkpoint import Checkpoint, open_checkpoint
from export.compile import CompileOptions, compile_engine, plan_compilation
from export.config import ExportConfig, check_engine_id, slug
from export.errors import CheckpointError
from export.hub import download_checkpoint, is_hub_id
from export.progress import Progress
from export.report import Summary, print_json, print_table
from export.verification import check_bars, run_verification
from export.verify import VerificationResult
from export.workspace import workspace


def export_engine(config: ExportConfig, progress: Progress) -> Summary:
    """Export as the options say; a failure leaves nothing behind.

    Raises:
        ExportError: The checkpoint, the output folder or the verification is at fault.
        ValueError: An option does not fit the checkpoint.
    """
    started = time.monotonic()
    checkpoint = find_checkpoint(config)
    engine_id = config.name or checkpoint.name
    check_engine_id(engine_id)
    options = CompileOptions(
        engine_id=engine_id,
        precision=config.precision,
        overrides=config.overrides,
        int4_block_size=config.int4_block_size,
        max_context=config.max_context,
    )
    plan = plan_compilation(checkpoint, options)
    target = config.output / slug(engine_id)
    with workspace(target, force=config.force) as partial:
        compiled = compile_engine(plan, partial, progress)
        result = _verify(compiled, partial, checkpoint, config, progress)
        manifest = msgspec.structs.replace(
            compiled, verification=result.report, verification_skipped=result.skipped
        )
        write_manifest(manifest, partial)
    return Summary(
        path=str(target),
        seconds=round(time.monotonic() - started, 2),
        size=sum(entry.size for entry in manifest.files.values()),
        is_untrained=result.is_untrained,
        manifest=manifest,
    )


def find_checkpoint(config: ExportConfig) -> Checkpoint:
    """Open the folder that was named, or what the hub has under that id."""
    named = Path(config.checkpoint_path).expanduser()
    if named.is_dir():
        if config.revision is not None:
            raise CheckpointError(
                f"--revision {config.revision} is for hub ids, but {named} is a folder"
            )
        return open_checkpoint(named, named.resolve().name)
    if not is_hub_id(config.checkpoint_path):
        raise CheckpointError(f"there is no folder {named}")
    folder, revision = download_checkpoint(
        config.checkpoint_path, config.revision, show_progress=not config.is_silent
    )
    return open_checkpoint(folder, config.checkpoint_path, revision)


def show(summary: Summary, config: ExportConfig) -> None:
    """Print the result in the form that was asked for."""
    if config.json:
        print_json(summary)
    elif not config.quiet:
        print_table(summary)


def _verify(
    manifest: Manifest,
    partial: Path,
    checkpoint: Checkpoint,
    config: ExportConfig,
    progress: Progress,
) -> VerificationResult:
    """The report, or the sentence that says why there is none; bars hold unless forced."""
    if not config.verify:
        return VerificationResult(skipped="the export was asked not to verify")
    with progress.stage("verifying", None):
        result = run_verification(manifest, partial, checkpoint.folder)
    if not config.force:
        check_bars(manifest, result)
    return result
