"""A hub on 127.0.0.1 that answers the routes huggingface_hub asks for a snapshot."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves one checkpoint folder as `repo_id`; a context manager.

    Attributes:
        token: If set, what a request has to bring.
        cut_after: If set, the first download of model.safetensors breaks off after so many bytes.
        requests: (method, path, Range header) of all requests so far.
    """

    def __init__(self, repo_id: str, folder: Path) -> None:
        self.repo_id = repo_id
        self.folder = folder
        self.token: str | None = None
        self.cut_after: int | None = None
        self.requests: list[tuple[str, str, str | None]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def downloaded(self) -> set[str]:
        """The names of the files that were asked for, with their folders."""
        return {
            path.partition("/resolve/")[2].partition("/")[2]
            for verb, path, _ in self.requests
            if "/resolve/" in path
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def log_message(self, *args: object) -> None:
                pass

            def _answer(self, with_body: bool) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.requests.append((self.command, path, self.headers.get("Range")))
                if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    self._error(401, "RepoNotFound", "Invalid username or password.")
                elif path.startswith("/api/models/"):
                    self._answer_api(path.removeprefix("/api/models/"))
                elif "/resolve/" in path:
                    self._answer_file(path, with_body)
                else:
                    self._error(404, "EntryNotFound", "Not found")

            def _answer_api(self, path: str) -> None:
                repo_id, (route, revision) = path.rsplit("/", 2)[0], path.rsplit("/", 2)[1:]
                files = sorted(path for path in hub.folder.rglob("*") if path.is_file())
                names = [path.relative_to(hub.folder).as_posix() for path in files]
                if repo_id != hub.repo_id:
                    self._error(404, "RepoNotFound", "Repository not found")
                elif revision not in ("main", "v1", COMMIT):
                    self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
                elif route == "tree":
                    self._send_json(list(map(_tree_entry, files, names)))
                else:
                    siblings = [{"rfilename": name} for name in names]
                    self._send_json(
                        {"id": repo_id, "sha": COMMIT, "siblings": siblings, "private": False}
                    )

            def _answer_file(self, path: str, with_body: bool) -> None:
                name = path.partition("/resolve/")[2].partition("/")[2]
                if not (hub.folder / name).is_file():
                    self._error(404, "EntryNotFound", "Entry not found")
                    return
                content = (hub.folder / name).read_bytes()
                headers = {
                    "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                    "X-Repo-Commit": COMMIT,
                    "Accept-Ranges": "bytes",
                }
                start = 0
                if requested := self.headers.get("Range"):
                    start = int(requested.removeprefix("bytes=").partition("-")[0])
                    headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                body = content[start:]
                if with_body and name == "model.safetensors" and hub.cut_after is not None:
                    self._send(200, body, headers, cut_after=hub.cut_after)
                    hub.cut_after = None
                else:
                    self._send(206 if start else 200, body, headers, with_body=with_body)

            def _error(self, status: int, code: str, message: str) -> None:
                headers = {"X-Error-Code": code, "X-Error-Message": message}
                self._send(status, json.dumps({"error": message}).encode(), headers)

            def _send_json(self, content: object) -> None:
                self._send(200, json.dumps(content).encode())

            def _send(
                self,
                status: int,
                body: bytes,
                headers: dict[str, str] | None = None,
                with_body: bool = True,
                cut_after: int | None = None,
            ) -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if with_body and self.command == "GET":
                    self.wfile.write(body[:cut_after])
                if cut_after is not None:
                    self.close_connection = True

        return Handler


def _tree_entry(path: Path, name: str) -> dict[str, object]:
    content = path.read_bytes()
    oid = hashlib.sha1(content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid}
