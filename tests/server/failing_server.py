"""A server whose engines fail at their first step, never end it, or work; run as a process."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import server.process
from engines.errors import RunFailed
from server.config import ServerConfig
from server.listener import listen
from server.logs import configure_logging
from server.process import serve
from server.registry import ModelRegistry
from server.text.processor import TextProcessor
from tests.schemas.checked_server import checked
from tests.server.fakes import scripted_engine, served_model, write_text_files


def main() -> int:
    configure_logging("text", "info")
    with tempfile.TemporaryDirectory() as folder:
        text = TextProcessor.load(write_text_files(Path(folder)))
    broken = scripted_engine(text, "Hello")
    broken.failure = RunFailed("the flux has run out")
    stuck = scripted_engine(text, "Hello")
    stuck.hold()
    models = ModelRegistry(
        [
            served_model(text, broken, id="broken"),
            served_model(text, stuck, id="stuck"),
            served_model(text, scripted_engine(text, "Hello"), id="sound"),
        ]
    )
    server.process.create_app = checked(server.process.create_app)
    return serve(models, ServerConfig(), (), listen("127.0.0.1", 0))


if __name__ == "__main__":
    sys.exit(main())
