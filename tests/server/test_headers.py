"""Headers that clients read: ids, times, and how full the queue is."""

from __future__ import annotations

import asyncio

import pytest

from tests.server.apps import http_client, tiny_engine, tiny_model
from tests.server.conversation import CHAT_PATH, post, said, with_app

LIMIT, LEFT, RESET = (f"x-ratelimit-{name}-requests" for name in ("limit", "remaining", "reset"))


@pytest.mark.parametrize("is_streamed", [False, True])
def test_an_answer_says_how_long_it_took_and_how_full_the_queue_is(is_streamed):
    model = tiny_model(tiny_engine(max_num_seqs=2), max_queue_size=3)
    headers = post(CHAT_PATH, said({"stream": is_streamed}), model=model).headers
    assert int(headers["openai-processing-ms"]) >= 0
    assert headers["x-request-id"].startswith("req-")
    assert headers[LIMIT] == "5"
    assert headers[LEFT] == ("4" if is_streamed else "5")
    assert headers[RESET] == "0s"


def test_a_full_queue_says_when_to_come_again():
    model = tiny_model(tiny_engine(max_num_seqs=1), max_queue_size=1)
    model.worker._engine.hold()

    async def scenario(app):
        body = said({"model": "tiny"})
        async with http_client(app) as client:
            waiting = [asyncio.create_task(client.post(CHAT_PATH, json=body)) for _ in range(2)]
            while model.worker.num_waiting < 1:
                await asyncio.sleep(0.001)
            refused = await client.post(CHAT_PATH, json=body)
            model.worker._engine.run()
            assert [(await task).status_code for task in waiting] == [200, 200]
            return refused

    refused = with_app(model, scenario)
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["retry-after-ms"] == "1000"
    assert refused.headers[LEFT] == "0"
    assert refused.headers[RESET] == "1s"


def test_routes_without_a_model_tell_of_no_queue():
    response = post("/v1/chat/completions", {"model": "other", "messages": []})
    assert response.status_code == 400
    assert LIMIT not in response.headers
    assert "openai-processing-ms" in response.headers


@pytest.mark.parametrize(
    ("given", "is_kept"), [("my-id_1", True), ("a b", False), ("x" * 200, False)]
)
def test_a_clients_id_is_kept_if_it_is_safe(given, is_kept):
    async def scenario(app):
        async with http_client(app) as client:
            body = said({"model": "tiny"})
            return await client.post(CHAT_PATH, json=body, headers={"X-Request-Id": given})

    response = with_app(tiny_model(), scenario)
    assert (response.headers["x-request-id"] == given) == is_kept
