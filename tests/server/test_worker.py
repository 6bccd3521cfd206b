"""The engine's thread: fair to clients, idle when idle, and never a request left hanging."""

import asyncio
import contextlib
import time

import pytest

from engines.errors import ContextLengthExceeded, InvalidRequest, QueueFull, RunFailed
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from server import worker as worker_module
from server.errors import ApiError, ServerUnavailable
from server.worker import EngineWorker
from tests.server.fakes import ScriptedEngine

EOS = 1


def make_engine(num_tokens=3, **options):
    return ScriptedEngine(
        lambda seq: [10 + i for i in range(num_tokens)], eos_token_id=EOS, vocab_size=99, **options
    )


@contextlib.asynccontextmanager
async def running(engine, **options):
    worker = EngineWorker(engine, name="tiny", **options)
    worker.start()
    try:
        yield worker
    finally:
        engine.run()
        await worker.stop(timeout_s=0)


def sequences(worker, count=1, max_tokens=100):
    sampling = SamplingParams(max_tokens=max_tokens)
    return [Sequence.from_prompt(id, [5, 6], sampling) for id in worker.new_seq_ids(count)]


async def tokens_of(stream):
    with stream:
        return [out.token_id async for outputs in stream for out in outputs or ()]


async def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited for nothing"
        await asyncio.sleep(0.001)


def test_a_request_gets_its_tokens_in_order():
    async def scenario():
        async with running(make_engine()) as worker:
            assert await tokens_of(worker.generate(sequences(worker))) == [10, 11, 12, EOS]
            assert worker.num_running == worker.num_waiting == 0

    asyncio.run(scenario())


def test_requests_share_steps():
    async def scenario():
        engine = make_engine(max_num_seqs=4)
        engine.hold()
        async with running(engine) as worker:
            streams = [worker.generate(sequences(worker)) for _ in range(4)]
            engine.run()
            answers = await asyncio.gather(*map(tokens_of, streams))
        assert answers == [[10, 11, 12, EOS]] * 4
        # At most a step that the first took alone, before the others were there.
        assert engine.num_steps <= 5

    asyncio.run(scenario())


def test_a_reader_that_was_away_gets_all_it_missed_at_once():
    async def scenario():
        engine = make_engine(num_tokens=8)
        async with running(engine) as worker:
            stream = worker.generate(sequences(worker))
            await until(lambda: not engine.has_work and worker.num_running == 0)
            outputs = await anext(stream)
            assert [out.token_id for out in outputs] == [*range(10, 18), EOS]
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    asyncio.run(scenario())


def test_an_idle_engine_is_not_stepped():
    async def scenario():
        engine = make_engine()
        async with running(engine) as worker:
            await tokens_of(worker.generate(sequences(worker)))
            num_steps = engine.num_steps
            await asyncio.sleep(0.05)
            assert engine.num_steps == num_steps  # the fake refuses a step without work as well

    asyncio.run(scenario())


def test_leaving_a_stream_aborts_its_sequences_at_the_next_step():
    async def scenario():
        engine = make_engine(num_tokens=50)
        engine.hold()
        async with running(engine) as worker:
            seqs = sequences(worker, count=2)
            with worker.generate(seqs) as stream:
                engine.release()
                assert len(await anext(stream)) == 2
            assert worker.num_running == 0
            engine.release()
            await until(lambda: len(engine.aborted) == 2)
            assert engine.aborted == [seq.seq_id for seq in seqs]
            assert engine.num_steps <= 2, "one was held while the client left"
            assert not engine.has_work

    asyncio.run(scenario())


def test_a_cancelled_reader_aborts_too():
    async def scenario():
        engine = make_engine(num_tokens=50)
        engine.hold()
        async with running(engine) as worker:
            reader = asyncio.create_task(tokens_of(worker.generate(sequences(worker))))
            await until(lambda: engine.added)
            reader.cancel()
            await asyncio.wait([reader])
            engine.release()
            await until(lambda: engine.aborted)
            assert not engine.has_work

    asyncio.run(scenario())


def test_one_sequence_of_a_request_can_be_given_up_alone():
    async def scenario():
        engine = make_engine()
        engine.hold()
        async with running(engine) as worker:
            first, second = sequences(worker, count=2)
            with worker.generate([first, second]) as stream:
                stream.abort(first.seq_id)
                engine.run()
                ids = [out.seq_id async for outputs in stream for out in outputs or ()]
        assert set(ids) == {second.seq_id}
        assert engine.aborted == [first.seq_id]

    asyncio.run(scenario())


