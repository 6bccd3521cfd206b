"""`python -m benchmarks image-quality`: what int8 and step caching cost in picture quality.

The demo's held-out prompts are drawn by engines of one checkpoint from the same noise. Pictures are
held against those in fp32 without step caching, and read back by the demo's classifier of pixels.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter
from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer

from benchmarks.errors import PeerFailed
from benchmarks.markdown import own_command, table
from demos.diffusion_training.classify import classify
from demos.diffusion_training.grading import BACKGROUND, COLOUR, KIND, Grade, grade, shares
from demos.diffusion_training.prompts import HeldOutPrompt, held_out_prompts
from engines.image.engine import ImageEngine
from engines.image.prompt import frame_token_ids
from engines.image.request import ImageRequest, Picture
from engines.load_image import ImageEngineOptions, load_image_engine
from engines.store import find_engines

Precision = Literal["fp32", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")

_LEVELS = 255
_EQUAL = 100.0  # dB, said of pictures that are equal


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityConfig:
    """Draw held-out prompts in fp32, int8 and with step caching, and compare the pictures."""

    checkpoint: Annotated[
        Path, Parameter(help="what the engines are compiled of; the demo in diffusers' layout")
    ] = Path("demos/demo-diffusion")
    fp32: Annotated[
        Path | None, Parameter(help="its engine in fp32; by default compiled for the while")
    ] = None
    int8: Annotated[
        Path | None, Parameter(help="its engine in int8; by default compiled for the while")
    ] = None
    count: Annotated[int, Parameter(help="prompts")] = 100
    first: Annotated[int, Parameter(help="the first of them; it is also the first seed")] = 0
    steps: Annotated[int, Parameter(help="steps of each picture")] = 20
    guidance_scale: Annotated[float, Parameter(help="how far the prompt is followed")] = 5.0
    scheduler: Annotated[str | None, Parameter(help="by default the checkpoint's")] = None
    cache_intervals: Annotated[
        tuple[int, ...],
        Parameter(
            help="with a full run of the denoiser every so many steps; 1 is without step caching",
            consume_multiple=True,
            negative="",
        ),
    ] = (1, 2, 3)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"--count is {self.count}, but has to be at least 1")
        if self.first < 0:
            raise ValueError(f"--first is {self.first}, but has to be at least 0")
        if 1 not in self.cache_intervals:
            raise ValueError("--cache-intervals has to hold 1, which the others are compared with")


@dataclass(frozen=True, slots=True)
class Drawn:
    """The pictures of all prompts by one variant, and the seconds that each one took."""

    pictures: tuple[Picture, ...]
    seconds: float


def run_quality(config: QualityConfig) -> int:
    """Draw, compare and print the table."""
    console = Console(stderr=True, soft_wrap=True)
    prompts = held_out_prompts(config.first + config.count)[config.first :]
    drawn: dict[tuple[Precision, int], Drawn] = {}
    with ExitStack() as stack:
        for precision in PRECISIONS:
            folder = _engine(config, precision, stack, console)
            for interval in config.cache_intervals:
                label = f"{precision}, cache interval {interval}"
                drawn[precision, interval] = _draw_all(folder, prompts, interval, config, label)
    print(f"`{own_command('image-quality')}`\n\n{report(prompts, drawn)}")
    return 0


def report(prompts: Sequence[HeldOutPrompt], drawn: dict[tuple[Precision, int], Drawn]) -> str:
    """A row for each variant, beside fp32 without step caching."""
    rows = [
        ["", "PSNR mean", "least", "5 %", "median", "background", "shape colour", "shape kind",
         "seconds a picture"]
    ]  # fmt: skip
    reference = drawn["fp32", 1].pictures
    for (precision, interval), one in drawn.items():
        label = precision if interval == 1 else f"{precision}, every {interval} steps in full"
        marks = [
            grade(prompt, classify(p)) for prompt, p in zip(prompts, one.pictures, strict=True)
        ]
        is_reference = one.pictures is reference
        figures = ["-"] * 4 if is_reference else _psnr_figures(reference, one.pictures)
        rows.append([label, *figures, *_accuracies(marks), f"{one.seconds:.2f}"])
    return table(rows)


def psnr(picture: Picture, other: Picture) -> float:
    """The peak signal-to-noise ratio in dB."""
    error = float(np.square(picture.astype(np.float64) - other).mean())
    return _EQUAL if error == 0 else min(_EQUAL, 10 * float(np.log10(_LEVELS**2 / error)))


def _psnr_figures(reference: Sequence[Picture], found: Sequence[Picture]) -> list[str]:
    values = [psnr(one, other) for one, other in zip(reference, found, strict=True)]
    chosen = (np.mean(values), np.min(values), np.percentile(values, 5), np.median(values))
    return [f"{value:.1f}" for value in chosen]


def _accuracies(marks: Sequence[Grade]) -> list[str]:
    found = shares(marks)
    return [f"{found[name][0]} of {found[name][1]}" for name in (BACKGROUND, COLOUR, KIND)]


def _engine(
    config: QualityConfig, precision: Precision, stack: ExitStack, console: Console
) -> Path:
    given = config.fp32 if precision == "fp32" else config.int8
    if given is not None:
        return given
    output = stack.enter_context(tempfile.TemporaryDirectory(prefix="image-quality-"))
    command = [sys.executable, "-m", "export", "--checkpoint-path", str(config.checkpoint)]
    command += ["--output", output, "--precision", precision, "--no-verify", "--quiet"]
    with console.status(f"compiling {config.checkpoint} in {precision}"):
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise PeerFailed(f"the export in {precision} failed: {done.stderr.strip()}")
    return Path(output)


def _draw_all(
    folder: Path,
    prompts: Sequence[HeldOutPrompt],
    cache_interval: int,
    config: QualityConfig,
    label: str,
) -> Drawn:
    """One picture after the other, so that its seconds are those of a lone request."""
    (found,) = find_engines(folder)
    engine = load_image_engine(found, ImageEngineOptions())
    tokenizers = [
        Tokenizer.from_file(str(found.path / encoder.tokenizer))
        for encoder in engine.spec.text_encoders
    ]
    pictures, seconds = [], []
    for seed, prompt in enumerate(
        track(prompts, label, console=Console(stderr=True)), start=config.first
    ):
        request = _request(engine, tokenizers, prompt.text, seed, cache_interval, config)
        start = time.perf_counter()
        pictures.append(_draw(engine, request))
        seconds.append(time.perf_counter() - start)
    engine.close()
    return Drawn(tuple(pictures), float(np.median(seconds)))


def _request(
    engine: ImageEngine,
    tokenizers: Sequence[Tokenizer],
    text: str,
    seed: int,
    cache_interval: int,
    config: QualityConfig,
) -> ImageRequest:
    spec = engine.spec
    return ImageRequest(
        image_id=seed,
        prompt_token_ids=tuple(
            frame_token_ids(tokenizer.encode(text, add_special_tokens=False).ids, encoder)
            for tokenizer, encoder in zip(tokenizers, spec.text_encoders, strict=True)
        ),
        height=spec.default_height,
        width=spec.default_width,
        num_inference_steps=config.steps,
        guidance_scale=config.guidance_scale,
        scheduler=config.scheduler,
        seed=seed,
        cache_interval=cache_interval,
    )


def _draw(engine: ImageEngine, request: ImageRequest) -> Picture:
    engine.add(request)
    picture = None
    while engine.has_work:
        for output in engine.step():
            picture = output.picture if output.is_finished else picture
    assert picture is not None
    return picture
