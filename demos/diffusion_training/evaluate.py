"""Measures the demo on held-out prompts: `python -m demos.diffusion_training.evaluate`."""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demos.diffusion_training.classify import classify
from demos.diffusion_training.grading import grade, shares
from demos.diffusion_training.pictures import (
    CHECKPOINT,
    DEFAULTS,
    Painter,
    Settings,
    compile_checkpoint,
)
from demos.diffusion_training.prompts import held_out_prompts

logger = logging.getLogger("demos.evaluation")

TABLE_START, TABLE_END = "<!-- evaluation -->", "<!-- /evaluation -->"


@contextmanager
def open_painter(checkpoint: Path, engine: Path | None) -> Iterator[Painter]:
    """The engine of a folder, or one that is compiled of the checkpoint for the while."""
    with tempfile.TemporaryDirectory() as scratch:
        painter = Painter(engine or compile_checkpoint(checkpoint, Path(scratch)))
        try:
            yield painter
        finally:
            painter.close()


def evaluate(painter: Painter, count: int, settings: Settings) -> dict[str, Any]:
    """Right answers by attribute over the first `count` held-out prompts. Misses are logged."""
    prompts = held_out_prompts(count)
    start = time.perf_counter()
    pictures = painter.draw([prompt.text for prompt in prompts], settings)
    seconds = time.perf_counter() - start
    grades = []
    for prompt, picture in zip(prompts, pictures, strict=True):
        found = classify(picture)
        marks = grade(prompt, found)
        grades.append(marks)
        if not all(marks.values()):
            wrong = [attribute for attribute, is_right in marks.items() if not is_right]
            logger.info("%r: wrong %s: %s", prompt.text, ", ".join(wrong), found)
    logger.info("%d pictures in %.1f s", count, seconds)
    return {
        attribute: {"right": right, "of": of, "accuracy": round(right / of, 3)}
        for attribute, (right, of) in shares(grades).items()
    }


def write_report(folder: Path, report: dict[str, Any], settings: Settings) -> None:
    """Write evaluation.json and the table of the folder's README."""
    content = {
        "num_inference_steps": settings.num_inference_steps,
        "guidance_scale": settings.guidance_scale,
        "scheduler": settings.scheduler or "the checkpoint's",
        "first_seed": settings.first_seed,
        "attributes": report,
    }
    (folder / "evaluation.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    rows = [
        f"| {name} | {row['right']} of {row['of']} | {100 * row['accuracy']:.0f} % |"
        for name, row in report.items()
    ]
    table = "\n".join(["| attribute | right | share |", "| --- | --- | --- |", *rows])
    readme = folder / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(TABLE_START)
    after = rest.partition(TABLE_END)[2]
    text = f"{before}{TABLE_START}\n{table}\n{TABLE_END}{after}"
    readme.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--engine", type=Path, help="a compiled engine, instead of the checkpoint")
    parser.add_argument("--count", type=int, default=300, help="held-out prompts")
    parser.add_argument("--steps", type=int, default=DEFAULTS.num_inference_steps)
    parser.add_argument("--guidance", type=float, default=DEFAULTS.guidance_scale)
    parser.add_argument("--scheduler", help="such as euler; by default the checkpoint's")
    parser.add_argument(
        "--write", action="store_true", help="write evaluation.json into the checkpoint"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = Settings(options.steps, options.guidance, options.scheduler)
    with open_painter(options.checkpoint, options.engine) as painter:
        report = evaluate(painter, options.count, settings)
    for name, row in report.items():
        logger.info(
            "%-18s %4d of %4d  %5.1f %%", name, row["right"], row["of"], 100 * row["accuracy"]
        )
    if options.write:
        write_report(options.checkpoint, report, settings)


if __name__ == "__main__":
    main()
