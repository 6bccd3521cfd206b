"""`/openapi.json`: the OpenAPI document, from the Structs of the wire and a table of routes."""

from __future__ import annotations

from collections.abc import Sequence
from types import UnionType
from typing import Any, get_args

import msgspec

from server.operations import JSON, OPERATIONS, Operation
from server.schema.tools import QwenFunction

_EVENTS = "text/event-stream"
_FORM = "multipart/form-data"
_PATHS = frozenset(operation.path for operation in OPERATIONS)
_HEADERS = {
    "X-Request-Id": "Of the log; the client's own if it is safe",
    "OpenAI-Processing-Ms": "Milliseconds until the answer began",
}
_RETRY_HEADERS = {
    "Retry-After": "Seconds until another try",
    "Retry-After-Ms": "The same in milliseconds",
}
_QUEUE_HEADERS = {
    "X-RateLimit-Limit-Requests": "Answers that run or wait for the model, at most",
    "X-RateLimit-Remaining-Requests": "Those that it has room for",
    "X-RateLimit-Reset-Requests": "0s while nothing waits",
}
_SCHEMA = "#/components/schemas/{name}"


_ANSWERS_503_ITSELF = frozenset({"/health", "/ready"})
_REASONS = {
    400: "A field is missing or has a value that is not accepted",
    401: "The API key is missing or wrong",
    404: "What the request names does not exist",
    413: "The body is too large",
    415: "The body is of another type",
    429: "The queue is full; try again after Retry-After seconds",
    500: "The server failed",
    503: "The server is shutting down or an engine has stopped",
    504: "The answer took longer than the server allows",
}


def openapi_document(version: str, operations: Sequence[Operation] = OPERATIONS) -> dict[str, Any]:
    """Describe the API in OpenAPI 3.1."""
    structs: list[type[msgspec.Struct]] = [QwenFunction]
    for operation in operations:
        structs += filter(
            None, (operation.error, operation.request, operation.response, *_events(operation))
        )
    _, schemas = msgspec.json.schema_components(list(dict.fromkeys(structs)), ref_template=_SCHEMA)
    _describe_other_forms(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _describe(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Enginery", "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _describe_other_forms(schemas: dict[str, Any]) -> None:
    """What is put into the form of a Struct before it is decoded."""
    schemas["MessageItem"]["required"].remove("type")
    functions = schemas["ChatCompletionRequest"]["properties"]["functions"]
    items = next(arm for arm in functions["anyOf"] if arm.get("type") == "array")
    items["items"] = {"anyOf": [items["items"], _reference(QwenFunction)]}


def _describe(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _operation_id(operation),
        "summary": operation.summary,
        "responses": _responses(operation),
        # Without configured keys nothing is needed, so that is one of the choices.
        "security": [{"bearer": []}, {"basic": []}, {}] if operation.needs_key else [],
    }
    if parameters := _parameters(operation):
        described["parameters"] = parameters
    if operation.request is not None:
        described["requestBody"] = {"required": True, "content": _request(operation)}
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    if operation.query is None:
        return in_path
    (schema,) = msgspec.json.schema_components([operation.query])[1].values()
    return in_path + [
        {"name": name, "in": "query", "required": False, "schema": described}
        for name, described in schema["properties"].items()
    ]


def _responses(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {media_type: {} for media_type in operation.media_types}
    if operation.response is not None:
        content = _content(operation.response)
    if events := _events(operation):
        content[_EVENTS] = {"schema": _event_schema(events, has_done=operation.has_done)}
    responses = {
        "200": {"description": "Success", "headers": _headers(operation, 200), "content": content}
    }
    failures = sorted({*operation.failures, *((401,) if operation.needs_key else ())})
    for status in failures:
        responses[str(status)] = {
            "description": _REASONS[status],
            "headers": _headers(operation, status),
            "content": _content(operation.error),
        }
    if operation.path in _ANSWERS_503_ITSELF:
        responses["503"] = {"description": "The answer is no", "content": content}
    return responses


def _headers(operation: Operation, status: int) -> dict[str, Any]:
    names = dict(_HEADERS)
    if status in (429, 503):
        names |= _RETRY_HEADERS
    if operation.request is not None and status in (200, 429):
        names |= _QUEUE_HEADERS
    return {
        name: {"description": said, "schema": {"type": "string"}} for name, said in names.items()
    }


def _event_schema(events: Sequence[type[msgspec.Struct]], *, has_done: bool) -> dict[str, Any]:
    """What one server-sent event is: a name, for some kinds of streams, and JSON in `data`."""
    schemas = [_reference(event) for event in events]
    data: dict[str, Any] = {
        "type": "string",
        "contentMediaType": JSON,
        "contentSchema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas},
    }
    if has_done:
        data = {"anyOf": [{"const": "[DONE]"}, data]}
    properties = {"event": {"type": "string"}, "data": data}
    return {"type": "object", "properties": properties, "required": ["data"]}


def _events(operation: Operation) -> tuple[type[msgspec.Struct], ...]:
    event = operation.event
    if event is None:
        return ()
    return get_args(event) if isinstance(event, UnionType) else (event,)


def _request(operation: Operation) -> dict[str, Any]:
    assert operation.request is not None
    if not operation.files:
        return _content(operation.request)
    binary = {"type": "string", "minLength": 1, "contentMediaType": "application/octet-stream"}
    files = {
        "type": "object",
        "properties": dict.fromkeys(operation.files, binary),
        "required": [operation.files[0]],
    }
    return {_FORM: {"schema": {"allOf": [_reference(operation.request), files]}}}


def _content(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {JSON: {"schema": _reference(struct)}}


def _reference(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _SCHEMA.format(name=struct.__name__)}


def _operation_id(operation: Operation) -> str:
    path = operation.path.removeprefix("/v1").replace(".", "_").replace("{", "").replace("}", "")
    # Of a route that is there with and without its version, the latter needs an id of its own.
    suffix = "_unversioned" if f"/v1{operation.path}" in _PATHS else ""
    return operation.method + path.replace("/", "_") + suffix
