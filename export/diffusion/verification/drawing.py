"""Let a compiled image engine draw, as it would when it serves, and keep what its graphs did.

The pictures are small and take few steps: what is compared is the arithmetic, not the beauty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engines.backends.ort_image import OrtCpuImageRunner
from engines.image.engine import ImageEngine
from engines.image.prompt import frame_token_ids
from engines.image.request import ImageRequest, Picture, TokenIds
from engines.image.scheduler import ImageSchedulerConfig
from engines.image.schedulers.schedule import NoiseSchedule
from engines.manifest import ImageSpec
from export.diffusion.verification.training import Probe, probe_denoiser

NUM_STEPS = 4
PROMPTS = (
    "a red circle on a blue background",
    "a photograph of a mountain lake at sunrise",
    "a bowl of fruit on a wooden table, oil painting",
)
_OTHER_PROMPT = "a yellow star on a green background"
_LONGEST_SIDE = 32  # latents, 256 pixels of most models
_SIZE_STEP = 16  # what the pipelines of diffusers want sizes to be multiples of
# Schedulers that draw noise at every step, each library from a generator of its own.
_NOISY = {"EulerAncestralDiscreteScheduler", "LCMScheduler"}
_WITHOUT_NOISE = "euler"


@dataclass(frozen=True, slots=True)
class GraphRun:
    """What a graph was given, and what it gave."""

    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class DrawnPicture:
    """A picture, the request that it was drawn by, and the noise that it came from."""

    prompt: str
    request: ImageRequest
    picture: Picture  # [height, width, 3]
    noise: NDArray[np.float32]  # [latent_channels, h, w]


@dataclass(frozen=True, slots=True)
class Drawing:
    """All that the engine did.

    Attributes:
        scheduler: The scheduler of the pictures; None is the checkpoint's.
        pictures: In two sizes, with guidance and without.
        runs: By the graph's file name.
        probe: A picture under noise.
        probe_run: What the denoiser made of it.
    """

    scheduler: str | None
    pictures: tuple[DrawnPicture, ...]
    runs: dict[str, list[GraphRun]]
    probe: Probe
    probe_run: GraphRun


class RunRecorder:
    """Keeps the first and the last run of each graph for each set of input shapes.

    `latest` is the last run of each graph, whatever its shapes.
    """

    def __init__(self) -> None:
        self.latest: dict[str, GraphRun] = {}
        self._runs: dict[tuple[object, ...], list[GraphRun]] = {}

    def __call__(
        self, graph: str, inputs: Any, outputs: Any
    ) -> None:  # as the runner's `observe` is called
        run = GraphRun({name: array.copy() for name, array in inputs.items()}, dict(outputs))
        key = (graph, *((name, array.shape) for name, array in run.inputs.items()))
        self._runs[key] = [*self._runs.get(key, [])[:1], run]
        self.latest[graph] = run

    def by_graph(self) -> dict[str, list[GraphRun]]:
        runs: dict[str, list[GraphRun]] = {}
        for (graph, *_), kept in self._runs.items():
            runs.setdefault(str(graph), []).extend(kept)
        return runs


def draw(engine_dir: Path, spec: ImageSpec, num_threads: int) -> Drawing:
    """Draw every built-in prompt, and one more in another size and without guidance."""
    recorder = RunRecorder()
    runner = OrtCpuImageRunner(engine_dir, spec, num_threads, recorder)
    schedule = NoiseSchedule.read(engine_dir / spec.scheduler)
    scheduler = _WITHOUT_NOISE if schedule.scheduler in _NOISY else None
    limits = ImageSchedulerConfig(max_num_images=1)
    engine = ImageEngine(runner, spec, schedule, limits, device="cpu")
    requests = _requests(engine_dir, spec, scheduler)
    pictures = []
    for prompt, request in requests:
        pictures.append(_draw_one(engine, prompt, request, spec))
        runner.encode_image(_to_images(pictures[-1].picture))
    _encode_together([request for _, request in requests], runner)
    probe = probe_denoiser(requests[0][1], spec, schedule, runner)
    engine.close()
    probe_run = recorder.latest[spec.denoiser]
    return Drawing(scheduler, tuple(pictures), recorder.by_graph(), probe, probe_run)


def sizes(spec: ImageSpec) -> tuple[tuple[int, int], tuple[int, int]]:
    """Heights and widths of the pictures: of the engine's own shape, and of another."""
    step = math.lcm(_SIZE_STEP, spec.size_multiple)
    longest = _LONGEST_SIDE * spec.latent_scale
    shrink = min(1.0, longest / max(spec.default_height, spec.default_width))
    height, width = (
        max(step, round(side * shrink / step) * step)
        for side in (spec.default_height, spec.default_width)
    )
    other = max(step, height * 3 // 4 // step * step)
    return (height, width), (other, width if other != height else width + step)


def _requests(
    engine_dir: Path, spec: ImageSpec, scheduler: str | None
) -> list[tuple[str, ImageRequest]]:
    own, other = sizes(spec)
    settings = [(prompt, own, spec.default_guidance_scale) for prompt in PROMPTS]
    settings.append((_OTHER_PROMPT, other, 1.0))
    return [
        (
            prompt,
            ImageRequest(
                image_id=index,
                prompt_token_ids=token_ids(engine_dir, spec, prompt),
                height=height,
                width=width,
                num_inference_steps=NUM_STEPS,
                guidance_scale=guidance_scale,
                seed=index,
                scheduler=scheduler,
            ),
        )
        for index, (prompt, (height, width), guidance_scale) in enumerate(settings)
    ]


def token_ids(engine_dir: Path, spec: ImageSpec, text: str) -> TokenIds:
    """The ids of a text for each text encoder, by the engine's own tokenizers."""
    ids = []
    for encoder in spec.text_encoders:
        tokenizer = Tokenizer.from_file(str(engine_dir / encoder.tokenizer))
        plain: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        ids.append(frame_token_ids(plain, encoder))
    return tuple(ids)


def _draw_one(
    engine: ImageEngine, prompt: str, request: ImageRequest, spec: ImageSpec
) -> DrawnPicture:
    engine.add(request)
    picture = None
    while engine.has_work:
        for output in engine.step():
            picture = output.picture if output.is_finished else picture
    assert picture is not None
    scale = spec.latent_scale
    shape = (spec.latent_channels, request.height // scale, request.width // scale)
    noise = np.random.default_rng(request.seed).standard_normal(shape, np.float32)
    return DrawnPicture(prompt, request, picture, noise)


def _encode_together(requests: list[ImageRequest], runner: OrtCpuImageRunner) -> None:
    """All texts in one run, where they are of one length: another shape for the encoders."""
    by_encoder = list(zip(*(request.prompt_token_ids for request in requests), strict=True))
    if all(len({len(ids) for ids in texts}) == 1 for texts in by_encoder):
        runner.encode_text(tuple(np.array(texts, np.int64) for texts in by_encoder))


def _to_images(picture: Picture) -> NDArray[np.float32]:
    """[height, width, 3] of 0 to 255 -> [1, 3, height, width] of -1 to 1."""
    pixels = picture.astype(np.float32).transpose(2, 0, 1)[None]
    return np.ascontiguousarray(pixels / np.float32(127.5) - 1)
