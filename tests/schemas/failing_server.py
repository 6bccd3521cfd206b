"""A server that lists its models wrongly; run as a process."""

from __future__ import annotations

import sys

import server.process
import server.routes.models
from server.config import ServerConfig
from server.listener import listen
from server.process import serve
from server.registry import ModelRegistry
from tests.schemas.checked_server import checked
from tests.server.apps import tiny_model

if __name__ == "__main__":
    server.routes.models.ModelList = lambda data: {"object": "list", "models": data}
    server.process.create_app = checked(server.process.create_app)
    models = ModelRegistry([tiny_model()])
    sys.exit(serve(models, ServerConfig(), (), listen("127.0.0.1", 0)))
