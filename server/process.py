"""The process that listens: its signals, how it drains and how it ends."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from types import FrameType

import uvicorn

from server.app import create_app
from server.config import ServerConfig
from server.lifecycle import Lifecycle
from server.listener import url_of
from server.metrics import Metrics
from server.registry import ModelRegistry

logger = logging.getLogger(__name__)

# How long a broken server still answers, so that whoever probes /health can see why it ends.
_LAST_WORDS_S = 2.0
_TICK_S = 0.1  # that uvicorn sleeps between two ticks
# Longer than clients keep idle connections, so that none is closed under a request.
_KEEP_ALIVE_S = 75
# For clients that do not read what they asked for, once their requests have been ended.
_CLOSE_TIMEOUT_S = 5


def serve(
    models: ModelRegistry,
    config: ServerConfig,
    api_keys: Iterable[str],
    listener: socket.socket,
) -> int:
    """Serve until a signal or a failed engine ends the process.

    SIGTERM or Ctrl-C drains: running requests end, new ones get 503. A second one ends them.

    Returns:
        The exit status: 0, or 1 if an engine has failed.
    """
    lifecycle = Lifecycle(models, config.drain_timeout)
    metrics = Metrics()
    app = create_app(models, config, api_keys, lifecycle, metrics)
    settings = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_CLOSE_TIMEOUT_S,
    )
    server = DrainingServer(
        settings, lifecycle, config.drain_timeout, url_of(listener), metrics.event_loop_lag.observe
    )
    server.run(sockets=[listener])
    for model in models.models:
        model.worker.close()
    return 1 if any(model.worker.failure for model in models.models) else 0


class DrainingServer(uvicorn.Server):
    """Goes on listening while it drains, and ends when nothing runs any more.

    Args:
        config: Of uvicorn.
        lifecycle: Told to drain, and asked for failed engines, ten times a second.
        drain_timeout_s: After which running requests are ended.
        url: For the line that says that the server is ready.
        observe_lag: Told at every tick how many seconds it came late.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        drain_timeout_s: float,
        url: str,
        observe_lag: Callable[[float], None],
    ) -> None:
        super().__init__(config)
        self._observe_lag = observe_lag
        self._due: float | None = None  # when the next tick is
        self._has_failed = False
        self._lifecycle = lifecycle
        self._drain_timeout_s = drain_timeout_s
        self._url = url
        self._earliest_end = 0.0
        self._latest_end = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        names = ", ".join(name for name, _ in self._lifecycle.models.names)
        print(f"Enginery serves {names} at {self._url}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; a second signal ends what runs, a third does not even wait for that."""
        if self.should_exit:
            os._exit(1)
        if self._lifecycle.is_draining:
            self._latest_end = 0.0
            return
        logger.info("%s: draining", signal.Signals(sig).name)
        self._drain()

    async def on_tick(self, counter: int) -> bool:
        if not self._has_failed and self._lifecycle.failed_models:
            self._fail()
        now = time.monotonic()
        if self._due is not None:
            self._observe_lag(max(now - self._due, 0.0))
        is_idle = not self.server_state.tasks and now >= self._earliest_end
        if self._lifecycle.is_draining and (is_idle or now >= self._latest_end):
            self.should_exit = True
        should_exit = await super().on_tick(counter)
        self._due = time.monotonic() + _TICK_S
        return should_exit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Before connections are closed, so that what still runs can say why it ends.
        await self._lifecycle.stop(timeout_s=0)
        await super().shutdown(sockets)
        logger.info("stopped")

    def _fail(self) -> None:
        self._has_failed = True
        for model in self._lifecycle.failed_models:
            logger.critical("the engine of %s has stopped: %s", model.id, model.worker.failure)
        self._earliest_end = time.monotonic() + _LAST_WORDS_S
        self._drain()

    def _drain(self) -> None:
        self._latest_end = min(self._latest_end, time.monotonic() + self._drain_timeout_s)
        self._lifecycle.is_draining = True
