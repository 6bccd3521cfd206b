"""Streams of pictures, clients that leave, full queues, and what is counted and logged of it."""

from __future__ import annotations

import asyncio
import json
import logging

import numpy as np
import pytest

from engines.errors import RunFailed
from tests.server.apps import http_client
from tests.server.images.apps import (
    EDITS,
    GENERATIONS,
    ask,
    draw,
    events,
    gradient,
    image_engine,
    image_model,
    image_spec,
    opened,
    pixels,
    png,
    upload,
    with_images,
)
from tests.server.test_connections import Connection
from tests.server.workers import until

BODY = {"model": "painter", "prompt": "a red circle", "seed": 3}


def stream(body, model=None):
    (response,) = ask(GENERATIONS, BODY | {"stream": True} | body, models=(model or image_model(),))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return response


def test_a_stream_shows_the_picture_as_it_comes_to_be_and_then_whole():
    whole = draw({"num_inference_steps": 8})
    *partial, completed = events(stream({"num_inference_steps": 8, "partial_images": 3}))
    assert [event["type"] for event in partial] == ["image_generation.partial_image"] * 3
    assert [event["partial_image_index"] for event in partial] == [0, 1, 2]
    assert completed["type"] == "image_generation.completed"
    assert completed["b64_json"] == whole["data"][0]["b64_json"]
    assert completed["usage"] == whole["usage"]
    common = {"created_at", "size", "quality", "background", "output_format", "b64_json", "type"}
    for event in partial:
        assert event.keys() == common | {"partial_image_index", "index"}
    assert completed.keys() == common | {"usage", "index"}
    for event in (*partial, completed):
        assert (event["size"], event["background"]) == ("8x8", "opaque")
        assert (event["output_format"], event["quality"]) == ("png", "high")
    pictures = [pixels(event["b64_json"]).astype(int) for event in partial]
    final = pixels(completed["b64_json"]).astype(int)
    distances = [np.abs(picture - final).mean() for picture in pictures]
    assert distances[0] > distances[-1] > 0, "each preview is nearer to the picture"


@pytest.mark.parametrize(
    ("num_steps", "asked", "expected"), [(8, 0, 0), (8, 1, 1), (2, 3, 1), (1, 3, 0)]
)
def test_there_are_no_more_previews_than_steps_before_the_last(num_steps, asked, expected):
    found = events(stream({"num_inference_steps": num_steps, "partial_images": asked}))
    assert len(found) == expected + 1


def test_every_step_is_told_in_a_comment():
    text = stream({"num_inference_steps": 3}).text
    steps = [line for line in text.splitlines() if line.startswith(": picture")]
    assert steps == [f": picture 0, step {step} of 3" for step in (1, 2, 3)]


def test_a_stream_of_several_pictures_says_which_one_each_event_is_of():
    found = events(stream({"n": 2, "partial_images": 1}))
    alone = [draw({"seed": 3 + i})["data"][0]["b64_json"] for i in range(2)]
    completed = {e["index"]: e for e in found if e["type"].endswith("completed")}
    assert [completed[index]["b64_json"] for index in (0, 1)] == alone
    assert completed[0]["usage"]["output_tokens"] == 16
    assert sorted(e["index"] for e in found if e["type"].endswith("partial_image")) == [0, 1]


def test_an_edit_is_streamed_with_events_of_its_own():
    fields = {"prompt": "sea", "stream": "true", "partial_images": "2", "seed": "1"}
    response = upload(EDITS, fields | {"num_inference_steps": "9"}, image_model(image_engine()))
    *partial, completed = events(response)
    assert [event["type"] for event in partial] == ["image_edit.partial_image"] * 2
    assert completed["type"] == "image_edit.completed"
    assert completed["usage"]["input_tokens_details"] == {"text_tokens": 1, "image_tokens": 16}
    assert opened(partial[0]["b64_json"]).size == (8, 8)


def test_a_failure_in_mid_stream_travels_as_an_event_that_tells_nothing_of_the_inside(caplog):
    engine = image_engine()

    async def scenario(app):
        engine.hold()
        connection = Connection(app, GENERATIONS, BODY | {"stream": True, "partial_images": 1})
        engine.release(2)
        await until(lambda: b"step 1" in connection.body)
        engine.failure = RunFailed("the inside is on fire")
        engine.run()
        await asyncio.wait_for(connection.task, 10)
        assert connection.status == 200
        *_, last = events(connection.body)
        assert last["error"]["type"] == "server_error"
        assert b"fire" not in connection.body

    with_images(scenario, image_model(engine))
    assert "the inside is on fire" in caplog.text


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("num_steps", [1, 3])
def test_a_client_that_leaves_frees_its_places_at_the_next_step(streamed, num_steps):
    engine = image_engine(image_spec(default_num_inference_steps=100))
    model = image_model(engine)

    async def scenario(app):
        engine.hold()
        connection = Connection(app, GENERATIONS, BODY | {"stream": streamed, "n": 2})
        await until(lambda: len(engine.added) == 2)
        engine.release(num_steps)
        await until(lambda: engine.num_calls == num_steps)
        connection.hang_up()
        await until(lambda: model.worker.num_running == 0)
        engine.release()
        await until(lambda: len(engine.aborted) == 2)
        assert not engine.has_work
        assert engine.num_calls <= num_steps + 1
        await asyncio.wait_for(connection.task, 10)

    with_images(scenario, model)


