"""A small OpenAI-compatible server whose answers depend on the model that is asked for.

It counts a prompt as two tokens a word and seven for the template, streams one token a chunk, and
can fail in each of the ways a real server does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEMPLATE_TOKENS = 7
TOKENS_PER_WORD = 2
API_KEY = "sk-right"


class FakeServer:
    """Listens on a free port of 127.0.0.1 while it is a context; keeps the bodies it was sent."""

    def __init__(
        self,
        models: tuple[str, ...] = ("good",),
        handler: type[Handler] | None = None,
        port: int = 0,
    ) -> None:
        self.models = models
        self.bodies: list[dict[str, Any]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        bound = type("BoundHandler", (handler or Handler,), {"fake": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", port), bound)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def enter(self, body: dict[str, Any]) -> None:
        with self._lock:
            self.bodies.append(body)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)

    def leave(self) -> None:
        with self._lock:
            self._at_once -= 1


class Handler(BaseHTTPRequestHandler):
    fake: FakeServer

    def log_message(self, *args: object) -> None:
        """Tests need no log."""

    def do_GET(self) -> None:
        self.send_json(200, {"data": [{"id": name} for name in self.fake.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.fake.enter(body)
        try:
            self.respond(body)
        finally:
            self.fake.leave()

    def respond(self, body: dict[str, Any]) -> None:
        _ANSWERS[body["model"]](self, body)

    def answer(self, body: dict[str, Any]) -> None:
        """A whole completion, streamed or not."""
        if not body["stream"]:
            choice = {"index": 0, "finish_reason": "length", "message": {"content": "hello"}}
            self.send_json(200, {"choices": [choice], "usage": usage(body)})
            return
        self.stream_tokens(body, body["max_tokens"])
        if body.get("stream_options", {}).get("include_usage") and body["model"] != "no-usage":
            self.send_event({"choices": [], "usage": usage(body)})
        self.end_stream()

    def refuse(self, body: dict[str, Any]) -> None:
        self.send_json(429, {"error": {"message": "full", "code": "rate_limit_exceeded"}})

    def refuse_without_json(self, body: dict[str, Any]) -> None:
        self._send(502, "text/html", b"<html>bad gateway</html>")

    def refuse_every_second(self, body: dict[str, Any]) -> None:
        every_second = len(self.fake.bodies) % 2 == 0
        (self.refuse if every_second else self.answer)(body)

    def fail_in_the_stream(self, body: dict[str, Any]) -> None:
        self.stream_tokens(body, 2)
        self.send_event({"error": {"message": "internal error", "type": "server_error"}})
        self.end_stream()

    def cut_the_stream(self, body: dict[str, Any]) -> None:
        self.stream_tokens(body, 2)

    def break_the_connection(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        self.wfile.write(b": ping\n\n")

    def talk_nonsense(self, body: dict[str, Any]) -> None:
        self.start_stream()
        self.wfile.write(b"data: {not json\n\n")

    def need_the_key(self, body: dict[str, Any]) -> None:
        if self.headers["authorization"] == f"Bearer {API_KEY}":
            self.answer(body)
        else:
            self.send_json(401, {"error": {"message": "no", "code": "invalid_api_key"}})

    def stream_tokens(self, body: dict[str, Any], count: int) -> None:
        self.start_stream()
        self.wfile.write(b": ping\n\n")
        if "messages" in body:
            self.send_event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for _ in range(count):
            text = {"delta": {"content": "a"}} if "messages" in body else {"text": "a"}
            self.send_event({"choices": [text]})
        self.send_event({"choices": [{"delta": {}, "finish_reason": "length"}]})

    def send_event(self, event: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

    def end_stream(self) -> None:
        self.wfile.write(b"data: [DONE]\n\n")

    def start_stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()

    def send_json(self, status: int, content: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(content).encode())

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


_ANSWERS: dict[str, Callable[[Handler, dict[str, Any]], None]] = {
    "good": Handler.answer,
    "no-usage": Handler.answer,
    "full": Handler.refuse,
    "half-full": Handler.refuse_every_second,
    "gateway": Handler.refuse_without_json,
    "failing": Handler.fail_in_the_stream,
    "cut": Handler.cut_the_stream,
    "broken": Handler.break_the_connection,
    "nonsense": Handler.talk_nonsense,
    "locked": Handler.need_the_key,
}


def usage(body: dict[str, Any]) -> dict[str, int]:
    """What the server counts: by words, and the template's overhead for a chat."""
    text, overhead = body.get("prompt"), 0
    if text is None:
        text = " ".join(message["content"] for message in body["messages"])
        overhead = TEMPLATE_TOKENS
    prompt_tokens = overhead + TOKENS_PER_WORD * len(text.split())
    return {"prompt_tokens": prompt_tokens, "completion_tokens": body["max_tokens"]}


def serve_until_killed(port: int) -> None:
    """What a peer's server program does."""
    with FakeServer(port=port):
        threading.Event().wait()
