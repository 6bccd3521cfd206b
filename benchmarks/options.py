"""Options that several benchmarks have, declared once, and how lists and reports are checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

STDOUT = "-"
REPORT = Group("Report", sort_key=9)
WHAT = Group("What to compare", sort_key=1)
WHERE = Group("Where they are", sort_key=2)
LOAD = Group("Workload", sort_key=3)
_ENGINE = Group("Engine", sort_key=1)


def split_numbers(kind: Any, tokens: Sequence[Any]) -> Any:
    """Numbers separated by commas, spaces or both, as one tuple; cyclopts' converter."""
    parts = [part for token in tokens for part in token.value.split(",") if part.strip()]
    number = float if "float" in str(kind) else int
    return tuple(number(part) for part in parts)


def numbers(help: str, group: Group) -> Parameter:
    """Several numbers: `--flag 1,8` or `--flag 1 8`."""
    return Parameter(
        help=f"{help}; several separated by commas",
        converter=split_numbers,
        consume_multiple=True,
        negative="",
        group=group,
    )


EngineTarget = Annotated[Path, Parameter(help="an engine or a folder of engines", group=_ENGINE)]
EngineId = Annotated[
    str | None, Parameter(help="the engine's id, when the folder holds several", group=_ENGINE)
]
RuntimeThreads = Annotated[
    int | None, Parameter(help="of the runtime; default: the server's choice", group=_ENGINE)
]
JsonTarget = Annotated[
    str | None,
    Parameter(
        help="write everything to this file; `-` is stdout",
        group=REPORT,
        allow_leading_hyphen=True,
    ),
]
HtmlTarget = Annotated[
    Path | None,
    Parameter(help="write a page with tables and plots, which needs no other file", group=REPORT),
]
PlotsTarget = Annotated[
    Path | None, Parameter(help="folder for the plots as PNG files", group=REPORT)
]
FiguresTarget = Annotated[Path | None, Parameter(help="write all figures here", group=REPORT)]
MarkdownTarget = Annotated[Path | None, Parameter(help="write the report here", group=REPORT)]
UpdateTarget = Annotated[
    Path | None, Parameter(help="put the report between the marks of this document", group=REPORT)
]
Rounds = Annotated[int, Parameter(help="turns of all; medians count", group=WHAT)]
ExportAgain = Annotated[
    bool,
    Parameter(help="export our engines again, though they are there", negative="", group=WHERE),
]
EachThreads = Annotated[
    int | None, Parameter(help="of each; default: the physical cores", group=LOAD)
]
Threads = Annotated[int | None, Parameter(help="of the runtime; default: the server's choice")]


def several(help: str, group: Group) -> Parameter:
    """Several words: `--flag a b`, the flag only once."""
    return Parameter(help=help, consume_multiple=True, negative="", group=group)


def check_json_target(target: str | None) -> None:
    """Raise ValueError for what is rather the next flag than a file name."""
    if target is not None and target != STDOUT and target.startswith("-"):
        raise ValueError(f"json is {target!r}, but it must be a file name or -")


def check_at_least_one(config: object, names: Iterable[str]) -> None:
    """Refuse a setting below 1, or one in a list; None is one that was left out."""
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}, but it must be at least 1")


def check_above_zero(config: object, names: Iterable[str]) -> None:
    """Refuse a setting that is not above 0 and finite, or one in a list."""
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and not (math.isfinite(number) and number > 0):
                raise ValueError(f"{name} is {number}, but it must be above 0 and finite")
