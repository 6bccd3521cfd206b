"""One prompt, one noise: a picture by a compiled engine, and by diffusers."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import diffusers
import numpy as np
import torch
from tokenizers import Tokenizer

from engines.image.engine import ImageEngine
from engines.image.prompt import frame_token_ids
from engines.image.request import ImageRequest, TokenIds
from engines.image.schedulers.schedule import SHORT_NAMES
from engines.load_image import ImageEngineOptions, load_image_engine
from engines.manifest import read_manifest
from engines.store import EngineFolder

HEIGHT, WIDTH = 40, 56  # diffusers asks for multiples of 8
PROMPT, NEGATIVE = "red circle", "blurred photo"
CLOSE = 2  # of 255


def open_engine(folder: Path, **options) -> ImageEngine:
    engine_folder = EngineFolder(folder, read_manifest(folder))
    return load_image_engine(engine_folder, ImageEngineOptions(num_threads=1, **options))


def token_ids(folder: Path, text: str) -> TokenIds:
    """The ids of a text for each text encoder, as a server makes them."""
    ids = []
    for encoder in read_manifest(folder).image.text_encoders:
        tokenizer = Tokenizer.from_file(str(folder / encoder.tokenizer))
        found = tokenizer.encode(text, add_special_tokens=False).ids
        ids.append(frame_token_ids(found, encoder))
    return tuple(ids)


def make_request(folder: Path, image_id: int = 0, *, negative=None, **changes) -> ImageRequest:
    fields = {
        "image_id": image_id,
        "prompt_token_ids": token_ids(folder, changes.pop("prompt", PROMPT)),
        "negative_token_ids": None if negative is None else token_ids(folder, negative),
        "height": HEIGHT,
        "width": WIDTH,
        "num_inference_steps": 5,
        "guidance_scale": 6.0,
        "seed": 3,
    }
    return ImageRequest(**(fields | changes))


def draw(engine: ImageEngine, *requests: ImageRequest) -> list[np.ndarray]:
    """The pictures of requests that arrive together, in their order."""
    for request in requests:
        engine.add(request)
    found = {}
    while engine.has_work:
        found |= {out.image_id: out.picture for out in engine.step() if out.is_finished}
    return [found[request.image_id] for request in requests]


class Reference:
    """A pipeline of diffusers."""

    def __init__(self, checkpoint: Path, scheduler: str | None = None) -> None:
        self.pipeline = diffusers.DiffusionPipeline.from_pretrained(checkpoint)
        self.pipeline.set_progress_bar_config(disable=True)
        for name in ("tokenizer", "tokenizer_2"):
            if hasattr(self.pipeline, name):
                getattr(self.pipeline, name).model_max_length = 77
        if scheduler is not None:
            class_name, pinned = SHORT_NAMES[scheduler]
            with quiet():
                self.pipeline.scheduler = getattr(diffusers, class_name).from_config(
                    self.pipeline.scheduler.config, **pinned
                )

    def draw(self, request: ImageRequest, *, negative=None, prompt=PROMPT) -> np.ndarray:
        """The picture from the noise that the request's seed gives. [height, width, 3]"""
        noise = first_noise(request)
        with quiet(), torch.inference_mode():
            images = self.pipeline(
                prompt=prompt,
                negative_prompt=negative,
                height=request.height,
                width=request.width,
                num_inference_steps=request.num_inference_steps,
                guidance_scale=request.guidance_scale,
                latents=torch.from_numpy(noise)[None],
                output_type="np",
            ).images
        return to_levels(images)


def to_levels(images: np.ndarray) -> np.ndarray:
    return (images[0] * 255).round().astype(np.uint8)


def noise_shape(request: ImageRequest) -> tuple[int, int, int]:
    return 4, request.height // 2, request.width // 2


def first_noise(request: ImageRequest) -> np.ndarray:
    return np.random.default_rng(request.seed).standard_normal(noise_shape(request), np.float32)


def difference(picture: np.ndarray, other: np.ndarray) -> int:
    """The largest difference of two pictures that are not flat, of 255."""
    assert picture.shape == other.shape
    assert picture.dtype == other.dtype == np.uint8
    assert other.std() > 10, "pictures this flat would agree whatever was drawn"
    return int(np.abs(picture.astype(int) - other).max())


@contextlib.contextmanager
def quiet():
    with warnings.catch_warnings():
        # Torch's tensors do not know numpy 2's `copy` yet, and diffusers passes them to numpy.
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy")
        yield
