"""The engine's thread: fair to clients, idle when idle, steps shared by all."""

import asyncio

import pytest

from engines.errors import InvalidRequest, QueueFull
from server import worker as worker_module
from server.errors import ApiError
from tests.server.workers import EOS, make_engine, running, sequences, tokens_of, until


def test_a_request_gets_its_tokens_in_order():
    async def scenario():
        async with running(make_engine()) as worker:
            assert await tokens_of(worker.run(sequences(worker))) == [10, 11, 12, EOS]
            assert worker.num_running == worker.num_waiting == 0

    asyncio.run(scenario())


def test_requests_share_steps():
    async def scenario():
        engine = make_engine(max_num_seqs=4)
        engine.hold()
        async with running(engine) as worker:
            streams = [worker.run(sequences(worker)) for _ in range(4)]
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
            stream = worker.run(sequences(worker))
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
            await tokens_of(worker.run(sequences(worker)))
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
            with worker.run(seqs) as stream:
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
            reader = asyncio.create_task(tokens_of(worker.run(sequences(worker))))
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
            with worker.run([first, second]) as stream:
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
            streams = [worker.run(sequences(worker)) for _ in range(3)]
            assert (worker.num_running, worker.num_waiting) == (2, 1)
            with pytest.raises(QueueFull, match="1 answers wait and 2 are being written"):
                worker.run(sequences(worker))
            with pytest.raises(InvalidRequest, match="asks for 4 answers, but this server holds 3"):
                worker.run(sequences(worker, count=4))
            engine.run()
            await asyncio.gather(*map(tokens_of, streams))
            assert await tokens_of(worker.run(sequences(worker))) == [10, 11, 12, EOS]

    asyncio.run(scenario())


def test_the_time_in_the_queue_ends_when_a_sequence_is_scheduled():
    async def scenario():
        engine = make_engine(max_num_seqs=1)
        async with running(engine) as worker:
            first, second = (worker.run(sequences(worker)) for _ in range(2))
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
            with worker.run(sequences(worker)) as stream:
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
                await tokens_of(worker.run(sequences(worker)))
            assert caught.value.status == 504
            engine.run()
            await until(lambda: engine.aborted)

    asyncio.run(scenario())
