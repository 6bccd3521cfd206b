"""Measures an image engine of ours through `ImageEngine.step()`, in a process of its own.

python -m benchmarks.images.enginery --model ENGINE_FOLDER [--cache-interval N --threads N ...]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.images.adapter import ImageModel, run_adapter
from benchmarks.machine import installed_version
from engines import __version__
from engines.image.request import MAX_INFERENCE_STEPS, ImageRequest
from engines.load_image import ImageEngineOptions, load_image_engine
from engines.store import find_engines

_SCHEDULER = "ddim"  # one run of the model a step


class EngineryModel(ImageModel):
    """An engine that draws one picture; steps are timed before the last, which also decodes."""

    def __init__(self, folder: Path, num_threads: int, cache_interval: int) -> None:
        (found,) = find_engines(folder)
        self._engine = load_image_engine(found, ImageEngineOptions(num_threads=num_threads))
        self._spec = self._engine.spec
        self._cache_interval = cache_interval
        self._size: int | None = None  # of the picture that is being drawn
        self._rng = np.random.default_rng(0)
        self.version = f"Enginery {__version__}, onnxruntime {installed_version('onnxruntime')}"

    def encode_texts(self) -> None:
        ids = tuple(
            np.ones((2, encoder.max_length), np.int64) for encoder in self._spec.text_encoders
        )
        self._engine.runner.encode_text(ids)

    def guided_step(self, size: int) -> None:
        if self._size != size:
            self._begin(size, MAX_INFERENCE_STEPS)
        self._engine.step()

    def decode(self, size: int) -> None:
        side = size // self._spec.latent_scale
        shape = (1, self._spec.latent_channels, side, side)
        self._engine.runner.decode(self._rng.standard_normal(shape, np.float32))

    def seconds_per_step(self, size: int, num_steps: int) -> float:
        """With step caching the mean of a run, since its steps differ."""
        if self._cache_interval == 1:
            return super().seconds_per_step(size, num_steps)
        self._begin(size, MAX_INFERENCE_STEPS)
        for _ in range(2):  # warm-up: a full step and a cached one
            self._engine.step()
        self._begin(size, num_steps + 1)
        start = time.perf_counter()
        for _ in range(num_steps):
            self._engine.step()
        return (time.perf_counter() - start) / num_steps

    def _begin(self, size: int, num_steps: int) -> None:
        self._engine.abort(0)
        ids = tuple((1,) * encoder.max_length for encoder in self._spec.text_encoders)
        self._engine.add(
            ImageRequest(
                image_id=0,
                prompt_token_ids=ids,
                height=size,
                width=size,
                num_inference_steps=num_steps,
                guidance_scale=7.5,
                seed=0,
                scheduler=_SCHEDULER,
                cache_interval=self._cache_interval,
            )
        )
        self._size = size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache-interval", type=int, default=1)
    run_adapter(lambda args: EngineryModel(args.model, args.threads, args.cache_interval), parser)


if __name__ == "__main__":
    main()
