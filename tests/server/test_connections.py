"""Clients that leave or read slowly, engines that fail: the app is driven as a server drives it."""

import asyncio
import json

import pytest

from server import worker
from server.answer import Delta
from server.routes.answering import by_choice
from tests.schemas.recording import CheckedApp
from tests.server.apps import tiny_engine, tiny_model, tiny_text
from tests.server.conversation import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    chunks,
    joined,
    post,
    said,
    with_app,
)
from tests.server.workers import until

BODIES = {
    "streamed chat": (CHAT_PATH, said({"stream": True})),
    "whole chat": (CHAT_PATH, said({})),
    "streamed completion": (COMPLETIONS_PATH, {"prompt": "a", "stream": True}),
    "whole completion": (COMPLETIONS_PATH, {"prompt": ["a", "b"], "n": 2}),
}


class Connection:
    """One request of a client that can stop reading and hang up."""

    def __init__(self, app, path, body):
        self.messages = []
        self.reads = asyncio.Event()
        self.reads.set()
        self._incoming = asyncio.Queue()
        content = json.dumps({"model": "tiny"} | body).encode()
        self._incoming.put_nowait({"type": "http.request", "body": content, "more_body": False})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
        ]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": headers,
        }
        checked = CheckedApp(app)
        self.task = asyncio.create_task(checked(scope, self._incoming.get, self._send))

    async def _send(self, message):
        await self.reads.wait()
        self.messages.append(message)

    def hang_up(self):
        self._incoming.put_nowait({"type": "http.disconnect"})

    @property
    def status(self):
        return self.messages[0]["status"] if self.messages else None

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def events(self):
        lines = self.body.decode().split("\n\n")
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("num_prefill_steps", [0, 100])
def test_a_client_that_leaves_frees_its_place_at_the_next_step(body, num_prefill_steps):
    engine = tiny_engine("a" * 100, num_prefill_steps=num_prefill_steps)
    model = tiny_model(engine)

    async def scenario(app):
        engine.hold()
        connection = Connection(app, *body)
        await until(lambda: engine.added)
        engine.release()
        await until(lambda: engine.num_steps == 1)
        connection.hang_up()
        await until(lambda: model.worker.num_running == 0)
        engine.release()
        await until(lambda: len(engine.aborted) == len(engine.added))
        assert not engine.has_work
        assert engine.num_steps <= 2
        await asyncio.wait_for(connection.task, 10)

    with_app(model, scenario)


def test_a_request_of_a_client_that_left_is_logged_as_aborted(caplog):
    engine = tiny_engine("a" * 100)
    model = tiny_model(engine)

    async def scenario(app):
        engine.hold()
        connection = Connection(app, *BODIES["whole chat"])
        await until(lambda: engine.added)
        connection.hang_up()
        await asyncio.wait_for(connection.task, 10)

    with caplog.at_level("INFO", logger="server.observe"):
        with_app(model, scenario)
    assert "finish_reason=abort" in caplog.text
    assert "status=499" in caplog.text


def test_a_stop_string_frees_its_place_at_once():
    engine = tiny_engine("one <end>" + "x" * 100)
    model = tiny_model(engine)
    num_steps = len(tiny_text().tokenizer.encode("one <end>"))

    async def scenario(app):
        engine.hold()
        connection = Connection(app, CHAT_PATH, said({"stream": True, "stop": "<end>"}))
        engine.release(num_steps)
        await asyncio.wait_for(connection.task, 10)
        assert joined(connection.events) == "one "
        engine.release()
        await until(lambda: engine.aborted)
        assert not engine.has_work
        assert engine.num_steps <= num_steps + 1

    with_app(model, scenario)


