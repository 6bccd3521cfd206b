"""A server in a process of its own, as users run it, on a free port of this machine."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import httpx

from tests.schemas.checked_server import VIOLATION
from tests.schemas.exchanges import SchemaViolation

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60
_URL = re.compile(r" at (http://\S+)/v1$")


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without settings of a server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ENGINERY_")}
    return kept | extra


class ServerProcess:
    """`python -m server ARGUMENTS`, or another command that prints the same line when ready.

    By default every exchange is held against the schemas, and leaving the `with` block fails where
    one did not fit.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        module: str = "tests.schemas.checked_server",
        **environment: str,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--port", "0", *arguments],
            cwd=ROOT,
            env=clean_environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._stdout: queue.Queue[str] = queue.Queue()
        self.log: list[str] = []
        self._readers = [
            threading.Thread(target=_read, args=(self._process.stdout, self._stdout.put)),
            threading.Thread(target=_read, args=(self._process.stderr, self.log.append)),
        ]
        for reader in self._readers:
            reader.start()
        self.base_url = self._wait_until_ready()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.base_url, timeout=60)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """The exit status, once the process has ended by itself or by a signal."""
        status = self._process.wait(STOP_TIMEOUT_S)
        for reader in self._readers:
            reader.join()
        return status

    def stop(self) -> int:
        """End the process the way an orchestrator does; the exit status."""
        if self.is_running:
            self.signal()
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.wait()
            raise

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.check_schemas()

    def check_schemas(self) -> None:
        """Raise the first violation that the log tells of."""
        for line in self.log:
            if line.startswith(VIOLATION):
                raise SchemaViolation(line.removeprefix(VIOLATION))

    def _wait_until_ready(self) -> str:
        try:
            line = self._stdout.get(timeout=START_TIMEOUT_S)
        except queue.Empty:
            line = ""
        match = _URL.search(line.strip())
        if match is None:
            self._process.kill()
            self.wait()
            raise RuntimeError(f"the server did not start: {line}{''.join(self.log)}")
        return match[1]


def run_server(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m server` to its end, for arguments with which it does not serve."""
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
    )


def _read(stream: IO[str], put: object) -> None:
    assert callable(put)
    with stream:
        for line in stream:
            put(line)
    put("")