def test_what_exceeds_the_engine_waits_and_what_exceeds_the_queue_is_refused():
    async def scenario():
        engine = make_engine(max_num_seqs=2)
        engine.hold()
        async with running(engine, max_queue_size=1) as worker:
            streams = [worker.generate(sequences(worker)) for _ in range(3)]
            assert (worker.num_running, worker.num_waiting) == (2, 1)
            with pytest.raises(QueueFull, match="1 answers wait and 2 are being written"):
                worker.generate(sequences(worker))
            with pytest.raises(InvalidRequest, match="asks for 4 answers, but this server holds 3"):
                worker.generate(sequences(worker, count=4))
            engine.run()
            await asyncio.gather(*map(tokens_of, streams))
            assert await tokens_of(worker.generate(sequences(worker))) == [10, 11, 12, EOS]

    asyncio.run(scenario())


def test_the_time_in_the_queue_ends_when_a_sequence_is_scheduled():
    async def scenario():
        engine = make_engine(max_num_seqs=1)
        async with running(engine) as worker:
            first, second = (worker.generate(sequences(worker)) for _ in range(2))
            await tokens_of(first)
            await tokens_of(second)
            assert 0 <= first.queue_time_s <= second.queue_time_s

    asyncio.run(scenario())


def test_a_tick_comes_when_nothing_else_does(monkeypatch):
    monkeypatch.setattr(worker_module, "TICK_S", 0.01)

    async def scenario():
        engine = make_engine()
        engine.hold()
        async with running(engine) as worker:
            with worker.generate(sequences(worker)) as stream:
                assert await anext(stream) is None
                assert await anext(stream) is None
                engine.run()

    asyncio.run(scenario())


def test_a_request_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(worker_module, "TICK_S", 0.01)

    async def scenario():
        engine = make_engine()
        engine.hold()
        async with running(engine, request_timeout_s=0.02) as worker:
            with pytest.raises(ApiError, match=r"not finished after 0\.02 s") as caught:
                await tokens_of(worker.generate(sequences(worker)))
            assert caught.value.status == 504
            engine.run()
            await until(lambda: engine.aborted)

    asyncio.run(scenario())


def test_a_failing_step_fails_every_request_and_marks_the_worker_dead(caplog):
    async def scenario():
        engine = make_engine(max_num_seqs=1)
        engine.hold()
        async with running(engine) as worker:
            streams = [worker.generate(sequences(worker)) for _ in range(3)]
            engine.failure = RuntimeError("boom")
            engine.run()
            results = await asyncio.gather(*map(tokens_of, streams), return_exceptions=True)
            assert [type(result) for result in results] == [RunFailed] * 3
            assert "boom" not in str(results[0])
            assert not worker.is_alive
            assert worker.failure == "RuntimeError: boom"
            with pytest.raises(ServerUnavailable, match="has stopped"):
                worker.generate(sequences(worker))

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
            good = worker.generate(sequences(worker))
            bad_ids = worker.new_seq_ids(2)
            sampling = SamplingParams()
            bad = [
                Sequence.from_prompt(id, [5] * length, sampling)
                for id, length in zip(bad_ids, (2, 3), strict=True)
            ]
            with pytest.raises(ContextLengthExceeded):
                await tokens_of(worker.generate(bad))
            assert await tokens_of(good) == [10, EOS]
            assert worker.num_running == 0
            assert worker.is_alive

    asyncio.run(scenario())


def test_stopping_lets_running_requests_finish_and_refuses_new_ones():
    async def scenario():
        engine = make_engine()
        engine.hold()
        worker = EngineWorker(engine, name="tiny")
        worker.start()
        reader = asyncio.create_task(tokens_of(worker.generate(sequences(worker))))
        stop = asyncio.create_task(worker.stop(timeout_s=10))
        await asyncio.sleep(0)
        with pytest.raises(ServerUnavailable, match="shutting down"):
            worker.generate(sequences(worker))
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
        worker = EngineWorker(engine, name="tiny")
        worker.start()
        reader = asyncio.create_task(tokens_of(worker.generate(sequences(worker))))
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
    worker = EngineWorker(engine, name="tiny")

    async def scenario():
        worker.start()
        answer = await tokens_of(worker.generate(sequences(worker)))
        await worker.stop()
        return answer

    assert asyncio.run(scenario()) == asyncio.run(scenario()) == [10, 11, 12, EOS]
    worker.close()
    assert engine.is_closed