def test_a_client_that_waits_for_a_long_prompt_is_pinged(monkeypatch):
    monkeypatch.setattr(worker, "TICK_S", 0.01)
    engine = tiny_engine("a")
    model = tiny_model(engine)

    async def scenario(app):
        engine.hold()
        connection = Connection(app, *BODIES["streamed chat"])
        await until(lambda: connection.body.startswith(b": ping\n\n: ping\n\n"))
        engine.run()
        await asyncio.wait_for(connection.task, 10)
        assert joined(connection.events) == "a"

    with_app(model, scenario)


def test_every_step_is_an_event_for_a_client_that_keeps_up():
    engine = tiny_engine("é你")
    model = tiny_model(engine)

    async def scenario(app):
        engine.hold()
        connection = Connection(app, *BODIES["streamed chat"])
        for num_steps, text in enumerate(["", "é", "é", "é", "é你"], start=1):
            engine.release()
            await until(lambda num_steps=num_steps: engine.num_steps == num_steps)
            await until(lambda text=text: joined(connection.events) == text)

    with_app(model, scenario)


def test_a_client_that_does_not_read_holds_up_nobody():
    engine = tiny_engine("ab " * 30)
    model = tiny_model(engine)

    async def scenario(app):
        slow = Connection(app, *BODIES["streamed chat"])
        slow.reads.clear()
        quick = Connection(app, *BODIES["streamed chat"])
        await asyncio.wait_for(quick.task, 10)
        await until(lambda: model.worker.num_running == 0)
        assert joined(quick.events) == "ab " * 30
        slow.reads.set()
        await asyncio.wait_for(slow.task, 10)
        assert joined(slow.events) == "ab " * 30
        assert len(slow.events) < 60, "what it missed came in larger pieces"

    with_app(model, scenario)


def test_a_full_queue_is_a_429_that_says_when_to_come_back():
    engine = tiny_engine("a", max_num_seqs=1)
    model = tiny_model(engine, max_queue_size=0)

    async def scenario(app):
        engine.hold()
        first = Connection(app, *BODIES["whole chat"])
        await until(lambda: engine.added)
        second = Connection(app, *BODIES["streamed chat"])
        await asyncio.wait_for(second.task, 10)
        assert second.status == 429
        assert (b"retry-after", b"1") in second.messages[0]["headers"]
        assert json.loads(second.body)["error"]["code"] == "rate_limit_exceeded"
        engine.run()
        await asyncio.wait_for(first.task, 10)
        assert first.status == 200

    with_app(model, scenario)


def test_a_failure_in_mid_stream_travels_as_an_event_that_tells_nothing_of_the_inside(caplog):
    engine = tiny_engine("abc")
    model = tiny_model(engine)

    async def scenario(app):
        engine.hold()
        connection = Connection(app, *BODIES["streamed chat"])
        engine.release()
        await until(lambda: connection.events)
        engine.failure = RuntimeError("boom in the inside")
        engine.run()
        await asyncio.wait_for(connection.task, 10)
        *_, error = connection.events
        assert error["error"]["type"] == "server_error"
        assert b"inside" not in connection.body
        assert connection.body.endswith(b"data: [DONE]\n\n")

    with_app(model, scenario)
    assert "boom in the inside" in caplog.text


def test_a_failure_before_a_whole_answer_is_a_500_and_the_next_request_a_503():
    engine = tiny_engine("abc")
    engine.failure = RuntimeError("boom in the inside")
    first, second = post(CHAT_PATH, said({}), said({}), model=tiny_model(engine))
    assert (first.status_code, second.status_code) == (500, 503)
    assert first.json()["error"]["type"] == "server_error"
    assert "inside" not in first.text


def test_a_proxy_is_told_not_to_collect_a_stream():
    response = post(CHAT_PATH, said({"stream": True}))
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert chunks(response)


def test_deltas_are_sorted_by_choice():
    deltas = [Delta(1, "c", None, ()), Delta(0, "a", None, ()), Delta(1, "d", "stop", ())]
    assert by_choice(deltas) == [(0, [deltas[1]]), (1, [deltas[0], deltas[2]])]
