"""Draws prompts with the demo as it is used: compiled, by the image engine, without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from demos.diffusion_training.drawing import Picture
from engines.image.engine import ImageEngine
from engines.image.prompt import frame_token_ids
from engines.image.request import ImageRequest, TokenIds
from engines.load_image import ImageEngineOptions, load_image_engine
from engines.manifest import read_manifest
from engines.store import EngineFolder

CHECKPOINT = Path(__file__).parents[1] / "demo-diffusion"
ENGINE_ID = "demo-diffusion"


@dataclass(frozen=True, slots=True)
class Settings:
    """How pictures are made; `scheduler` None takes the checkpoint's."""

    num_inference_steps: int = 20
    guidance_scale: float = 3.0
    scheduler: str | None = None
    first_seed: int = 0


DEFAULTS = Settings()


def compile_checkpoint(checkpoint: Path, output: Path) -> Path:
    """Compile a checkpoint in fp32 by the project's command; returns the engine's folder."""
    command = [sys.executable, "-m", "export", "--checkpoint-path", str(checkpoint), "--force"]
    command += ["--name", ENGINE_ID, "--output", str(output), "--precision", "fp32"]
    subprocess.run([*command, "--no-verify", "--quiet"], check=True, cwd=Path(__file__).parents[2])
    return output / ENGINE_ID


class Painter:
    """An engine with its tokenizer: texts in, pictures out.

    Args:
        folder: The engine's.
        num_threads: None takes all cores.
        batch_size: Pictures that are drawn together.
    """

    def __init__(self, folder: Path, num_threads: int | None = None, batch_size: int = 8) -> None:
        options = ImageEngineOptions(
            num_threads=num_threads, max_num_images=batch_size, max_rows=2 * batch_size
        )
        self._engine: ImageEngine = load_image_engine(
            EngineFolder(folder, read_manifest(folder)), options
        )
        self._tokenizers = [
            Tokenizer.from_file(str(folder / encoder.tokenizer))
            for encoder in self._engine.spec.text_encoders
        ]

    def draw(self, texts: Sequence[str], settings: Settings) -> list[Picture]:
        """The pictures of prompts, in their order; the seeds count up from the first."""
        engine, spec = self._engine, self._engine.spec
        for index, text in enumerate(texts):
            engine.add(
                ImageRequest(
                    image_id=index,
                    prompt_token_ids=self._token_ids(text),
                    height=spec.default_height,
                    width=spec.default_width,
                    num_inference_steps=settings.num_inference_steps,
                    guidance_scale=settings.guidance_scale,
                    scheduler=settings.scheduler,
                    seed=settings.first_seed + index,
                )
            )
        pictures: dict[int, Picture] = {}
        while engine.has_work:
            for output in engine.step():
                if output.picture is not None:
                    pictures[output.image_id] = output.picture
        return [pictures[index] for index in range(len(texts))]

    def close(self) -> None:
        self._engine.close()

    def _token_ids(self, text: str) -> TokenIds:
        return tuple(
            frame_token_ids(tokenizer.encode(text, add_special_tokens=False).ids, encoder)
            for tokenizer, encoder in zip(
                self._tokenizers, self._engine.spec.text_encoders, strict=True
            )
        )
