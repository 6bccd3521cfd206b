"""Write `docs/options.md` from the config dataclasses: `python -m scripts.options`."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from cyclopts import Group, Parameter

from benchmarks.checkpoints.command import ChatCheckpointConfig
from benchmarks.compare import CompareConfig
from benchmarks.drafts import DraftsConfig
from benchmarks.engine import EngineBenchConfig
from benchmarks.grammar_overhead import GrammarConfig
from benchmarks.growth import GrowthConfig
from benchmarks.images.config import CheckpointConfig, ImagesConfig
from benchmarks.images.serve import ServeImagesConfig
from benchmarks.peers.config import PeersConfig, PeersSetupConfig
from benchmarks.serve import ServeConfig
from benchmarks.server_path.command import ServerPathConfig
from benchmarks.together import TogetherConfig
from engines.cli import ENV_PREFIX
from export.config import ExportConfig
from server.config import ServerConfig

COMMANDS = (
    ("python -m export", "export", ExportConfig),
    ("python -m server", "serve", ServerConfig),
    ("python -m benchmarks serve", "bench.serve", ServeConfig),
    ("python -m benchmarks compare", "bench.compare", CompareConfig),
    ("python -m benchmarks engine", "bench.engine", EngineBenchConfig),
    ("python -m benchmarks drafts", "bench.drafts", DraftsConfig),
    ("python -m benchmarks together", "bench.together", TogetherConfig),
    ("python -m benchmarks grammar", "bench.grammar", GrammarConfig),
    ("python -m benchmarks growth", "bench.growth", GrowthConfig),
    ("python -m benchmarks server-path", "bench.server-path", ServerPathConfig),
    ("python -m benchmarks peers", "bench.peers", PeersConfig),
    ("python -m benchmarks peers-setup", "bench.peers-setup", PeersSetupConfig),
    ("python -m benchmarks chat-checkpoint", "bench.chat-checkpoint", ChatCheckpointConfig),
    ("python -m benchmarks images", "bench.images", ImagesConfig),
    ("python -m benchmarks serve-images", "bench.serve-images", ServeImagesConfig),
    ("python -m benchmarks images-checkpoint", "bench.images-checkpoint", CheckpointConfig),
)
TARGET = Path(__file__).parent.parent / "docs" / "options.md"

_INTRODUCTION = f"""# Options

Every option is a flag, an environment variable (`--max-context` is `{ENV_PREFIX}MAX_CONTEXT`) and
a key of a TOML file, in the table that is named beside the command. Flags win over the environment,
and that over the file, which is named by `--config FILE` or `{ENV_PREFIX}CONFIG`. This page is
generated from the code: `python -m scripts.options`.
"""


def render() -> str:
    """The whole page as Markdown."""
    sections = [_INTRODUCTION]
    for command, table, config in COMMANDS:
        sections.append(f"## {command}\n\n{config.__doc__}\n\nTable in the TOML file: `[{table}]`.")
        for group, rows in _groups(config).items():
            title = f"\n**{group}**\n" if group else ""
            header = "| option | values | default | |\n| --- | --- | --- | --- |"
            sections.append("\n".join([title, header, *rows]).strip())
    return "\n\n".join(section.strip() for section in sections) + "\n"


def _groups(config: type[Any]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for group, row in _rows(config):
        groups.setdefault(group, []).append(row)
    return groups


def _rows(config: type[Any]) -> Iterator[tuple[str, str]]:
    hints = typing.get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        kind, *metadata = typing.get_args(hints[field.name])
        parameter = next(item for item in metadata if isinstance(item, Parameter))
        cells = [
            f"`--{field.name.replace('_', '-')}`",
            _values(kind),
            _default(field),
            (parameter.help or "").replace("|", "\\|"),
        ]
        yield _group_name(parameter), f"| {' | '.join(cells)} |"


def _group_name(parameter: Parameter) -> str:
    groups = parameter.group if isinstance(parameter.group, tuple) else (parameter.group,)
    names = [group.name if isinstance(group, Group) else group for group in groups if group]
    return names[0] if names else ""


def _values(kind: Any) -> str:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(arm for arm in typing.get_args(kind) if arm is not types.NoneType)
    if typing.get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return f"{_values(typing.get_args(kind)[0])}, repeatable"
    names = {int: "number", float: "number", str: "text", Path: "path", bool: "yes or `--no-`"}
    return names[kind]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default
    return "" if value is None or value == () or value is dataclasses.MISSING else f"`{value}`"


if __name__ == "__main__":
    TARGET.write_text(render())
