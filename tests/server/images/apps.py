"""Apps around an image engine whose model is a little arithmetic, and pictures to send them."""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import tokenizers
from PIL import Image

from engines.image.engine import ImageEngine
from engines.image.scheduler import ImageSchedulerConfig
from engines.manifest import FileEntry, ImageSpec, Manifest, Source
from engines.store import EngineFolder
from server.app import App, create_app
from server.config import ServerConfig
from server.image_worker import ImageWorker
from server.images.prompts import PromptEncoder
from server.lifecycle import Lifecycle
from server.registry import ImageModel, ModelRegistry, ServedModel
from tests.engines.image.fake_runner import SCHEDULE, FakeImageRunner, make_spec
from tests.server.apps import http_client

GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"
VARIATIONS = "/v1/images/variations"
WORDS = ["a", "red", "green", "blue", "circle", "square", "star", "on", "white", "sea", "with"]
MAX_WORDS = 10


class HeldImageEngine(ImageEngine):
    """`hold()` stops it before its next step, `release(n)` lets it take so many, `run()` all."""

    def __init__(self, spec: ImageSpec, **limits: int) -> None:
        config = ImageSchedulerConfig(**limits)
        super().__init__(FakeImageRunner(), spec, SCHEDULE, config, device="fake")
        self.failure: Exception | None = None  # raised by the next step
        self.added: list[Any] = []
        self.aborted: list[int] = []
        self.num_calls = 0
        self._permits: threading.Semaphore | None = None

    def hold(self) -> None:
        self._permits = threading.Semaphore(0)

    def release(self, num_steps: int = 1) -> None:
        assert self._permits is not None
        self._permits.release(num_steps)

    def run(self) -> None:
        permits, self._permits = self._permits, None
        if permits is not None:
            permits.release()

    def add(self, request):
        super().add(request)
        self.added.append(request)

    def abort(self, image_id):
        super().abort(image_id)
        self.aborted.append(image_id)

    def step(self):
        if self._permits is not None:
            self._permits.acquire()
        if self.failure is not None:
            raise self.failure
        self.num_calls += 1
        return super().step()


def image_spec(**changes: Any) -> ImageSpec:
    """Pictures of up to 16 x 16 pixels, in steps of 2; prompts of up to 10 of `WORDS`."""
    spec = make_spec(**changes)
    encoders = tuple(
        msgspec.structs.replace(encoder, max_length=MAX_WORDS + 2) for encoder in spec.text_encoders
    )
    return msgspec.structs.replace(spec, text_encoders=encoders)


def word_tokenizer() -> tokenizers.Tokenizer:
    vocab = {"?": 0} | {word: index for index, word in enumerate(WORDS, start=1)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, "?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer


def image_engine(spec: ImageSpec | None = None, **limits: int) -> HeldImageEngine:
    return HeldImageEngine(spec or image_spec(), **limits)


def image_model(
    engine: HeldImageEngine | None = None,
    *,
    id: str = "painter",
    max_queue_size: int = 32,
    request_timeout_s: float | None = None,
) -> ImageModel:
    """A model as the server has it, with a manifest that names no real files."""
    engine = engine or image_engine()
    manifest = Manifest(
        kind="image",
        id=id,
        family="stable-diffusion",
        created=1,
        source=Source(checkpoint=id),
        precision="fp32",
        files={"unet.onnx": FileEntry(size=1, sha256="0" * 64)},
        image=engine.spec,
    )
    worker = ImageWorker(
        engine, name=id, max_queue_size=max_queue_size, request_timeout_s=request_timeout_s
    )
    tokenizers = [word_tokenizer() for _ in engine.spec.text_encoders]
    return ImageModel(
        id=id,
        folder=EngineFolder(path=Path(id), manifest=manifest),
        worker=worker,
        prompts=PromptEncoder(engine.spec, tokenizers),
    )


def with_images(
    scenario: Callable[[App], Awaitable[Any]], *models: ServedModel, **settings: Any
) -> Any:
    """Run a scenario with an app whose engines run; without models it serves `painter`."""

    async def run() -> Any:
        registry = ModelRegistry(models or [image_model()])
        lifecycle = Lifecycle(registry, drain_timeout_s=0)
        await lifecycle.start()
        try:
            return await scenario(create_app(registry, ServerConfig(**settings), (), lifecycle))
        finally:
            for model in registry.of_type(ImageModel):
                model.worker._engine.run()
            await lifecycle.stop()

    return asyncio.run(run())


def ask(
    path: str, *bodies: dict[str, Any], models: tuple[ServedModel, ...] = (), **settings: Any
) -> list[httpx.Response]:
    """Send JSON bodies one after the other."""

    async def scenario(app: App) -> list[httpx.Response]:
        async with http_client(app) as client:
            return [await client.post(path, json=body) for body in bodies]

    return with_images(scenario, *models, **settings)


def draw(body: dict[str, Any], *models: ServedModel, **settings: Any) -> dict[str, Any]:
    """The answer to a generation, with a prompt and a seed unless the body has its own."""
    (response,) = ask(
        GENERATIONS, {"prompt": "a red circle", "seed": 3} | body, models=models, **settings
    )
    assert response.status_code == 200, response.text
    return response.json()


def upload(
    path: str,
    fields: dict[str, str],
    *models: ServedModel,
    files: Any = None,
    **settings: Any,
) -> httpx.Response:
    """Send a form with an image, unless `files` are given."""

    async def scenario(app: App) -> httpx.Response:
        async with http_client(app) as client:
            given = {"image": png(gradient())} if files is None else files
            return await client.post(path, data=fields, files=given)

    return with_images(scenario, *models, **settings)


@functools.cache
def gradient(width: int = 8, height: int = 8) -> Image.Image:
    """Every pixel has a colour of its own."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 255 // height, columns * 255 // width, rows * 7 + columns * 3 + 20])
    return Image.fromarray(pixels.transpose(1, 2, 0).astype(np.uint8))


def png(image: Image.Image, **options: Any) -> bytes:
    return file_of(image, "PNG", **options)


def file_of(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def opened(encoded: str | bytes) -> Image.Image:
    """A picture of an answer: base64 or the bytes of a file."""
    content = base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else encoded
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def pixels(encoded: str | bytes) -> np.ndarray:
    return np.asarray(opened(encoded).convert("RGB"))


def events(response: httpx.Response | bytes) -> list[dict[str, Any]]:
    """The events of a stream, whose names must be their types."""
    text = response.decode() if isinstance(response, bytes) else response.text
    found = []
    for block in text.split("\n\n"):
        if block.startswith("event: "):
            name, _, content = block.removeprefix("event: ").partition("\ndata: ")
            found.append(json.loads(content))
            assert found[-1].get("type", "error") == name
        else:
            assert not block or block.startswith(": "), block
    return found
