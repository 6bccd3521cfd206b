"""`python -m export`: compile a checkpoint into an engine."""

from __future__ import annotations

import time
from pathlib import Path

from cyclopts import App

from engines.cli import add_command, run_app
from export.config import ExportConfig, slug


def run(config: ExportConfig) -> int:
    """Export one checkpoint as the options say."""
    # Imported here so that --help answers without loading them.
    from engines.manifest import write_manifest
    from export.checkpoint import open_checkpoint
    from export.compile import CompileOptions, compile_engine, plan_compilation
    from export.report import BarProgress, QuietProgress, Summary, print_json, print_table
    from export.workspace import workspace

    started = time.monotonic()
    folder = Path(config.checkpoint_path)
    name = folder.resolve().name
    engine_id = config.name or name
    plan = plan_compilation(
        open_checkpoint(folder, name),
        CompileOptions(
            engine_id=engine_id,
            precision=config.precision,
            overrides=config.overrides,
            int4_block_size=config.int4_block_size,
            max_context=config.max_context,
        ),
    )
    progress = QuietProgress() if config.quiet or config.json else BarProgress()
    target = config.output / slug(engine_id)
    with workspace(target, force=config.force) as partial:
        manifest = compile_engine(plan, partial, progress)
        write_manifest(manifest, partial)
    summary = Summary(
        path=str(target),
        seconds=time.monotonic() - started,
        size=sum(entry.size for entry in manifest.files.values()),
        manifest=manifest,
    )
    if config.json:
        print_json(summary)
    elif not config.quiet:
        print_table(summary)
    return 0


if __name__ == "__main__":
    app = App(name="python -m export", help=ExportConfig.__doc__)
    add_command(app, ExportConfig, run, name=None)
    run_app(app, table="export")
