"""The table of all routes: what each takes, answers and can fail with."""

from __future__ import annotations

from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal

import msgspec

from server.errors import ErrorResponse
from server.schema.anthropic import CountTokensRequest, MessageRequest
from server.schema.anthropic_answer import (
    AnthropicErrorResponse,
    AnthropicMessage,
    MessageEvent,
    TokenCount,
)
from server.schema.chat import ChatCompletionRequest
from server.schema.chat_answer import ChatCompletion, ChatCompletionChunk
from server.schema.completions import Completion, CompletionRequest
from server.schema.embeddings import EmbeddingList, EmbeddingRequest
from server.schema.images import (
    ImageCompletedEvent,
    ImageEditRequest,
    ImageGenerationRequest,
    ImagePartialEvent,
    ImagesResponse,
    ImageVariationRequest,
)
from server.schema.models import ModelDetails, ModelList
from server.schema.rerank import RerankAnswer, RerankRequest, ScoreList, ScoreRequest
from server.schema.response_answer import ResponseDeleted, ResponseObject
from server.schema.response_events import ResponseEvent
from server.schema.response_items import ItemList
from server.schema.responses import PageQuery, ResponseRequest, StoredQuery
from server.schema.system import Health, Readiness, Version
from server.schema.tokenize import DetokenizedText, DetokenizeRequest, TokenizeRequest, Tokens

JSON = "application/json"
_METRICS = "text/plain"
_HTML = "text/html"
_PICTURES = ("image/png", "image/jpeg", "image/webp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one route.

    `query` has the parameters behind the path. `event` is the JSON of each server-sent event where
    a request can ask for a stream; `has_done` says that a last one is `[DONE]` instead. With
    `files` the request is a form of the request's fields and these, of which the first is required.
    `failures` are the statuses that this operation has beside those of all.
    """

    method: Literal["get", "head", "post", "delete"]
    path: str
    summary: str
    request: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    files: tuple[str, ...] = ()
    response: type[msgspec.Struct] | None = None
    event: type[msgspec.Struct] | UnionType | None = None
    has_done: bool = False
    media_types: tuple[str, ...] = (JSON,)
    failures: tuple[int, ...] = ()
    error: type[msgspec.Struct] = ErrorResponse
    needs_key: bool = True


_READING_FAILURES = (400, 404, 413, 415, 500)
_GENERATION_FAILURES = (400, 404, 413, 415, 429, 500, 503, 504)


def _get(path: str, summary: str, **rest: Any) -> Operation:
    return Operation(method="get", path=path, summary=summary, **rest)


def _post(path: str, summary: str, request: type[msgspec.Struct], **rest: Any) -> Operation:
    rest = {"failures": _GENERATION_FAILURES} | rest
    return Operation(method="post", path=path, summary=summary, request=request, **rest)


OPERATIONS = (
    _post(
        "/v1/chat/completions",
        "Continue a conversation",
        ChatCompletionRequest,
        response=ChatCompletion,
        event=ChatCompletionChunk,
        has_done=True,
    ),
    _post(
        "/v1/completions",
        "Continue a text",
        CompletionRequest,
        response=Completion,
        event=Completion,
        has_done=True,
    ),
    _post(
        "/v1/responses",
        "Answer a conversation of items",
        ResponseRequest,
        response=ResponseObject,
        event=ResponseEvent,
    ),
    _get(
        "/v1/responses/{response_id}",
        "Tell of a response that is stored",
        query=StoredQuery,
        response=ResponseObject,
        failures=(400, 404),
    ),
    Operation(
        method="delete",
        path="/v1/responses/{response_id}",
        summary="Forget a response",
        response=ResponseDeleted,
        failures=(404,),
    ),
    _get(
        "/v1/responses/{response_id}/input_items",
        "List what went into a response",
        query=PageQuery,
        response=ItemList,
        failures=(400, 404),
    ),
    _post(
        "/v1/messages",
        "Continue a conversation in Anthropic's shape",
        MessageRequest,
        response=AnthropicMessage,
        event=MessageEvent,
        error=AnthropicErrorResponse,
    ),
    _post(
        "/v1/messages/count_tokens",
        "Count the tokens of a conversation's prompt",
        CountTokensRequest,
        response=TokenCount,
        failures=_READING_FAILURES,
        error=AnthropicErrorResponse,
    ),
    _post(
        "/v1/images/generations",
        "Draw pictures of a prompt",
        ImageGenerationRequest,
        response=ImagesResponse,
        event=ImagePartialEvent | ImageCompletedEvent,
    ),
    _post(
        "/v1/images/edits",
        "Change a picture, all of it or what a mask names",
        ImageEditRequest,
        files=("image", "mask"),
        response=ImagesResponse,
        event=ImagePartialEvent | ImageCompletedEvent,
    ),
    _post(
        "/v1/images/variations",
        "Draw pictures that are like a picture",
        ImageVariationRequest,
        files=("image",),
        response=ImagesResponse,
    ),
    _get(
        "/v1/images/files/{name}",
        "Fetch a picture by its URL",
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
    _post(
        "/tokenize",
        "Tell the tokens of a prompt or a conversation",
        TokenizeRequest,
        response=Tokens,
        failures=_READING_FAILURES,
    ),
    _post(
        "/detokenize",
        "Tell the text of tokens",
        DetokenizeRequest,
        response=DetokenizedText,
        failures=_READING_FAILURES,
    ),
    _post("/v1/embeddings", "Embed texts", EmbeddingRequest, response=EmbeddingList),
    *(
        _post(
            path,
            "Order documents by their relevance to a query",
            RerankRequest,
            response=RerankAnswer,
        )
        for path in ("/v1/rerank", "/rerank")
    ),
    *(
        _post(path, "Tell how relevant texts are to others", ScoreRequest, response=ScoreList)
        for path in ("/v1/score", "/score")
    ),
    _get("/v1/models", "List the models", response=ModelList),
    _get(
        "/v1/models/{model_id}",
        "Tell of a model; its id may hold slashes",
        response=ModelDetails,
        failures=(404,),
    ),
    _get(
        "/health",
        "Tell whether every engine runs; 503 if one has stopped",
        response=Health,
        needs_key=False,
    ),
    _get(
        "/ready",
        "Tell whether new requests are welcome; 503 if not",
        response=Readiness,
        needs_key=False,
    ),
    _get("/metrics", "Metrics for Prometheus", media_types=(_METRICS,)),
    _get("/version", "Tell the release", response=Version),
    _get("/openapi.json", "This document"),
    _get("/docs", "The same as a page", media_types=(_HTML,)),
)
