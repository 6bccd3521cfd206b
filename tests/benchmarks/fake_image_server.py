"""A small server with OpenAI's image API whose answers depend on the model that is asked for."""

from __future__ import annotations

import base64
from typing import Any

from tests.benchmarks.fake_server import FakeServer, Handler

PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n...").decode()


class ImageHandler(Handler):
    """Draws the same picture for everybody."""

    def respond(self, body: dict[str, Any]) -> None:
        model = body["model"]
        if self.path != "/v1/images/generations":
            self.send_json(404, {"error": {"message": "no such route", "code": "not_found"}})
        elif model == "full":
            self.refuse(body)
        elif model == "half-full":
            self.refuse_every_second(body)
        else:
            self.answer(body)

    def answer(self, body: dict[str, Any]) -> None:
        model = body["model"]
        encoded = "no base64!" if model == "scribble" else PICTURE
        count = body["n"] - 1 if model == "stingy" else body["n"]
        if not body.get("stream"):
            self.send_json(200, {"created": 1, "data": [{"b64_json": encoded}] * count})
            return
        self.start_stream()
        self.wfile.write(b": ping\n\n")
        for index in range(body["partial_images"]):
            name = "image_generation.partial_image"
            self.send_event({"type": name, "b64_json": PICTURE, "partial_image_index": index})
        if model == "failing":
            self.send_event({"error": {"message": "internal error", "type": "server_error"}})
            return
        for _ in range(count):
            self.send_event({"type": "image_generation.completed", "b64_json": encoded})


def image_server(*models: str) -> FakeServer:
    return FakeServer(models or ("good",), ImageHandler)