def test_requests_of_several_clients_are_drawn_in_the_same_steps():
    engine = image_engine()
    model = image_model(engine)

    async def scenario(app):
        engine.hold()
        connections = [
            Connection(app, GENERATIONS, BODY | {"seed": seed, "num_inference_steps": steps})
            for seed, steps in ((1, 4), (2, 9), (3, 6))
        ]
        await until(lambda: model.worker.num_running == 3)
        engine.run()
        await asyncio.gather(*(connection.task for connection in connections))
        return [json.loads(connection.body)["data"][0] for connection in connections]

    together = with_images(scenario, model)
    assert engine.stats().num_steps <= 10
    alone = [
        draw({"seed": seed, "num_inference_steps": steps})["data"][0]
        for seed, steps in ((1, 4), (2, 9), (3, 6))
    ]
    assert together == alone


def test_a_full_queue_is_a_429_that_says_when_to_come_back():
    engine = image_engine(max_num_images=1)
    model = image_model(engine, max_queue_size=1)

    async def scenario(app):
        engine.hold()
        first = Connection(app, GENERATIONS, BODY | {"n": 2})
        await until(lambda: len(engine.added) == 2)
        second = Connection(app, GENERATIONS, BODY | {"stream": True})
        await asyncio.wait_for(second.task, 10)
        assert second.status == 429
        assert (b"retry-after", b"1") in second.messages[0]["headers"]
        error = json.loads(second.body)["error"]
        assert error["message"].startswith(
            "the queue of 'painter' is full: 1 pictures wait and 1 are being drawn"
        )
        engine.run()
        await asyncio.wait_for(first.task, 10)
        assert first.status == 200

    with_images(scenario, model)


def test_a_slow_reader_holds_up_nobody():
    model = image_model(image_engine())

    async def scenario(app):
        slow = Connection(app, GENERATIONS, BODY | {"stream": True, "partial_images": 3})
        slow.reads.clear()
        quick = Connection(app, GENERATIONS, BODY | {"stream": True})
        await asyncio.wait_for(quick.task, 10)
        slow.reads.set()
        await asyncio.wait_for(slow.task, 10)
        assert events(slow.body)[-1]["b64_json"] == events(quick.body)[-1]["b64_json"]

    with_images(scenario, model)


async def metrics(app):
    async with http_client(app) as client:
        page = (await client.get("/metrics")).text
    lines = (line.rpartition(" ") for line in page.splitlines() if "painter" in line)
    return {name.removeprefix("enginery_"): float(value) for name, _, value in lines}


def test_steps_pictures_and_what_is_left_are_counted():
    engine = image_engine(max_num_images=2)
    model = image_model(engine)
    label = '{model_name="painter"}'

    async def scenario(app):
        engine.hold()
        connection = Connection(app, GENERATIONS, BODY | {"n": 3, "num_inference_steps": 6})
        await until(lambda: len(engine.added) == 3)
        engine.release(2)
        await until(lambda: model.worker.num_steps_left == 8)
        during = await metrics(app)
        assert during[f"num_requests_running{label}"] == 2
        assert during[f"num_requests_waiting{label}"] == 1
        assert during[f"denoising_steps_left{label}"] == 8
        assert during[f"denoising_steps_total{label}"] == 2
        assert during[f"denoising_rows_total{label}"] == 8
        engine.run()
        await asyncio.wait_for(connection.task, 10)
        after = await metrics(app)
        assert after[f"images_total{label}"] == 3
        assert after[f"denoising_steps_left{label}"] == 0
        assert after[f"denoising_step_seconds_count{label}"] == 5
        assert after[f"request_queue_time_seconds_count{label}"] == 1
        assert after['request_success_total{finish_reason="stop",model_name="painter"}'] == 1

    with_images(scenario, model)


def test_a_request_is_one_line_in_the_log_and_its_steps_are_there_for_those_who_look(caplog):
    with caplog.at_level(logging.DEBUG, logger="server.observe"):
        draw({"n": 2, "num_inference_steps": 3})
    lines = [record.getMessage() for record in caplog.records]
    (line,) = [line for line in lines if f"route={GENERATIONS}" in line]
    for field in ("status=200", "model=painter", "prompt_tokens=3", "images=2", "steps=6"):
        assert f" {field} " in line
    assert "output_tokens" not in line
    assert "finish_reason=stop" in line
    assert [line.partition(": ")[2] for line in lines if "picture 1" in line] == [
        f"picture 1, step {step} of 3" for step in (1, 2, 3)
    ]


def test_a_client_that_left_is_logged_as_such(caplog):
    engine = image_engine()

    async def scenario(app):
        engine.hold()
        connection = Connection(app, GENERATIONS, BODY)
        await until(lambda: engine.added)
        connection.hang_up()
        await asyncio.wait_for(connection.task, 10)

    with caplog.at_level("INFO", logger="server.observe"):
        with_images(scenario, image_model(engine))
    assert "finish_reason=abort" in caplog.text
    assert "status=499" in caplog.text
    assert "images=0" in caplog.text


def test_pictures_are_encoded_and_decoded_off_the_event_loop_and_the_engines_thread(monkeypatch):
    import threading

    from server.images import generation
    from server.routes import images

    names = set()

    def noting(function):
        def noted(*args, **kwargs):
            names.add((function.__name__, threading.current_thread().name.partition("_")[0]))
            return function(*args, **kwargs)

        return noted

    monkeypatch.setattr(generation, "encode_picture", noting(generation.encode_picture))
    for name in ("check_upload", "read_picture", "read_mask"):
        monkeypatch.setattr(images, name, noting(getattr(images, name)))
    files = {"image": png(gradient()), "mask": png(gradient())}
    assert upload(EDITS, {"prompt": "sea"}, files=files).status_code == 200
    assert names == {
        (name, "pictures")
        for name in ("encode_picture", "check_upload", "read_picture", "read_mask")
    }
