"""A running worker around a scripted engine, without text and HTTP."""

import asyncio
import contextlib
import time

from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from server.chat_worker import ChatWorker
from tests.server.fakes import ScriptedEngine

EOS = 1


def make_engine(num_tokens=3, **options):
    return ScriptedEngine(
        lambda seq: [10 + i for i in range(num_tokens)], eos_token_id=EOS, vocab_size=99, **options
    )


@contextlib.asynccontextmanager
async def running(engine, **options):
    worker = ChatWorker(engine, name="tiny", **options)
    worker.start()
    try:
        yield worker
    finally:
        engine.run()
        await worker.stop(timeout_s=0)


def sequences(worker, count=1, max_tokens=100):
    sampling = SamplingParams(max_tokens=max_tokens)
    return [Sequence.from_prompt(id, [5, 6], sampling) for id in worker.new_ids(count)]


async def tokens_of(stream):
    with stream:
        return [out.token_id async for outputs in stream for out in outputs or ()]


async def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited for nothing"
        await asyncio.sleep(0.001)
