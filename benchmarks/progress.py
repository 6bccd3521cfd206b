"""What is seen while a load runs: a bar, and how the answers are so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.client import Client
from benchmarks.results import RequestResult

_REFRESH_S = 0.5


class LoadProgress:
    """Bars on standard error, one for each load, drawn only on a terminal.

    Use it as a context manager around all loads.
    """

    def __init__(self, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self.prefix = ""  # before the name of a load, for example that of a peer
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[so_far]}"),
            console=console,
            disable=quiet or not console.is_terminal,
        )

    def __enter__(self) -> LoadProgress:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    @contextmanager
    def load(
        self, name: str, num_requests: int, client: Client
    ) -> Iterator[Callable[[Sequence[RequestResult]], None]]:
        """Show one load; yields what takes the results of each session."""
        results: list[RequestResult] = []
        start = time.perf_counter()
        task = self._bars.add_task(f"{self.prefix}{name}", total=num_requests, so_far="")
        is_over = threading.Event()

        def show() -> None:
            elapsed_s = max(time.perf_counter() - start, 1e-9)
            self._bars.update(
                task, completed=len(results), so_far=describe(results, client, elapsed_s)
            )

        def refresh() -> None:
            while not is_over.wait(_REFRESH_S):
                show()

        thread = threading.Thread(target=refresh, daemon=True)
        if not self._bars.disable:
            thread.start()
        try:
            yield results.extend
        finally:
            is_over.set()
            show()


def describe(results: Sequence[RequestResult], client: Client, elapsed_s: float) -> str:
    """Where a load stands: what is on its way, chunks a second, first tokens, failures."""
    words = [f"{client.num_in_flight} in flight", f"{client.num_chunks / elapsed_s:.0f} chunks/s"]
    first = [result.ttft_s for result in list(results) if result.ttft_s is not None]
    if first:
        words.append(f"first token {1e3 * median(first):.0f} ms")
    num_failed = sum(result.error is not None for result in list(results))
    if num_failed:
        words.append(f"{num_failed} failed")
    return ", ".join(words)
