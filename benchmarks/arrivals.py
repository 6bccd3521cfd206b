"""When the requests of a run are sent: all at once, or as a Poisson process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np

PromptT = TypeVar("PromptT")
ResultT = TypeVar("ResultT")


def arrival_times(count: int, requests_per_s: float | None, seed: int) -> list[float]:
    """Seconds after the start at which each request is due, ascending. [count]

    Without a rate all are due at once; with one, the gaps are exponential (a Poisson process).
    """
    if requests_per_s is None:
        return [0.0] * count
    gaps = np.random.default_rng(seed).exponential(1 / requests_per_s, size=count)  # [count]
    return [float(due) for due in np.cumsum(gaps)]


async def send_all(
    send: Callable[[PromptT], Awaitable[ResultT]],
    prompts: Sequence[PromptT],
    due_s: Sequence[float],
    max_concurrency: int | None,
    on_result: Callable[[ResultT], None],
) -> list[ResultT]:
    """Send each prompt when it is due and a place is free; the results keep the prompts' order.

    A request that has to wait for a place is timed from when it is sent.
    """
    loop = asyncio.get_running_loop()
    start = loop.time()
    places = asyncio.Semaphore(max_concurrency or len(prompts) or 1)

    async def one(prompt: PromptT, due: float) -> ResultT:
        await asyncio.sleep(max(0.0, start + due - loop.time()))
        async with places:
            result = await send(prompt)
        on_result(result)
        return result

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(one(prompt, due)) for prompt, due in zip(prompts, due_s, strict=True)
        ]
    return [task.result() for task in tasks]
