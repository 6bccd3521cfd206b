"""Every exchange of a test against two descriptions: OpenAI's own schemas, and `/openapi.json`.

`openai.json` holds the schemas of the main answers out of OpenAI's published OpenAPI document. An
answer has to fit both; a request that is answered with success has to fit ours.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema

from engines import __version__
from server.openapi import openapi_document

# Where OpenAI's own answers have null, though its schemas do not say so.
NULLS = (
    ("CreateCompletionResponse", "usage"),
    ("CreateCompletionResponse", "choices/[]/finish_reason"),
    ("CreateCompletionResponse", "choices/[]/logprobs/token_logprobs/[]"),
    ("CreateCompletionResponse", "choices/[]/logprobs/top_logprobs/[]"),
    ("Image", "revised_prompt"),
)


def _read_openai() -> dict[str, Any]:
    text = (Path(__file__).parent / "openai.json").read_text(encoding="utf-8")
    document = json.loads(text, object_hook=_with_null)
    schemas = document["components"]["schemas"]
    # OpenAI's models draw three sizes; which ones ours do is theirs to say.
    schemas["ImagesResponse"]["properties"]["size"].pop("enum")
    for name, path in NULLS:
        *steps, last = path.split("/")
        schema = schemas[name]
        for step in steps:
            schema = schema["items"] if step == "[]" else _property(schema, step)
        holder, key = (schema, "items") if last == "[]" else (schema["properties"], last)
        holder[key] = {"anyOf": [holder[key], {"type": "null"}]}
    return document


def _with_null(schema: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema has no `nullable`, which some of the schemas still use."""
    if schema.pop("nullable", False) is True:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def _property(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """A property's schema, of which one arm may be null."""
    found = schema["properties"][name]
    return next((arm for arm in found.get("anyOf", ()) if arm.get("type") != "null"), found)


OPENAI = _read_openai()
OURS = openapi_document(__version__)

# Route -> OpenAI's schema of the whole answer, and of an event of a stream.
OPENAI_ANSWERS = {
    "/v1/chat/completions": (
        "CreateChatCompletionResponse",
        "CreateChatCompletionStreamResponse",
    ),
    "/v1/completions": ("CreateCompletionResponse", "CreateCompletionResponse"),
    "/v1/models": ("ListModelsResponse", None),
    "/v1/models/{model_id}": ("Model", None),
    "/v1/images/generations": ("ImagesResponse", None),
    "/v1/images/edits": ("ImagesResponse", None),
    "/v1/images/variations": ("ImagesResponse", None),
    "/v1/responses": ("Response", "ResponseStreamEvent"),
}
# OpenAI's, for errors of any route; those of other vendors' routes have shapes of their own.
OTHER_ERRORS = frozenset({"/v1/messages", "/v1/messages/count_tokens"})


class SchemaViolation(AssertionError):
    """An exchange does not fit a schema."""


def check_exchange(
    method: str, path: str, request: bytes, status: int, content_type: str, answer: bytes
) -> None:
    """Hold one exchange against all schemas that describe it.

    Raises:
        SchemaViolation: It says what does not fit, and where.
    """
    route = find_route(method, path)
    if route is None:
        is_openais = path not in OTHER_ERRORS
        if is_openais and status >= 400 and content_type.startswith("application/json"):
            _check_openai("ErrorResponse", json.loads(answer), f"{method} {path}")
        return
    where = f"{method.upper()} {route}, status {status}"
    described = OURS["paths"][route][method.lower()]
    content = described["responses"].get(str(status), {}).get("content", {})
    if content_type.startswith("application/json"):
        body = json.loads(answer)
        _check_ours(content.get("application/json", {}).get("schema"), body, where)
        _check_openai(_openai_name(route, status, streams=False), body, where)
    elif content_type.startswith("text/event-stream"):
        for event in events_of(answer):
            data = content["text/event-stream"]["schema"]["properties"]["data"]
            schema = data.get("anyOf", [data])[-1]["contentSchema"]
            _check_event(route, schema, event, where)
    if 200 <= status < 300 and request[:1] == b"{":
        schema = described["requestBody"]["content"].get("application/json", {}).get("schema")
        _check_ours(schema, json.loads(request), f"the request of {where}")


def find_route(method: str, path: str) -> str | None:
    """The template of a path, such as `/v1/models/{model_id}`."""
    path = path.rstrip("/") or "/"
    for route, methods in OURS["paths"].items():
        # The id of a model may hold slashes.
        pattern = re.escape(route).replace(r"\{model_id\}", ".+")
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", pattern)
        if method.lower() in methods and re.fullmatch(pattern, path):
            return str(route)
    return None


def events_of(stream: bytes) -> Iterator[Any]:
    """The JSON of each event of a stream; one that was cut off is left out."""
    for block in stream.decode().split("\n\n")[:-1]:
        lines = [line[6:] for line in block.splitlines() if line.startswith("data: ")]
        if lines and lines != ["[DONE]"]:
            yield json.loads("\n".join(lines))


def _check_event(route: str, schema: dict[str, Any], event: Any, where: str) -> None:
    where = f"an event of {where}"
    if isinstance(event, dict) and "error" in event and event.get("type") in (None, "error"):
        _check_openai(None if route in OTHER_ERRORS else "ErrorResponse", event, where)
        return
    _check_ours(schema, event, where)
    _check_openai(_openai_name(route, 200, streams=True), event, where)


def _openai_name(route: str, status: int, *, streams: bool) -> str | None:
    if status >= 400:
        is_openais = route not in OTHER_ERRORS and not route.startswith(("/health", "/ready"))
        return "ErrorResponse" if is_openais else None
    return OPENAI_ANSWERS.get(route, (None, None))[streams]


def _check_openai(name: str | None, body: Any, where: str) -> None:
    if name is not None and name in OPENAI["components"]["schemas"]:
        _check(_openai_validator(name), body, f"{where}, does not fit OpenAI's {name}")


def _check_ours(schema: dict[str, Any] | None, body: Any, where: str) -> None:
    if schema is not None:
        _check(_our_validator(json.dumps(schema)), body, f"{where}, does not fit /openapi.json")


def _check(validator: Any, body: Any, what: str) -> None:
    error = jsonschema.exceptions.best_match(validator.iter_errors(body))
    if error is not None:
        shown = json.dumps(body)[:600]
        raise SchemaViolation(f"{what}: {error.message[:400]} at {error.json_path} of {shown}")


@functools.cache
def _openai_validator(name: str) -> Any:
    schema = {"$ref": f"#/components/schemas/{name}", "components": OPENAI["components"]}
    return jsonschema.Draft202012Validator(schema)


@functools.cache
def _our_validator(schema: str) -> Any:
    return jsonschema.Draft202012Validator(json.loads(schema) | {"components": OURS["components"]})
