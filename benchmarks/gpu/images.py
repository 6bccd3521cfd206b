"""Pictures on a GPU: the demo's beside the CPU engine's, and the speed of a published shape."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
from tokenizers import Tokenizer

from benchmarks.images.quality import psnr
from benchmarks.images.sdxl import make_sdxl
from benchmarks.markdown import table
from demos.diffusion_training.prompts import held_out_prompts
from engines.image.engine import ImageEngine
from engines.image.prompt import frame_token_ids
from engines.image.request import ImageRequest, Picture
from engines.load_image import ImageEngineOptions, load_image_engine
from engines.manifest import Target, read_manifest
from engines.store import EngineFolder
from export.command import export_engine
from export.config import ExportConfig
from export.report import QuietProgress

DEMO = Path(__file__).parent.parent.parent / "demos" / "demo-diffusion"
NUM_PICTURES = 20
DEMO_STEPS = 20
DEMO_GUIDANCE = 3.0
SPEED_STEPS = 30
GOALS_S = {"cuda": 2.3, "tensorrt": 1.4}  # a picture of Stable Diffusion XL in 30 steps


@dataclass(frozen=True, slots=True)
class Nearness:
    """The demo's pictures against those of the CPU engine in fp32, from the same noise; in dB."""

    target: Target
    precision: str
    psnr_mean: float
    psnr_min: float


@dataclass(frozen=True, slots=True)
class Speed:
    """One picture of Stable Diffusion XL's shape; random weights."""

    target: Target
    precision: str
    size: int
    picture_s: float  # texts, steps and decoding
    step_s: float
    load_s: float


def measure_nearness(
    work: Path, target: Target, precision: str, num_pictures: int = NUM_PICTURES
) -> Nearness:
    """Compile the demo for the CPU and for `target`, and draw the same prompts with both."""
    expected = draw_demo(compile_images(DEMO, work, "ort-cpu", "fp32"), num_pictures)
    found = draw_demo(compile_images(DEMO, work, target, precision), num_pictures)
    values = [psnr(one, other) for one, other in zip(expected, found, strict=True)]
    return Nearness(target, precision, mean(values), min(values))


def measure_speed(work: Path, target: Target, precision: str, repetitions: int) -> Speed:
    """Make the checkpoint and the engine where they are not there yet, and time pictures."""
    checkpoint = work / "checkpoints" / "sdxl"
    if not checkpoint.exists():
        make_sdxl(checkpoint)
    folder = compile_images(checkpoint, work, target, precision)
    start = time.perf_counter()
    engine = load_image_engine(folder, ImageEngineOptions(rebuild=True, verify_files=False))
    load_s = time.perf_counter() - start
    try:
        for seed in range(2):  # what is recorded and what is set up lazily
            _draw(engine, _request(engine, folder, "a red star", seed, SPEED_STEPS))
        timed = [_time(engine, folder, seed) for seed in range(repetitions)]
    finally:
        engine.close()
    pictures, steps = zip(*timed, strict=True)
    size = engine.spec.default_height
    return Speed(target, precision, size, median(pictures), median(steps), load_s)


def render_images(near: Sequence[Nearness], speeds: Sequence[Speed]) -> str:
    """The section of a report, as Markdown."""
    parts = []
    if speeds:
        rows = [["Stable Diffusion XL's shape", "a picture, s", "goal", "a step, ms", "load, s"]]
        rows += [
            [
                f"{one.size} px, {SPEED_STEPS} steps, {one.precision}, {one.target}",
                f"{one.picture_s:.2f}",
                f"{GOALS_S[one.target]:.1f}" if one.target in GOALS_S else "-",
                f"{1000 * one.step_s:.1f}",
                f"{one.load_s:.1f}",
            ]
            for one in speeds
        ]
        parts.append(table(rows))
    if near:
        rows = [["demo-diffusion beside the CPU engine in fp32", "PSNR mean", "least"]]
        rows += [
            [f"{one.precision}, {one.target}", f"{one.psnr_mean:.1f}", f"{one.psnr_min:.1f}"]
            for one in near
        ]
        parts.append(table(rows))
    return "\n\n".join(parts)


def draw_demo(folder: EngineFolder, num_pictures: int) -> list[Picture]:
    """Held-out prompts of the demo, each by itself."""
    engine = load_image_engine(folder, ImageEngineOptions(rebuild=True))
    try:
        return [
            _draw(engine, _request(engine, folder, prompt.text, seed, DEMO_STEPS, DEMO_GUIDANCE))
            for seed, prompt in enumerate(held_out_prompts(num_pictures))
        ]
    finally:
        engine.close()


def compile_images(checkpoint: Path, work: Path, target: Target, precision: str) -> EngineFolder:
    output = work / f"{checkpoint.name}-{target}-{precision}"
    engine = output / checkpoint.name
    if not (engine / "engine.json").exists():
        config = ExportConfig(
            checkpoint_path=str(checkpoint),
            output=output,
            target=target,
            precision=precision,  # type: ignore[arg-type]  # a name of the table of precisions
            verify=False,
            quiet=True,
        )
        export_engine(config, QuietProgress())
    return EngineFolder(engine, read_manifest(engine))


def _request(
    engine: ImageEngine,
    folder: EngineFolder,
    text: str,
    seed: int,
    num_steps: int,
    guidance_scale: float | None = None,
) -> ImageRequest:
    spec = engine.spec
    ids = tuple(
        frame_token_ids(
            Tokenizer.from_file(str(folder.path / encoder.tokenizer))
            .encode(text, add_special_tokens=False)
            .ids,
            encoder,
        )
        for encoder in spec.text_encoders
    )
    return ImageRequest(
        image_id=seed,
        prompt_token_ids=ids,
        height=spec.default_height,
        width=spec.default_width,
        num_inference_steps=num_steps,
        guidance_scale=spec.default_guidance_scale if guidance_scale is None else guidance_scale,
        seed=seed,
    )


def _draw(engine: ImageEngine, request: ImageRequest) -> Picture:
    engine.add(request)
    picture: Picture | None = None
    while engine.has_work:
        for output in engine.step():
            picture = output.picture if output.is_finished else picture
    assert picture is not None
    return picture


def _time(engine: ImageEngine, folder: EngineFolder, seed: int) -> tuple[float, float]:
    """Seconds of a whole picture, and of one of its steps before the last."""
    request = _request(engine, folder, "a red star", seed, SPEED_STEPS)
    start = time.perf_counter()
    engine.add(request)
    times = []
    while engine.has_work:
        begun = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - begun)
    return time.perf_counter() - start, float(np.median(times[1:-1]))
