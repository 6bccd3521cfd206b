"""openai-node draws and edits with a running server."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PAINTER
from tests.server.images.apps import gradient, opened, png

SCRIPT = Path(__file__).parent / "openai_node_images_script.mjs"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="needs node and npm"
)


@pytest.fixture(scope="module")
def seen(openai_node, painter_server, tmp_path_factory):
    image = tmp_path_factory.mktemp("node") / "image.png"
    image.write_bytes(png(gradient(32, 32)))
    shutil.copy(SCRIPT, openai_node)  # modules are looked up from where a script lies
    result = subprocess.run(
        ["node", SCRIPT.name, painter_server.base_url, PAINTER, str(image)],
        cwd=openai_node,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_picture_and_its_stream_are_the_same(seen):
    assert opened(seen["picture"]).size == (32, 32)
    types = [event["type"] for event in seen["events"]]
    assert types == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert seen["events"][-1]["b64_json"] == seen["picture"]


def test_an_image_is_uploaded_and_edited(seen):
    assert opened(seen["edited"]).text["strength"] == "0.5"
    types = [event["type"] for event in seen["editEvents"]]
    assert types == ["image_edit.partial_image"] * 2 + ["image_edit.completed"]
    assert opened(seen["editEvents"][-1]["b64_json"]).size == (32, 32)


def test_errors_have_status_code_and_field(seen):
    assert seen["errors"] == [
        ["NotFoundError", 404, "model_not_found", "model"],
        ["BadRequestError", 400, "invalid_value", "size"],
    ]
