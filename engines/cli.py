"""A command line for each config dataclass: flags, environment variables and an optional TOML file.

A config is a frozen dataclass whose fields are `Annotated[type, Parameter(help=..., group=...)]`;
its `__post_init__` raises `ValueError` for values that make no sense. Nothing here knows a runtime.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from inspect import Parameter as SignatureParameter
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Env, Toml

from engines.errors import EngineryError

ConfigT = TypeVar("ConfigT")

ENV_PREFIX = "ENGINERY_"
CONFIG_FLAG = "--config"
_FOOTER = (
    "Every flag can be an environment variable (shown above) or a line of a TOML file: "
    f"`{CONFIG_FLAG} FILE` or `{ENV_PREFIX}CONFIG=FILE`, one table for each command."
)


def fail(message: str) -> NoReturn:
    """End the process with exit status 1 and one sentence on standard error."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def add_command(
    app: App, config_class: type[ConfigT], run: Callable[[ConfigT], int | None], name: str | None
) -> None:
    """Make `run(config)` a command of `app`; `name=None` makes it the only one."""

    def command(config: ConfigT) -> int | None:
        return run(config)

    command.__doc__ = config_class.__doc__
    command.__annotations__["config"] = Annotated[config_class, Parameter(name="*")]
    if all(parameter.default is not Signature.empty for parameter in _parameters(config_class)):
        command.__defaults__ = (config_class(),)  # cyclopts asks for it where no flag is required
    if name is None:
        app.default(command)
    else:
        app.command(command, name=name)


def run_app(app: App, table: str, argv: Sequence[str] | None = None) -> NoReturn:
    """Parse `argv` (default: `sys.argv[1:]`), run the command and exit with its status.

    Args:
        app: Commands added by `add_command`.
        table: The TOML table that holds this app's settings, for example `serve`.

    Exit status: 0, or what the command returned; 1 with one sentence for bad options and for any
    `EngineryError`; 130 after Ctrl-C.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    toml = _take_config_flag(argv) or os.environ.get(f"{ENV_PREFIX}CONFIG")
    sources: list[Any] = [Env(ENV_PREFIX, command=False)]
    if toml:
        sources.append(Toml(Path(toml), root_keys=(table,), must_exist=True))
    app.config = tuple(sources)
    app.help_epilogue = _FOOTER
    try:
        command, bound, _ = app.parse_args(argv, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        fail(" ".join(str(error).split()))
    except (ValueError, OSError) as error:  # of a config's own checks, of the TOML file
        fail(str(error))
    try:
        status = command(*bound.args, **bound.kwargs)
    except (EngineryError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail_interrupted()
    raise SystemExit(status or 0)


def fail_interrupted() -> NoReturn:
    """End the process the way a shell expects after Ctrl-C."""
    print("interrupted", file=sys.stderr)
    raise SystemExit(130)


def _parameters(config_class: type) -> list[SignatureParameter]:
    return list(signature(config_class).parameters.values())


def _take_config_flag(argv: list[str]) -> str | None:
    for index, argument in enumerate(argv):
        if argument == CONFIG_FLAG and index + 1 < len(argv):
            del argv[index]
            return argv.pop(index)
        if argument.startswith(f"{CONFIG_FLAG}="):
            return argv.pop(index).partition("=")[2]
    return None
