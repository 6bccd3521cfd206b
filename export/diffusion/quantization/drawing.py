"""Let an engine draw prompts, to measure what goes on in it or to compare its pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engines.backends.ort_image import Observe, OrtCpuImageRunner
from engines.image.engine import ImageEngine
from engines.image.request import ImageRequest, Picture
from engines.image.scheduler import ImageSchedulerConfig
from engines.image.schedulers.schedule import NoiseSchedule
from engines.machine import usable_cores
from engines.manifest import ImageSpec
from export.diffusion.verification.drawing import sizes, token_ids

CALIBRATION_STEPS = 8  # and up to three more, so that the prompts meet different times
_MORE_STEPS = 4
CHECK_STEPS = 10


def calibration_requests(
    folder: Path, spec: ImageSpec, prompts: tuple[str, ...]
) -> list[ImageRequest]:
    """A picture for each prompt; together they go through many more times than one of them."""
    least = min(CALIBRATION_STEPS, spec.default_num_inference_steps)
    return [
        _request(folder, spec, index, prompt, least + index % _MORE_STEPS)
        for index, prompt in enumerate(prompts)
    ]


def check_requests(folder: Path, spec: ImageSpec, prompts: tuple[str, ...]) -> list[ImageRequest]:
    """A picture for each prompt, in as many steps as the model needs and at most ten."""
    steps = min(CHECK_STEPS, spec.default_num_inference_steps)
    return [
        _request(folder, spec, 1000 + index, prompt, steps) for index, prompt in enumerate(prompts)
    ]


def open_engine(folder: Path, spec: ImageSpec, observe: Observe | None = None) -> ImageEngine:
    """Open an engine that needs no manifest; `observe` sees every run of a graph."""
    runner = OrtCpuImageRunner(folder, spec, usable_cores(), observe)
    schedule = NoiseSchedule.read(folder / spec.scheduler)
    return ImageEngine(runner, spec, schedule, ImageSchedulerConfig(max_num_images=1), "cpu")


def draw(engine: ImageEngine, request: ImageRequest, advance: Callable[[int], None]) -> Picture:
    """Draw one picture; `advance` is told each step."""
    engine.add(request)
    picture = None
    while engine.has_work:
        for output in engine.step():
            if output.is_finished:
                picture = output.picture
            else:
                advance(1)
    assert picture is not None
    return picture


def _request(
    folder: Path, spec: ImageSpec, index: int, prompt: str, num_steps: int
) -> ImageRequest:
    (height, width), _ = sizes(spec)
    return ImageRequest(
        image_id=index,
        prompt_token_ids=token_ids(folder, spec, prompt),
        height=height,
        width=width,
        num_inference_steps=num_steps,
        guidance_scale=spec.default_guidance_scale,
        seed=index,
    )
