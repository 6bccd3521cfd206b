"""What the reports of all comparisons share: where they go, and how facts and commands are told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import msgspec

from benchmarks.markdown import insert_between


class ReportTargets(Protocol):
    """The options of a command that say where its report goes."""

    @property
    def json(self) -> Path | None: ...

    @property
    def markdown(self) -> Path | None: ...

    @property
    def update(self) -> Path | None: ...


def write_comparison(
    targets: ReportTargets, comparison: Any, report: str, begin_mark: str, end_mark: str
) -> None:
    """Print the report, and write it and all figures to the files that were asked for."""
    print(report)
    if targets.json is not None:
        encoded = msgspec.json.format(msgspec.json.encode(comparison), indent=2)
        targets.json.write_bytes(encoded + b"\n")
    if targets.markdown is not None:
        targets.markdown.write_text(report, encoding="utf-8")
    if targets.update is not None:
        document = targets.update.read_text(encoding="utf-8")
        targets.update.write_text(
            insert_between(document, report, begin_mark, end_mark), encoding="utf-8"
        )


def shown_pictures(folder: Path, captions: Mapping[str, str], document: Path | None) -> list[str]:
    """Lines of Markdown that show pictures, by their way from the document."""
    start = (document or folder / "report.md").absolute().parent
    way = Path(os.path.relpath(folder.absolute(), start)).as_posix()
    prefix = "" if way == "." else f"{way}/"
    return [f"![{caption}]({prefix}{name})" for name, caption in captions.items()]


def facts(
    date: str,
    machine: Mapping[str, str],
    versions: Sequence[str],
    others_share: Sequence[float],
    sentences: Sequence[str],
) -> str:
    """What it ran on, how quiet that was, who was left out: a list in Markdown."""
    lines = [f"- Date: {date}"]
    lines += [f"- {name.capitalize()}: {value}" for name, value in machine.items()]
    lines += [f"- Versions: {'; '.join(dict.fromkeys(filter(None, versions)))}"]
    if others_share:
        lines.append(
            f"- Cores in use by others during the measurements: {median(others_share):.0%} in the "
            f"median, {max(others_share):.0%} at most"
        )
    return "\n".join([*lines, *(f"- {sentence}" for sentence in sentences)])


def commands(own: str, others: Sequence[str]) -> str:
    """How to repeat it, and what ran in each round."""
    return (
        "The command, and what it ran in each round:\n\n```\n" + "\n".join([own, *others]) + "\n```"
    )
