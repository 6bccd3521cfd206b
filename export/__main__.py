"""`python -m export`: compile a checkpoint into an engine."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from cyclopts import App

from engines.cli import add_command, run_app
from export.config import ExportConfig
from export.errors import ExportError


def run(config: ExportConfig) -> int:
    """Export one checkpoint as the options say."""
    try:  # here, so that --help answers without loading numpy or onnx
        from export.command import export_engine, show
        from export.report import BarProgress, QuietProgress
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    # Ctrl-C raises KeyboardInterrupt, and `kill` has to remove what was written just the same.
    signal.signal(signal.SIGTERM, _exit_terminated)
    progress = QuietProgress() if config.is_silent else BarProgress()
    show(export_engine(config, progress), config)
    return 0


def list_families() -> None:
    """Print which models can be compiled, in which precisions and for what."""
    try:
        from export.family_table import render
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    print(render(), end="")


def _not_installed(error: ModuleNotFoundError) -> ExportError:
    return ExportError(
        f"the package {error.name} is not installed: pip install 'enginery[cpu,export]'"
    )


def _exit_terminated(number: int, frame: object) -> NoReturn:
    print("terminated", file=sys.stderr)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    app = App(name="python -m export", help=ExportConfig.__doc__)
    add_command(app, ExportConfig, run, name=None)
    app.command(list_families, name="--list-families")
    run_app(app, table="export")
