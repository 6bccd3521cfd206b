"""Which answer each failure becomes."""

from __future__ import annotations

from typing import Annotated

import falcon
import msgspec
import pytest

from engines.errors import (
    ContextLengthExceeded,
    EngineCorrupt,
    InvalidRequest,
    QueueFull,
    RunFailed,
)
from server.errors import (
    ApiError,
    ModelNotFound,
    ServerUnavailable,
    is_unexpected,
    to_api_error,
)


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1)]


class Body(msgspec.Struct):
    name: str
    items: list[Inner] = []
    weights: dict[str, float] = {}


def answer(error):
    found = to_api_error(error)
    return (found.status, found.type, found.param, found.code)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidRequest("no", "top_p"), (400, "invalid_request_error", "top_p", "invalid_value")),
        (
            ContextLengthExceeded("long", "messages"),
            (400, "invalid_request_error", "messages", "context_length_exceeded"),
        ),
        (QueueFull("full"), (429, "rate_limit_error", None, "rate_limit_exceeded")),
        (RunFailed("flux"), (500, "server_error", None, "internal_error")),
        (EngineCorrupt("flux"), (500, "server_error", None, "internal_error")),
        (KeyError("flux"), (500, "server_error", None, "internal_error")),
        (ModelNotFound("none"), (404, "invalid_request_error", "model", "model_not_found")),
        (ServerUnavailable("later"), (503, "server_error", None, "service_unavailable")),
        (falcon.HTTPNotFound(), (404, "invalid_request_error", None, "not_found")),
        (falcon.HTTPServiceUnavailable(), (503, "server_error", None, None)),
    ],
)
def test_each_failure_has_its_status_type_param_and_code(error, expected):
    assert answer(error) == expected


@pytest.mark.parametrize("error", [RunFailed("flux"), EngineCorrupt("flux"), KeyError("flux")])
def test_what_is_not_the_clients_doing_tells_nothing_and_is_logged(error):
    assert "flux" not in to_api_error(error).message
    assert is_unexpected(error)


@pytest.mark.parametrize(
    "error",
    [QueueFull("full"), ModelNotFound("none"), falcon.HTTPNotFound(), msgspec.DecodeError("x")],
)
def test_what_clients_do_is_no_matter_for_the_log(error):
    assert not is_unexpected(error)


@pytest.mark.parametrize("error", [QueueFull("full"), ServerUnavailable("later")])
def test_whoever_is_to_come_back_hears_when(error):
    assert int(to_api_error(error).headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("body", "param", "part"),
    [
        (b'{"name": 1}', "name", "name: Expected `str`, got `int`"),
        (b"{}", "name", "missing required field `name`"),
        (b'{"name": "", "items": [{}]}', "items[0].size", "missing required field `size`"),
        (b'{"name": "", "items": [{"size": 0}]}', "items[0].size", "Expected `int` >= 1"),
        (b'{"name": "", "items": [{"size": 1, "x": 2}]}', "items[0].x", "unknown field `x`"),
        (b'{"name": "", "weights": {"a": "b"}}', "weights", "Expected `float`"),
        (b"[]", None, "Expected `object`, got `array`"),
    ],
)
def test_a_body_that_does_not_fit_names_the_field(body, param, part):
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.json.decode(body, type=Body)
    found = to_api_error(raised.value)
    assert (found.status, found.param) == (400, param)
    assert part in found.message


def test_the_body_of_an_error_is_openais():
    error = ApiError(400, "top_p is 2", param="top_p", code="invalid_value")
    assert msgspec.to_builtins(error.response()) == {
        "error": {
            "message": "top_p is 2",
            "type": "invalid_request_error",
            "param": "top_p",
            "code": "invalid_value",
        }
    }
