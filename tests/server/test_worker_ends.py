"""How an engine's thread ends, or does not: failures, refusals, stops; no request hangs."""

import asyncio

import pytest

from engines.errors import ContextLengthExceeded, RunFailed
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from server.chat_worker import ChatWorker
from server.errors import ServerUnavailable
from tests.server.fakes import ScriptedEngine
from tests.server.workers import EOS, make_engine, running, sequences, tokens_of, until


def test_a_failing_step_fails_every_request_and_marks_the_worker_dead(caplog):
    async def scenario():
        engine = make_engine(max_num_seqs=1)
        engine.hold()
        async with running(engine) as worker:
            streams = [worker.run(sequences(worker)) for _ in range(3)]
            engine.failure = RuntimeError("boom")
            engine.run()
            results = await asyncio.gather(*map(tokens_of, streams), return_exceptions=True)
            assert [type(result) for result in results] == [RunFailed] * 3
            assert "boom" not in str(results[0])
            assert not worker.is_alive
            assert worker.failure == "RuntimeError: boom"
            with pytest.raises(ServerUnavailable, match="has stopped"):
                worker.run(sequences(worker))

    asyncio.run(scenario())
    assert "boom" in caplog.text


def test_a_request_that_the_engine_refuses_fails_alone():
    class Refusing(ScriptedEngine):
        def add(self, seq):
            if seq.num_prompt_tokens > 2:
                raise ContextLengthExceeded("too long")
            super().add(seq)

    async def scenario():
        engine = Refusing(lambda _: [10], eos_token_id=EOS, vocab_size=99)
        async with running(engine) as worker:
            good = worker.run(sequences(worker))
            bad_ids = worker.new_ids(2)
            sampling = SamplingParams()
            bad = [
                Sequence.from_prompt(id, [5] * length, sampling)
                for id, length in zip(bad_ids, (2, 3), strict=True)
            ]
            with pytest.raises(ContextLengthExceeded):
                await tokens_of(worker.run(bad))
            assert await tokens_of(good) == [10, EOS]
            assert worker.num_running == 0
            assert worker.is_alive

    asyncio.run(scenario())


def test_stopping_lets_running_requests_finish_and_refuses_new_ones():
    async def scenario():
        engine = make_engine()
        engine.hold()
        worker = ChatWorker(engine, name="tiny")
        worker.start()
        reader = asyncio.create_task(tokens_of(worker.run(sequences(worker))))
        stop = asyncio.create_task(worker.stop(timeout_s=10))
        await asyncio.sleep(0)
        with pytest.raises(ServerUnavailable, match="shutting down"):
            worker.run(sequences(worker))
        engine.run()
        await stop
        assert await reader == [10, 11, 12, EOS]
        assert not worker.is_alive
        assert worker.failure is None

    asyncio.run(scenario())


def test_stopping_gives_up_after_its_timeout():
    async def scenario():
        engine = make_engine(num_tokens=1000)
        engine.hold()
        worker = ChatWorker(engine, name="tiny")
        worker.start()
        reader = asyncio.create_task(tokens_of(worker.run(sequences(worker))))
        await until(lambda: engine.added)
        stop = asyncio.create_task(worker.stop(timeout_s=0.01))
        with pytest.raises(ServerUnavailable):
            await reader
        engine.run()
        await stop
        assert engine.num_steps <= 1

    asyncio.run(scenario())


def test_a_worker_can_be_started_again_on_another_loop():
    engine = make_engine()
    worker = ChatWorker(engine, name="tiny")

    async def scenario():
        worker.start()
        answer = await tokens_of(worker.run(sequences(worker)))
        await worker.stop()
        return answer

    assert asyncio.run(scenario()) == asyncio.run(scenario()) == [10, 11, 12, EOS]
    worker.close()
    assert engine.is_closed
