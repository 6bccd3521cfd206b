"""The checks of exchanges find what does not fit, and let pass what does."""

from __future__ import annotations

import json
import re

import pytest

from tests.schemas.checked_server import VIOLATION
from tests.schemas.exchanges import SchemaViolation, check_exchange, find_route
from tests.server.apps import CHAT, chat
from tests.server_process import ROOT, ServerProcess

PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def answer():
    (response,) = chat(CHAT)
    return response.json()


def check(request, answer, *, status=200, content_type="application/json", path=PATH):
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    check_exchange("POST", path, json.dumps(request).encode(), status, content_type, body)


def test_what_fits_passes(answer):
    check(CHAT, answer)


@pytest.mark.parametrize("field", ["choices", "created", "id", "model", "object"])
def test_an_answer_without_a_field_of_openai_s_does_not_fit(answer, field):
    with pytest.raises(SchemaViolation, match=field):
        check(CHAT, {name: value for name, value in answer.items() if name != field})


def test_a_finish_reason_that_openai_does_not_know_does_not_fit(answer):
    choice = answer["choices"][0] | {"finish_reason": "tired"}
    with pytest.raises(SchemaViolation, match="tired"):
        check(CHAT, answer | {"choices": [choice]})


def test_a_request_that_is_described_as_wrong_and_accepted_does_not_fit(answer):
    with pytest.raises(SchemaViolation, match="the request of POST"):
        check(CHAT | {"temperature": -1}, answer)


def test_an_event_of_a_stream_has_to_fit_by_itself(answer):
    stream = b"data: " + json.dumps(answer).encode() + b"\n\ndata: [DONE]\n\n"
    with pytest.raises(SchemaViolation, match="an event of POST"):
        check(CHAT, stream, content_type="text/event-stream")
    error = {"error": {"message": "x", "type": "server_error", "param": None, "code": None}}
    check(CHAT, b"data: " + json.dumps(error).encode() + b"\n\n", content_type="text/event-stream")


@pytest.mark.parametrize("error", [{}, {"error": {"message": "x"}}, {"error": "x"}])
def test_an_error_has_openai_s_form_on_every_route(error):
    for path in (PATH, "/nowhere"):
        with pytest.raises(SchemaViolation):
            check(CHAT, error, status=400, path=path)


def test_paths_are_found_by_their_templates():
    assert find_route("GET", "/v1/models/a/b") == "/v1/models/{model_id}"
    assert find_route("GET", "/v1/responses/x/input_items") == (
        "/v1/responses/{response_id}/input_items"
    )
    assert find_route("POST", "/v1/models") is None
    assert find_route("GET", "/v1/models/") == "/v1/models"


def test_a_server_that_breaks_a_schema_fails_the_test_that_used_it():
    process = ServerProcess([], module="tests.schemas.failing_server")
    with process.client() as client:
        assert client.get("/v1/models").status_code == 200
    process.stop()
    with pytest.raises(SchemaViolation, match="'data' is a required property"):
        process.check_schemas()
    assert any(line.startswith(VIOLATION) for line in process.log)


def test_no_test_talks_to_the_server_past_the_schemas():
    """Where one has to, it is named here with the reason."""
    ways = re.compile(r'TestClient\(.*|ASGITransport\((?!CheckedApp).*|module="server".*')
    found = {
        (path.name, line.strip())
        for folder in ("server", "clients")
        for path in (ROOT / "tests" / folder).rglob("*.py")
        for line in ways.findall(path.read_text(encoding="utf-8"))
    }
    assert found == {
        ("test_schemathesis.py", 'module="server") as process:'),  # which checks by itself
    }
