"""`python -m server`: settings, engines, app, and the process that listens.

Imports wait until they are needed, so that `--help` is quick and loads no runtime.
"""

from __future__ import annotations

import os
import signal
import sys

from cyclopts import App

from engines import __version__
from engines.cli import ENV_PREFIX, add_command, run_app
from engines.errors import EngineryError
from server.config import ServerConfig

_TABLE = "serve"
_KEY_VARIABLE = f"{ENV_PREFIX}API_KEY"


def run(config: ServerConfig) -> int:
    """Serve until a signal or a failed engine ends it; the exit status.

    Raises:
        EngineryError: No engine was found, one cannot be loaded, a setting does not fit, or the
            port cannot be listened on.
    """
    from engines.store import find_engines
    from server.listener import listen
    from server.logs import configure_logging
    from server.names import served_names

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # while engines load, nothing to drain
    configure_logging(config.log_format, config.log_level)
    api_keys = read_api_keys(config)
    folders = find_engines(config.engine_dir)
    served_names(folders, config.served_names)  # refuses what cannot be served before it is loaded
    listener = listen(config.host, config.port)  # before engines are loaded, which takes longer

    from engines.load import share_threads
    from server.opening import open_engines

    share_threads(folders, config.num_threads)
    openings = open_engines(folders, config)
    # Only now, while threads open the engines: these imports take as long as that does.
    from server.loading import load_models
    from server.process import serve

    return serve(load_models(folders, config, openings), config, api_keys, listener)


def read_api_keys(config: ServerConfig) -> tuple[str, ...]:
    """The keys of the settings and their files.

    Raises:
        EngineryError: A file cannot be read, or the variable for the keys is set but empty.
    """
    try:
        api_keys = config.api_keys()
    except ValueError as error:
        raise EngineryError(str(error)) from None
    if not api_keys and os.environ.get(_KEY_VARIABLE) == "":
        # Someone meant to set a key and it was lost on the way: better no server than an open one.
        raise EngineryError(f"{_KEY_VARIABLE} is empty: unset it to serve without keys")
    return api_keys


def main() -> None:
    """Parse the command line and run."""
    app = App(name="python -m server", version=__version__)
    add_command(app, ServerConfig, run, name=None)
    run_app(app, table=_TABLE)


if __name__ == "__main__":
    main()
