"""A peer's own server under the load of some clients: started, measured, ended."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from benchmarks.errors import PeerFailed
from benchmarks.load import PointReport, Prompts, open_server_load
from benchmarks.load_options import LoadOptions
from benchmarks.peers.catalogue import Command
from benchmarks.peers.process import child_environment, last_words
from benchmarks.peers.workload import ClientsMeasurement, Workload
from benchmarks.progress import LoadProgress
from benchmarks.server_process import peak_rss_bytes

_POLL_S = 0.02
_START_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 20.0


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure_server(
    command: Command, port: int, workload: Workload, seed: int
) -> ClientsMeasurement:
    """Start a server, keep its clients busy, end it.

    Raises:
        PeerFailed: It did not start, or answered nothing.
    """
    options = LoadOptions(
        concurrency=(workload.clients,),
        num_requests=workload.client_requests,
        input_tokens=workload.client_prompt,
        output_tokens=workload.client_tokens,
        ignore_eos=True,
        temperature=0.0,
        warmup=2,
        quiet=True,
    )
    url = f"http://127.0.0.1:{port}/v1"
    with _running(command, url) as (process, startup_s):
        point = asyncio.run(_load(url, options, seed))
        peak = peak_rss_bytes(process.pid) or 0
    summary = point.summary
    if summary.ttft_ms is None or summary.itl_ms is None:
        kinds = ", ".join(summary.errors) or "no text"
        raise PeerFailed(f"`{' '.join(command)}` answered no request: {kinds}")
    return ClientsMeasurement(
        output_tokens_per_s=summary.output_tokens_per_s,
        output_tokens=summary.output_tokens,
        ttft_p50_ms=summary.ttft_ms.p50,
        gap_p50_ms=summary.itl_ms.p50,
        longest_gap_ms=summary.itl_ms.max,
        num_failed=summary.num_failed,
        gaps_ms=point.gaps_ms,
        peak_rss_bytes=peak,
        startup_s=startup_s,
    )


async def _load(url: str, options: LoadOptions, seed: int) -> PointReport:
    prompts = Prompts.of(options, seed)
    async with open_server_load(url, None, options) as server:
        scale = await server.token_scale(prompts)
        with LoadProgress(quiet=True) as progress:
            return await server.measure(options.points[0], prompts, scale, seed, progress)


@contextmanager
def _running(command: Command, url: str) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The server's process, and the seconds until it listed its model."""
    # One client for all questions: making one takes processor time that the server needs now.
    with tempfile.TemporaryFile() as output, httpx.Client(timeout=5.0) as client:
        start = time.perf_counter()
        try:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=child_environment()
            )
        except OSError as error:
            raise PeerFailed(f"`{' '.join(command)}` cannot be started: {error}") from None
        try:
            while not _is_ready(client, url):
                elapsed_s = time.perf_counter() - start
                if process.poll() is not None or elapsed_s > _START_TIMEOUT_S:
                    output.seek(0)
                    words = last_words(output.read().decode(errors="replace"))
                    raise PeerFailed(f"`{' '.join(command)}` did not begin to serve: {words}")
                time.sleep(_POLL_S)
            yield process, time.perf_counter() - start
        finally:
            process.terminate()
            try:
                process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_ready(client: httpx.Client, url: str) -> bool:
    """Whether the server lists models and says that it is well."""
    with contextlib.suppress(httpx.HTTPError):
        health = client.get(url.removesuffix("/v1") + "/health")
        return health.status_code == 200 and client.get(f"{url}/models").status_code == 200
    return False
