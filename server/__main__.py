"""`python -m server`: settings, engines, app, and the process that listens.

Imports wait until they are needed, so that `--help` is quick and loads no runtime.
"""

from __future__ import annotations

import signal
import sys

from cyclopts import App

from engines import __version__
from engines.cli import add_command, run_app
from server.config import ServerConfig

_TABLE = "serve"


def run(config: ServerConfig) -> int:
    """Serve until a signal or a failed engine ends it; the exit status.

    Raises:
        EngineryError: No engine was found, or one cannot be loaded.
        OSError: The port cannot be listened on.
    """
    from engines.errors import EngineryError
    from engines.store import find_engines
    from server.logs import configure_logging

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # while engines load, nothing to drain
    configure_logging(config.log_format, config.log_level)
    try:
        api_keys = config.api_keys()
    except ValueError as error:
        raise EngineryError(str(error)) from None
    folders = find_engines(config.engine_dir)

    from server.process import listen, serve

    listener = listen(config.host, config.port)

    from server.loading import load_models

    models = load_models(folders, config)
    return serve(models, config, api_keys, listener)


def main() -> None:
    """Parse the command line and run."""
    app = App(name="python -m server", version=__version__)
    add_command(app, ServerConfig, run, name=None)
    run_app(app, table=_TABLE)


if __name__ == "__main__":
    main()
