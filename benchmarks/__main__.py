"""`python -m benchmarks`: the commands serve, offline and peers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App

from benchmarks.offline import OfflineConfig, run_offline
from benchmarks.peers.command import run_peers
from benchmarks.peers.config import PeersConfig
from benchmarks.serve import ServeConfig, run_serve
from engines.cli import add_command, run_app


def create_app(name: str = "python -m benchmarks") -> App:
    """The command line; `name` is what stands before the commands in its help."""
    app = App(
        name=name,
        help="Measure a running server, an engine without HTTP, or the engine beside its peers.",
        version_flags=[],
    )
    add_command(app, ServeConfig, run_serve, name="serve")
    add_command(app, OfflineConfig, run_offline, name="offline")
    add_command(app, PeersConfig, run_peers, name="peers")
    return app


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status; settings come from the TOML table `bench` too."""
    run_app(create_app(), "bench", argv)


if __name__ == "__main__":
    main()
