"""The `enginery` command: `enginery export | serve | bench`, each as `python -m` would run it."""

from __future__ import annotations

import runpy
import sys

from engines import __version__

_COMMANDS = {
    "export": ("export", "compile a checkpoint into an engine"),
    "serve": ("server", "serve every engine of a folder over the OpenAI API"),
    "bench": ("benchmarks", "measure a server, an engine, or peers side by side"),
}


def main() -> None:
    """Run the command that the first argument names; the rest of the arguments are its own."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name == "--version":
        print(__version__)
    elif name in ("--help", "-h"):
        print(_usage())
    elif name in _COMMANDS:
        sys.argv = [f"enginery {name}", *sys.argv[2:]]
        runpy.run_module(_COMMANDS[name][0], run_name="__main__", alter_sys=False)
    else:
        print(f"error: {name!r} is not a command of enginery\n\n{_usage()}", file=sys.stderr)
        raise SystemExit(1)


def _usage() -> str:
    lines = [f"  {name:<8}{text}" for name, (_, text) in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: enginery COMMAND [OPTIONS]",
            "",
            *lines,
            "",
            "`enginery COMMAND --help` lists the options of a command.",
        ]
    )


if __name__ == "__main__":
    main()
