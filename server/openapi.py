"""`/openapi.json`: the OpenAPI document, from the Structs of the wire and a table of routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from server.errors import ErrorResponse
from server.schema.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionRequest
from server.schema.completions import Completion, CompletionRequest
from server.schema.models import ModelDetails, ModelList
from server.schema.system import Health, Readiness, Version

_JSON = "application/json"
_EVENTS = "text/event-stream"
_METRICS = "text/plain"
_SCHEMA = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one route.

    `event` is the JSON of each server-sent event where a request can ask for a stream. `failures`
    are the statuses that this operation has beside those of all.
    """

    method: Literal["get", "post"]
    path: str
    summary: str
    request: type[msgspec.Struct] | None = None
    response: type[msgspec.Struct] | None = None
    event: type[msgspec.Struct] | None = None
    media_type: str = _JSON
    failures: tuple[int, ...] = ()
    needs_key: bool = True


_GENERATION_FAILURES = (400, 404, 413, 415, 429, 500, 503, 504)

OPERATIONS = (
    Operation(
        method="post",
        path="/v1/chat/completions",
        summary="Continue a conversation",
        request=ChatCompletionRequest,
        response=ChatCompletion,
        event=ChatCompletionChunk,
        failures=_GENERATION_FAILURES,
    ),
    Operation(
        method="post",
        path="/v1/completions",
        summary="Continue a text",
        request=CompletionRequest,
        response=Completion,
        event=Completion,
        failures=_GENERATION_FAILURES,
    ),
    Operation(method="get", path="/v1/models", summary="List the models", response=ModelList),
    Operation(
        method="get",
        path="/v1/models/{model_id}",
        summary="Tell of a model; its id may hold slashes",
        response=ModelDetails,
        failures=(404,),
    ),
    Operation(
        method="get",
        path="/health",
        summary="Tell whether every engine runs; 503 if one has stopped",
        response=Health,
        needs_key=False,
    ),
    Operation(
        method="get",
        path="/ready",
        summary="Tell whether new requests are welcome; 503 if not",
        response=Readiness,
        needs_key=False,
    ),
    Operation(method="get", path="/metrics", summary="Metrics for Prometheus", media_type=_METRICS),
    Operation(method="get", path="/version", summary="Tell the release", response=Version),
    Operation(method="get", path="/openapi.json", summary="This document"),
)
_ANSWERS_503_ITSELF = frozenset({"/health", "/ready"})
_REASONS = {
    400: "A field is missing or has a value that is not accepted",
    401: "The API key is missing or wrong",
    404: "The model does not exist",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "The queue is full; try again after Retry-After seconds",
    500: "The server failed",
    503: "The server is shutting down or an engine has stopped",
    504: "The answer took longer than the server allows",
}


def openapi_document(version: str, operations: Sequence[Operation] = OPERATIONS) -> dict[str, Any]:
    """Describe the API in OpenAPI 3.1."""
    structs: list[type[msgspec.Struct]] = [ErrorResponse]
    for operation in operations:
        structs += filter(None, (operation.request, operation.response, operation.event))
    _, schemas = msgspec.json.schema_components(list(dict.fromkeys(structs)), ref_template=_SCHEMA)
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


def _describe(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _operation_id(operation),
        "summary": operation.summary,
        "responses": _responses(operation),
        # Without configured keys nothing is needed, so that is one of the choices.
        "security": [{"bearer": []}, {"basic": []}, {}] if operation.needs_key else [],
    }
    parameters = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    if parameters:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in parameters
        ]
    if operation.request is not None:
        described["requestBody"] = {"required": True, "content": _content(operation.request)}
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {operation.media_type: {}}
    if operation.response is not None:
        content = _content(operation.response)
    if operation.event is not None:
        # The events are separate documents, so the schema is that of each `data:` line.
        content[_EVENTS] = {"schema": _reference(operation.event)}
    responses = {"200": {"description": "Success", "content": content}}
    failures = sorted({*operation.failures, *((401,) if operation.needs_key else ())})
    for status in failures:
        responses[str(status)] = {
            "description": _REASONS[status],
            "content": _content(ErrorResponse),
        }
    if operation.path in _ANSWERS_503_ITSELF:
        responses["503"] = {"description": "The answer is no", "content": content}
    return responses


def _content(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {_JSON: {"schema": _reference(struct)}}


def _reference(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _SCHEMA.format(name=struct.__name__)}


def _operation_id(operation: Operation) -> str:
    words = operation.path.removeprefix("/v1").replace(".", "_").replace("{", "").replace("}", "")
    return operation.method + words.replace("/", "_")
