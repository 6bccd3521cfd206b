"""`/openapi.json` is a valid document, and it describes the routes that there are."""

from __future__ import annotations

import html.parser

import falcon.inspect
import jsonschema
import pytest
from openapi_spec_validator import validate

from server.app import create_app
from server.config import ServerConfig
from server.operations import OPERATIONS
from server.registry import ModelRegistry
from tests.server.apps import CHAT, chat, client, tiny_model
from tests.server.described import DOCUMENT, check
from tests.server.images.apps import GENERATIONS, ask, events

IMAGE_FILE = "/v1/images/files/{name}"
# Those of things that a fresh server has.
GETS = [
    op
    for op in OPERATIONS
    if op.method == "get" and op.path != IMAGE_FILE and "{response_id}" not in op.path
]


def test_the_document_is_valid_openapi():
    validate(DOCUMENT)


def test_it_is_served_as_json():
    result = client().simulate_get("/openapi.json")
    assert result.headers["content-type"] == "application/json"
    assert result.json == DOCUMENT


def test_it_describes_exactly_the_routes_of_the_app():
    app = create_app(ModelRegistry([tiny_model()]), ServerConfig())
    routes = {
        (method.method.lower(), route.path.replace(":path}", "}"))
        for route in falcon.inspect.inspect_routes(app)
        for method in route.methods
        if not method.internal
    }
    assert routes == {(operation.method, operation.path) for operation in OPERATIONS}


def test_every_operation_has_an_id_of_its_own():
    ids = [
        operation["operationId"]
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
    ]
    assert len(set(ids)) == len(ids) == len(OPERATIONS)


@pytest.mark.parametrize("operation", GETS)
def test_answers_fit_their_schema(operation):
    result = client().simulate_get(operation.path.replace("{model_id}", "tiny"))
    assert result.status_code == 200
    assert result.headers["content-type"].startswith(operation.media_types)
    if operation.response is not None:
        check(result.json, operation.response.__name__)


def test_chat_and_errors_fit_their_schemas():
    check(CHAT, "ChatCompletionRequest")
    answer, refusal = chat(CHAT, CHAT | {"temperature": -1})
    check(answer.json(), "ChatCompletion")
    check(refusal.json(), "ErrorResponse")
    with pytest.raises(jsonschema.ValidationError):
        check(CHAT | {"messages": []}, "ChatCompletionRequest")


def test_pictures_fit_their_schemas():
    body = {"prompt": "a red star", "n": 2, "seed": 3, "size": "8x8"}
    check(body, "ImageGenerationRequest")
    whole, streamed = ask(GENERATIONS, body, body | {"stream": True, "partial_images": 1})
    check(whole.json(), "ImagesResponse")
    for event in events(streamed):
        is_last = event["type"].endswith("completed")
        check(event, "ImageCompletedEvent" if is_last else "ImagePartialEvent")
    with pytest.raises(jsonschema.ValidationError):
        check(body | {"n": 11}, "ImageGenerationRequest")


def test_uploads_are_described_as_forms():
    for route, files in (("edits", {"image", "mask"}), ("variations", {"image"})):
        operation = DOCUMENT["paths"][f"/v1/images/{route}"]["post"]
        (media_type,) = operation["requestBody"]["content"]
        assert media_type == "multipart/form-data"
        _, described = operation["requestBody"]["content"][media_type]["schema"]["allOf"]
        assert described["properties"].keys() == files
        assert described["required"] == ["image"]


def test_only_the_probes_and_pictures_by_url_need_no_key():
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            assert bool(operation["security"]) == (path not in {"/health", "/ready", IMAGE_FILE})
            assert ("401" in operation["responses"]) == bool(operation["security"])


def test_the_page_shows_every_route_and_schema_and_fetches_nothing():
    result = client().simulate_get("/docs")
    assert result.headers["content-type"].startswith("text/html")
    tags = TagReader()
    tags.feed(result.text)
    ids = {attributes["id"] for _, attributes in tags.found if "id" in attributes}
    assert ids >= DOCUMENT["components"]["schemas"].keys()
    assert len([name for name, _ in tags.found if name == "details"]) == len(OPERATIONS)
    assert not {name for name, _ in tags.found} & {"script", "link", "img", "iframe"}
    links = {attributes["href"] for name, attributes in tags.found if name == "a"}
    assert links - {"/openapi.json"} <= {f"#{id}" for id in ids}, "no link leads nowhere"
    assert tags.open == []


class TagReader(html.parser.HTMLParser):
    """The tags of a page, and those that were not closed."""

    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
