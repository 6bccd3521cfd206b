"""Clients that cost next to nothing: they send one request and count what comes, unparsed."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

from benchmarks.errors import BenchmarkFailed

_PIECE = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What all streams of a round brought; times by `time.perf_counter`."""

    events: int
    first_s: float
    last_s: float


async def run_clients(port: int, streams: int, num_tokens: int) -> Counted:
    """Stream `num_tokens` tokens to each of `streams` clients at once.

    Raises:
        BenchmarkFailed: A stream did not end as it should.
    """
    found = await asyncio.gather(*(_one(port, index, num_tokens) for index in range(streams)))
    return Counted(
        events=sum(count for count, _, _ in found),
        first_s=min(first for _, first, _ in found),
        last_s=max(last for _, _, last in found),
    )


async def _one(port: int, index: int, num_tokens: int) -> tuple[int, float, float]:
    body = {
        "model": "null",
        "messages": [{"role": "user", "content": f"Say something, please ({index})."}],
        "max_tokens": num_tokens,
        "stream": True,
        "stop": ["###", "\n\nUser:"],
        "ignore_eos": True,
    }
    payload = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + payload)
    count, first_s, tail = 0, 0.0, b""
    while piece := await reader.read(_PIECE):
        first_s = first_s or time.perf_counter()
        count += (tail + piece).count(b'"content":') - tail.count(b'"content":')
        tail = (tail + piece)[-64:]
    writer.close()
    if b"[DONE]" not in tail:
        raise BenchmarkFailed(f"a stream of the server ended with {tail!r} instead of [DONE]")
    return count - 1, first_s, time.perf_counter()  # the first event has the role and no text
