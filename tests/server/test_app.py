"""What every route does alike: errors as OpenAI objects, limits, request ids, one log line."""

from __future__ import annotations

import json
import logging

import pytest

from engines.errors import RunFailed
from server.text.processor import TextProcessor
from tests.server.apps import CHAT, chat, client, tiny_engine, tiny_model
from tests.server.fakes import served_model, write_text_files

JSON = {"Content-Type": "application/json"}


def error_of(result, status):
    assert result.status_code == status
    assert result.headers["content-type"] == "application/json"
    body = json.loads(result.text)
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return body["error"]


def test_an_unknown_route_is_a_404():
    error = error_of(client().simulate_get("/v2/models"), 404)
    assert (error["type"], error["code"]) == ("invalid_request_error", "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/chat/completions"), ("POST", "/v1/models"), ("DELETE", "/health")],
)
def test_a_wrong_method_is_a_405_that_names_the_right_one(method, path):
    result = client().simulate_request(method, path)
    error = error_of(result, 405)
    assert error["code"] == "method_not_allowed"
    assert result.headers["allow"] in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model": "tiny",}',
        b"\xff\xfe",
        b"NaN",
        b"[" * 100_000,
        b'{"a": ' * 100_000,
    ],
)
def test_a_body_that_is_not_json_is_a_400(body):
    result = client().simulate_post("/v1/chat/completions", body=body, headers=JSON)
    error = error_of(result, 400)
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_json")


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"3"])
def test_json_that_is_no_object_is_a_400(body):
    result = client().simulate_post("/v1/chat/completions", body=body, headers=JSON)
    assert "object" in error_of(result, 400)["message"]


def test_a_field_that_does_not_fit_is_named():
    messages = [{"role": "user", "content": 3}]
    result = client().simulate_post("/v1/chat/completions", json=CHAT | {"messages": messages})
    assert error_of(result, 400)["param"] == "messages[0].content"


def test_another_media_type_is_a_415():
    result = client().simulate_post(
        "/v1/chat/completions", body=b"a=1", content_type="application/x-www-form-urlencoded"
    )
    assert "application/json" in error_of(result, 415)["message"]


def test_json_needs_no_media_type():
    result = client().simulate_post("/v1/chat/completions", body=b"{")
    assert error_of(result, 400)["code"] == "invalid_json"


@pytest.mark.parametrize("headers", [JSON, JSON | {"Content-Length": "5000"}])
def test_a_body_over_the_limit_is_a_413(headers):
    body = b'{"model": "' + b"x" * 5000
    result = client(max_body_size=4096).simulate_post(
        "/v1/chat/completions", body=body, headers=headers
    )
    error = error_of(result, 413)
    assert error["code"] == "request_too_large"
    assert "4096" in error["message"]


class FaultyText(TextProcessor):
    """Fails at its first prompt in a way that nobody foresaw."""

    has_failed = False

    def encode_chat(self, *args, **kwargs):
        if not self.has_failed:
            self.has_failed = True
            raise ZeroDivisionError("secret of the house")
        return super().encode_chat(*args, **kwargs)


def test_an_unexpected_failure_tells_nothing_and_the_next_request_works(caplog, tmp_path):
    text = FaultyText.load(write_text_files(tmp_path))
    result, following = chat(CHAT, CHAT, models=[served_model(text, tiny_engine())])
    error = error_of(result, 500)
    assert error["type"] == "server_error"
    assert "secret" not in result.text
    assert "ZeroDivision" not in result.text
    logged = next(record for record in caplog.records if record.exc_info)
    assert "secret of the house" in str(logged.exc_info[1])
    assert result.headers["x-request-id"] in logged.getMessage()
    assert following.status_code == 200


def test_a_failed_engine_is_a_500_and_then_a_503():
    engine = tiny_engine()
    engine.failure = RunFailed("the flux has run out")
    result, following = chat(CHAT, CHAT, models=[tiny_model(engine)])
    assert error_of(result, 500)["type"] == "server_error"
    assert "flux" not in result.text
    assert error_of(following, 503)["type"] == "server_error"


def test_a_trailing_slash_changes_nothing():
    assert client().simulate_get("/v1/models/").status_code == 200


def test_a_sane_request_id_comes_back_and_any_other_is_replaced():
    app = client()
    result = app.simulate_get("/v1/models", headers={"X-Request-Id": "trace-1:a/b.c_d+e="})
    assert result.headers["x-request-id"] == "trace-1:a/b.c_d+e="
    made = set()
    for wrong in ("", "x" * 129, "a b", "é", 'a"b', "a;b"):
        result = app.simulate_get("/v1/models", headers={"X-Request-Id": wrong})
        made.add(result.headers["x-request-id"])
        assert result.headers["x-request-id"].startswith("req-")
    assert len(made) == 6


@pytest.mark.parametrize("path", ["/v1/models", "/nope", "/health"])
def test_every_answer_has_a_request_id(path):
    assert client(api_keys=["k"]).simulate_get(path).headers["x-request-id"].startswith("req-")


def lines_of(caplog):
    return [record.fields for record in caplog.records if record.name == "server.observe"]


def test_a_request_is_one_line_with_its_tokens_and_times(caplog):
    caplog.set_level(logging.INFO)
    (result,) = chat(CHAT)
    answer = result.json()
    (line,) = lines_of(caplog)
    assert line["id"] == result.headers["x-request-id"]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (line["model"], line["finish_reason"]) == (
        "tiny",
        answer["choices"][0]["finish_reason"],
    )
    usage = answer["usage"]
    assert line["prompt_tokens"] == usage["prompt_tokens"]
    assert line["output_tokens"] == usage["completion_tokens"]
    assert line["cached_tokens"] == usage["prompt_tokens_details"]["cached_tokens"] == 1
    assert 0 <= line["ttft_ms"] <= line["duration_ms"]


def test_a_streamed_request_is_one_line_too(caplog):
    caplog.set_level(logging.INFO)
    chat(CHAT | {"stream": True})
    (line,) = lines_of(caplog)
    assert (line["status"], line["output_tokens"]) == (200, 4)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/models", 200), ("GET", "/a%0Ab", 404), ("POST", "/v1/models", 405)],
)
def test_a_request_without_a_model_is_one_line_in_the_log(caplog, method, path, status):
    caplog.set_level(logging.INFO)
    client().simulate_request(method, path)
    (line,) = lines_of(caplog)
    assert line["status"] == status
    assert "model" not in line
    assert "\n" not in caplog.records[-1].getMessage()


def test_a_refused_request_is_logged_with_its_model_and_status(caplog):
    caplog.set_level(logging.INFO)
    client().simulate_post("/v1/chat/completions", json=CHAT | {"temperature": -1})
    client().simulate_post("/v1/chat/completions", json=CHAT | {"model": "other"})
    assert [line["status"] for line in lines_of(caplog)] == [400, 404]


def test_probes_that_succeed_are_lines_for_debugging_only(caplog):
    caplog.set_level(logging.DEBUG)
    app = client()
    for path in ("/health", "/ready", "/metrics"):
        app.simulate_get(path)
    levels = {record.levelname for record in caplog.records if record.name == "server.observe"}
    assert levels == {"DEBUG"}
