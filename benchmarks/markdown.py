"""Reports as Markdown: tables, figures with their spread, and a place in a document."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median


def table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the head; all columns but the first are numbers."""
    head, *body = rows
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *body])


def with_spread(values: Sequence[float], digits: int) -> str:
    """The median, and the lowest and the highest where they differ as shown."""
    low, middle, high = (
        f"{value:,.{digits}f}" for value in (min(values), median(values), max(values))
    )
    return middle if low == high else f"{middle} ({low} to {high})"


def insert_between(document: str, report: str, begin: str, end: str) -> str:
    """Replace what stands between the marks of a document.

    Raises:
        ValueError: The document does not hold both marks, in order.
    """
    head, found_begin, rest = document.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"the document lacks the marks {begin} and {end}")
    return f"{head}{begin}\n\n{report.strip()}\n\n{end}{tail}"


def hide_paths(text: str, names: Mapping[Path | None, str]) -> str:
    """A reader has other folders, so absolute paths are named by what they hold."""
    shown = {str(path): name for path, name in names.items() if path and path.is_absolute()}
    for path in sorted(shown, key=len, reverse=True):  # a folder after what lies in it
        text = text.replace(path, shown[path])
    return text


def own_command(name: str) -> str:
    """The command that runs now, as it is typed (also when `enginery bench` started it)."""
    arguments = sys.argv[sys.argv.index(name) :] if name in sys.argv else [name]
    return shlex.join(["python", "-m", "benchmarks", *arguments])
