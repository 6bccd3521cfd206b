"""What the command shows: a progress bar while it works, a table or a JSON object at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from engines.manifest import Manifest


class QuietProgress:
    """Shows nothing; for scripts."""

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[None]:
        yield

    def advance(self, units: int, doing: str = "") -> None:
        pass


class BarProgress:
    """A bar on standard error that says what is being done."""

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[doing]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[None]:
        self._bar.add_task(name, total=total, doing="")
        with self._bar:
            yield
            task = self._bar.tasks[-1]
            self._bar.update(task.id, completed=task.total, doing="done")

    def advance(self, units: int, doing: str = "") -> None:
        self._bar.update(self._bar.tasks[-1].id, advance=units, doing=doing)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON object that `--json` prints."""

    path: str
    seconds: float
    size: int  # bytes
    manifest: Manifest


def print_json(summary: Summary) -> None:
    """One JSON object, one line, on standard output."""
    print(msgspec.json.encode(summary).decode())


def print_table(summary: Summary) -> None:
    """The closing table, on standard output."""
    manifest = summary.manifest
    table = Table(show_header=False, title=f"{manifest.id} is ready")
    table.add_row("folder", summary.path)
    table.add_row("size", f"{summary.size / 1e6:,.0f} MB")
    table.add_row("seconds", f"{summary.seconds:.1f}")
    table.add_row("precision", ", ".join(f"{k} {v}" for k, v in manifest.node_precision.items()))
    if manifest.chat is not None:
        table.add_row("context", f"{manifest.chat.max_context:,} tokens")
    table.add_row("agreement", _agreement(manifest))
    Console().print(table)


def _agreement(manifest: Manifest) -> str:
    report = manifest.verification
    if report is None:
        return manifest.verification_skipped or "not verified"
    return (
        f"top-1 {report.top1_agreement:.1%}, KL {report.mean_kl:.2g}, "
        f"relative error {report.relative_logit_error:.2g} against {report.reference}"
    )
