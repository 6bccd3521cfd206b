"""The application factory: routes, media handlers, middleware and errors in one place."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cache

import falcon
import falcon.asgi
import falcon.media
from falcon.asgi import Request, Response

from engines import __version__
from engines.errors import EngineryError
from server.anthropic.errors import ROUTES, anthropic_error
from server.auth import Authentication
from server.config import ServerConfig
from server.cors import CrossOrigin
from server.docs_page import docs_page
from server.errors import is_unexpected, to_api_error
from server.form import FormReader
from server.images.files import (
    IMAGE_FILES,
    FileLimits,
    FolderImageFiles,
    ImageFiles,
    MemoryImageFiles,
)
from server.lifecycle import Lifecycle
from server.media import JsonHandler
from server.metrics import Metrics
from server.middleware import RequestRecords
from server.openapi import openapi_document
from server.registry import ModelRegistry
from server.responses.store import ResponseStore
from server.routes import system
from server.routes.chat import ChatCompletions
from server.routes.completions import Completions
from server.routes.embeddings import Embeddings
from server.routes.image_files import ImageFilePurge, ImageFileRoute
from server.routes.images import ImageDrawing, ImageEdits, ImageGenerations, ImageVariations
from server.routes.messages import Messages
from server.routes.models import Models
from server.routes.rerank import Rerank, Scores
from server.routes.responses import Responses
from server.routes.tokenization import Detokenize, Tokenize

logger = logging.getLogger(__name__)

App = falcon.asgi.App[Request, Response]


def create_app(
    models: ModelRegistry,
    config: ServerConfig,
    api_keys: Iterable[str] | None = None,
    lifecycle: Lifecycle | None = None,
    metrics: Metrics | None = None,
) -> App:
    """Build the ASGI app around loaded models, whose threads run while the app does.

    Args:
        models: Served under their names.
        config: Limits, origins and names.
        api_keys: All that are accepted; None reads them from the settings and their files.
        lifecycle: Of the same models, where the caller wants to drain the app.
        metrics: What /metrics shows, where the caller measures something too.

    Raises:
        ValueError: A file of keys cannot be read.
        EngineryError: The folder for pictures cannot be used.
    """
    metrics = metrics or Metrics()
    metrics.watch(models)
    lifecycle = lifecycle or Lifecycle(models, config.drain_timeout)
    app = falcon.asgi.App()
    app.add_middleware(RequestRecords(metrics, models))
    app.add_middleware(CrossOrigin(config.cors_origins))
    keys = config.api_keys() if api_keys is None else api_keys
    app.add_middleware(Authentication(keys, config.api_auth))
    app.add_middleware(lifecycle)
    add_handlers(app, config.max_body_size)
    app.add_route("/v1/chat/completions", ChatCompletions(models))
    app.add_route("/v1/completions", Completions(models))
    app.add_route("/v1/messages", messages := Messages(models))
    app.add_route("/v1/messages/count_tokens", messages, suffix="count")
    add_response_routes(app, models, config)
    add_reading_routes(app, models)
    add_image_routes(app, models, config)
    app.add_route("/tokenize", Tokenize(models))
    app.add_route("/detokenize", Detokenize(models))
    app.add_route("/v1/models", listed := Models(models, config.owned_by))
    app.add_route("/v1/models/{model_id:path}", listed, suffix="model")
    add_system_routes(app, lifecycle, metrics)
    return app


def add_handlers(app: App, max_body_size: int) -> None:
    """How bodies are read and written, and what failures are answered with."""
    json = falcon.media.Handlers({falcon.MEDIA_JSON: JsonHandler(max_body_size)})
    app.req_options.media_handlers = json
    app.resp_options.media_handlers = json
    app.req_options.strip_url_path_trailing_slash = True
    app.add_error_handler(Exception, on_error)
    app.add_error_handler(falcon.HTTPError, on_error)


def add_response_routes(app: App, models: ModelRegistry, config: ServerConfig) -> None:
    """The routes of responses, which share what is stored."""
    store = ResponseStore(config.max_stored_responses, config.max_stored_responses_size)
    responses = Responses(models, store)
    app.add_route("/v1/responses", responses)
    app.add_route("/v1/responses/{response_id}", responses, suffix="response")
    app.add_route("/v1/responses/{response_id}/input_items", responses, suffix="items")


def add_reading_routes(app: App, models: ModelRegistry) -> None:
    """The routes of models that read texts; some clients leave the version out of two of them."""
    app.add_route("/v1/embeddings", Embeddings(models))
    rerank, scores = Rerank(models), Scores(models)
    for version in ("/v1", ""):
        app.add_route(f"{version}/rerank", rerank)
        app.add_route(f"{version}/score", scores)


def add_image_routes(app: App, models: ModelRegistry, config: ServerConfig) -> None:
    """The routes of pictures, and of the files that their URLs point to."""
    files = image_files(config)
    app.add_middleware(ImageFilePurge(files))
    form = FormReader(config.max_upload_size)
    drawing = ImageDrawing(models, files, form, config.max_upload_pixels)
    app.add_route("/v1/images/generations", ImageGenerations(drawing))
    app.add_route("/v1/images/edits", ImageEdits(drawing))
    app.add_route("/v1/images/variations", ImageVariations(drawing))
    app.add_route(f"{IMAGE_FILES}{{name}}", ImageFileRoute(files))


def image_files(config: ServerConfig) -> ImageFiles:
    """Where pictures are kept for their URLs.

    Raises:
        EngineryError: The folder of the settings cannot be used.
    """
    limits = FileLimits(
        max_files=config.max_image_files,
        max_bytes=config.max_image_files_size,
        lifetime_s=config.image_lifetime,
    )
    if config.image_dir is None:
        return MemoryImageFiles(limits)
    try:
        return FolderImageFiles(config.image_dir, limits)
    except OSError as error:
        raise EngineryError(f"image_dir {config.image_dir} cannot be used: {error}") from None


def add_system_routes(app: App, lifecycle: Lifecycle, metrics: Metrics) -> None:
    """What operators and tools read."""
    app.add_route("/health", system.Health(lifecycle))
    app.add_route("/ready", system.Ready(lifecycle))
    app.add_route("/metrics", system.MetricsPage(metrics))
    app.add_route("/version", system.Version(__version__))
    document = cache(lambda: openapi_document(__version__))
    app.add_route("/openapi.json", system.OpenApi(document))
    app.add_route("/docs", system.DocsPage(lambda: docs_page(document())))


async def on_error(
    req: Request, resp: Response, error: Exception, params: dict[str, object]
) -> None:
    """Answer any failure with an OpenAI error object; what is our fault goes into the log."""
    if is_unexpected(error):
        request_id = req.context.record.request_id
        logger.error("request %s failed", request_id, exc_info=error)
    answer = to_api_error(error)
    resp.status = answer.status
    resp.set_headers(answer.headers)
    resp.content_type = falcon.MEDIA_JSON
    resp.stream = resp.sse = None
    if req.path.startswith(ROUTES):
        resp.media = anthropic_error(answer, req.context.record.request_id)
    else:
        resp.media = answer.response()
