"""The table of all routes: what each takes, answers and can fail with."""

from __future__ import annotations

from dataclasses import dataclass
from types import UnionType
from typing import Literal

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

OPERATIONS = (
    Operation(
        method="post",
        path="/v1/chat/completions",
        summary="Continue a conversation",
        request=ChatCompletionRequest,
        response=ChatCompletion,
        event=ChatCompletionChunk,
        has_done=True,
        failures=_GENERATION_FAILURES,
    ),
    Operation(
        method="post",
        path="/v1/completions",
        summary="Continue a text",
        request=CompletionRequest,
        response=Completion,
        event=Completion,
        has_done=True,
        failures=_GENERATION_FAILURES,
    ),
    Operation(
        method="post",
        path="/v1/responses",
        summary="Answer a conversation of items",
        request=ResponseRequest,
        response=ResponseObject,
        event=ResponseEvent,
        failures=_GENERATION_FAILURES,
    ),
    Operation(
        method="get",
        path="/v1/responses/{response_id}",
        summary="Tell of a response that is stored",
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
    Operation(
        method="get",
        path="/v1/responses/{response_id}/input_items",
        summary="List what went into a response",
        query=PageQuery,
        response=ItemList,
        failures=(400, 404),
    ),
    Operation(
        method="post",
        path="/v1/messages",
        summary="Continue a conversation in Anthropic's shape",
        request=MessageRequest,
        response=AnthropicMessage,
        event=MessageEvent,
        failures=_GENERATION_FAILURES,
        error=AnthropicErrorResponse,
    ),
    Operation(
        method="post",
        path="/v1/messages/count_tokens",
        summary="Count the tokens of a conversation's prompt",
        request=CountTokensRequest,
        response=TokenCount,
        failures=_READING_FAILURES,
        error=AnthropicErrorResponse,
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
    Operation(
        method="post",
        path="/tokenize",
        summary="Tell the tokens of a prompt or a conversation",
        request=TokenizeRequest,
        response=Tokens,
        failures=_READING_FAILURES,
    ),
    Operation(
        method="post",
        path="/detokenize",
        summary="Tell the text of tokens",
        request=DetokenizeRequest,
        response=DetokenizedText,
        failures=_READING_FAILURES,
    ),
    Operation(
        method="post",
        path="/v1/embeddings",
        summary="Embed texts",
        request=EmbeddingRequest,
        response=EmbeddingList,
        failures=_GENERATION_FAILURES,
    ),
    *(
        Operation(
            method="post",
            path=path,
            summary="Order documents by their relevance to a query",
            request=RerankRequest,
            response=RerankAnswer,
            failures=_GENERATION_FAILURES,
        )
        for path in ("/v1/rerank", "/rerank")
    ),
    *(
        Operation(
            method="post",
            path=path,
            summary="Tell how relevant texts are to others",
            request=ScoreRequest,
            response=ScoreList,
            failures=_GENERATION_FAILURES,
        )
        for path in ("/v1/score", "/score")
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
    Operation(method="get", path="/docs", summary="The same as a page", media_types=(_HTML,)),
)
