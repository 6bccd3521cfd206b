"""`/openapi.json`: the OpenAPI document, from the Structs of the wire and a table of routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, get_args

import msgspec

from server.errors import ErrorResponse
from server.schema.chat import ChatCompletionRequest
from server.schema.chat_answer import ChatCompletion, ChatCompletionChunk
from server.schema.completions import Completion, CompletionRequest
from server.schema.images import (
    ImageCompletedEvent,
    ImageEditRequest,
    ImageGenerationRequest,
    ImagePartialEvent,
    ImagesResponse,
    ImageVariationRequest,
)
from server.schema.models import ModelDetails, ModelList
from server.schema.system import Health, Readiness, Version

_JSON = "application/json"
_EVENTS = "text/event-stream"
_FORM = "multipart/form-data"
_METRICS = "text/plain"
_PICTURES = ("image/png", "image/jpeg", "image/webp")
_SCHEMA = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one route.

    `event` is the JSON of each server-sent event where a request can ask for a stream. With `files`
    the request is a form of the request's fields and these, of which the first is required.
    `failures` are the statuses that this operation has beside those of all.
    """

    method: Literal["get", "head", "post"]
    path: str
    summary: str
    request: type[msgspec.Struct] | None = None
    files: tuple[str, ...] = ()
    response: type[msgspec.Struct] | None = None
    event: type[msgspec.Struct] | UnionType | None = None
    media_types: tuple[str, ...] = (_JSON,)
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
    Operation(
        method="post",
        path="/v1/images/generations",
        summary="Draw pictures of a prompt",
        request=ImageGenerationRequest,
        response=ImagesResponse,
        event=ImagePartialEvent | ImageCompletedEvent,
        failures=_GENERATION_FAILURES,
    ),
    Operation(
        method="post",
        path="/v1/images/edits",
        summary="Change a picture, all of it or what a mask names",
        request=ImageEditRequest,
        files=("image", "mask"),
        response=ImagesResponse,
        event=ImagePartialEvent | ImageCompletedEvent,
        failures=_GENERATION_FAILURES,
    ),
    Operation(
        method="post",
        path="/v1/images/variations",
        summary="Draw pictures that are like a picture",
        request=ImageVariationRequest,
        files=("image",),
        response=ImagesResponse,
        failures=_GENERATION_FAILURES,
    ),
    Operation(
        method="get",
        path="/v1/images/files/{name}",
        summary="Fetch a picture by its URL",
        media_types=_PICTURES,
        failures=(404,),
        needs_key=False,
    ),
    Operation(
        method="head",
        path="/v1/images/files/{name}",
        summary="Tell whether a picture can be fetched",
        media_types=_PICTURES,
        failures=(404,),
        needs_key=False,
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
    Operation(
        method="get", path="/metrics", summary="Metrics for Prometheus", media_types=(_METRICS,)
    ),
    Operation(method="get", path="/version", summary="Tell the release", response=Version),
    Operation(method="get", path="/openapi.json", summary="This document"),
)
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
    structs: list[type[msgspec.Struct]] = [ErrorResponse]
    for operation in operations:
        structs += filter(None, (operation.request, operation.response, *_events(operation)))
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
        described["requestBody"] = {"required": True, "content": _request(operation)}
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {media_type: {} for media_type in operation.media_types}
    if operation.response is not None:
        content = _content(operation.response)
    if events := _events(operation):
        # The events are separate documents, so the schema is that of each `data:` line.
        schemas = [_reference(event) for event in events]
        content[_EVENTS] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
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


def _events(operation: Operation) -> tuple[type[msgspec.Struct], ...]:
    event = operation.event
    if event is None:
        return ()
    return get_args(event) if isinstance(event, UnionType) else (event,)


def _request(operation: Operation) -> dict[str, Any]:
    assert operation.request is not None
    if not operation.files:
        return _content(operation.request)
    binary = {"type": "string", "contentMediaType": "application/octet-stream"}
    files = {
        "type": "object",
        "properties": dict.fromkeys(operation.files, binary),
        "required": [operation.files[0]],
    }
    return {_FORM: {"schema": {"allOf": [_reference(operation.request), files]}}}


def _content(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {_JSON: {"schema": _reference(struct)}}


def _reference(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _SCHEMA.format(name=struct.__name__)}


def _operation_id(operation: Operation) -> str:
    words = operation.path.removeprefix("/v1").replace(".", "_").replace("{", "").replace("}", "")
    return operation.method + words.replace("/", "_")
